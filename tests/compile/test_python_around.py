"""What Python does around tensors inside of a captured function: as eagerly, call after call.

Each case makes a function that does one call: once with captures and once without.
"""

from __future__ import annotations

import contextlib
import io
import random
import warnings

import numpy as np
import pytest

import facula
from facula import nn

CASES = {}


def case(make):
    CASES[make.__name__] = make
    return make


def equal(a, b):
    if isinstance(a, facula.Tensor):
        return a.dtype is b.dtype and a.requires_grad == b.requires_grad and facula.equal(a, b)
    if isinstance(a, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    return a == b


@case
def changes_a_list_that_it_is_given(wrap):
    @wrap
    def f(xs):
        xs.append(xs[0] + 1)
        xs[0] = xs[0] * 2
        return xs[-1]

    def call(i):
        xs = [facula.ones(2) * i]
        return f(xs), xs

    return call


@case
def changes_a_dict_that_it_is_given(wrap):
    @wrap
    def f(d):
        d["y"] = d["x"] * 2
        return d

    def call(i):
        d = {"x": facula.ones(2) * i}
        return f(d) is d, d

    return call


@case
def seeds(wrap):
    @wrap
    def f(x):
        facula.manual_seed(5)
        return x + facula.rand(2)

    return lambda i: (f(facula.zeros(2)), facula.rand(1))


@case
def prints(wrap):
    @wrap
    def f(x):
        print("sum", x.sum())
        return x

    def call(i):
        with contextlib.redirect_stdout(io.StringIO()) as text:
            f(facula.ones(2) * i)
        return text.getvalue()

    return call


@case
def draws_from_a_stream_of_numpy(wrap):
    stream = np.random.RandomState(0)
    f = wrap(lambda x: x + facula.from_numpy(stream.rand(2)))
    return lambda i: f(facula.ones(2))


@case
def draws_from_a_stream_of_python(wrap):
    stream = random.Random(0)
    f = wrap(lambda x: x * stream.random())
    return lambda i: f(facula.ones(2))


@case
def reads_an_array_that_changes(wrap):
    array = np.ones(2, "float32")
    f = wrap(lambda x: x * facula.tensor(array))

    def call(i):
        array[0] = i
        return f(facula.ones(2))

    return call


@case
def has_a_function_with_a_backward_of_its_own(wrap):
    class Double(facula.autograd.Function):
        @staticmethod
        def forward(ctx, x, k):
            ctx.k = k
            return x * k

        @staticmethod
        def backward(ctx, g):
            return g * ctx.k * 2, None

    f = wrap(lambda x, k: Double.apply(x, k).sum())

    def call(i):
        x = facula.ones(2, requires_grad=True)
        f(x, i).backward()
        return x.grad

    return call


def step_of(wrap, prepare):
    model = nn.Linear(2, 2)
    with facula.no_grad():
        model.weight.fill_(0.5), model.bias.fill_(0.1)
    optimizer = facula.optim.SGD(model.parameters(), lr=0.1)
    seen = prepare(model, optimizer)

    @wrap
    def step(x):
        optimizer.zero_grad()
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return lambda i: (step(facula.ones(1, 2) * i), model.weight.detach().clone(), list(seen))


@case
def has_hooks_after_accumulation(wrap):
    def prepare(model, optimizer):
        seen = []
        model.weight.register_post_accumulate_grad_hook(lambda p: seen.append(1))
        return seen

    return step_of(wrap, prepare)


@case
def has_hooks_of_gradients(wrap):
    def prepare(model, optimizer):
        seen = []
        model.weight.register_hook(lambda g: seen.append(g.sum().item()))
        return seen

    return step_of(wrap, prepare)


@case
def has_hooks_of_steps(wrap):
    def prepare(model, optimizer):
        seen = []
        optimizer.register_step_post_hook(lambda *args: seen.append(len(seen)))
        return seen

    return step_of(wrap, prepare)


@case
def asks_how_tensors_lie(wrap):
    f = wrap(lambda x: (x + 1, x.is_contiguous(), x.stride()))
    return lambda i: f(facula.ones(2, 3).t() if i % 2 else facula.ones(3, 2))


@case
def changes_a_tensor_that_it_made_of_numbers(wrap):
    @wrap
    def f(x):
        total = facula.tensor([0.0])
        total.add_(x.sum())
        return total

    return lambda i: f(facula.ones(2) * i)


@case
def changes_a_contiguous_copy_of_a_view(wrap):
    @wrap
    def f(x):
        y = x.t().contiguous()
        y.add_(1)
        return x, y

    return lambda i: f(facula.ones(2, 3) * i)


@pytest.mark.parametrize("name", CASES)
def test_as_eager(name):
    def run(wrap):
        facula.manual_seed(0)
        call = CASES[name](wrap)
        return [call(i) for i in range(4)]

    expected = run(lambda f: f)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it runs in pieces
        found = run(facula.compile)
    assert equal(found, expected)
