"""Ops in other forms: halves, captured, run again, one row of a batch, differentiated twice."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import leaves, map_specs, meaning, samples
from test_registry import (
    ANY_DTYPE,
    DIFFERENTIABLE,
    POINTWISE,
    REFUSALS,
    TESTED,
    drawn,
    map_tensors,
    names,
    rng_of,
    tensors,
)

import facula
from facula.base import dtypes as D
from facula.library import OPS
from facula.tensor.functions import function_of


def bits(tensor):
    """A tensor's contents for exact comparison: NaN equals NaN, -0 is not 0."""
    tensor = tensor.detach()
    if tensor.dtype is D.bfloat16:
        tensor = tensor.float()
    return np.ascontiguousarray(tensor.numpy()).tobytes(), tuple(tensor.shape), tensor.dtype


def same(op, got, want):
    got, want = leaves(got), leaves(want)
    assert len(got) == len(want)
    for g, w in zip(got, want):
        assert bits(g) == bits(w), f"{op.name}: {g} is not {w}"


HALVES = [op for op in ANY_DTYPE if not op.view]


@pytest.mark.parametrize("dtype", [D.float16, D.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("op", HALVES, ids=names(HALVES))
def test_halves_are_near_the_meaning_in_single_precision(op, dtype):
    """Ops of several roundings may be off by some units of the half type's last place."""
    args, _ = drawn(op, samples(op)[0], D.float32)
    halves = [a.to(dtype) for a in tensors(args)]
    exact = tuple(h.float().numpy() for h in halves)
    try:
        want = meaning(op, exact, {})
    except REFUSALS:
        with pytest.raises(REFUSALS):
            function_of(op)(*halves)
        return
    got = leaves(function_of(op)(*halves))
    unit = 2.0**-10 if dtype is D.float16 else 2.0**-7
    for g, w in zip(got, want):
        assert tuple(g.shape) == w.shape
        if w.dtype.kind != "f":
            assert g.dtype is D.from_numpy(w.dtype)
            continue
        scale = np.max(np.abs(w[np.isfinite(w)]), initial=0)
        np.testing.assert_allclose(
            g.float().numpy(), w, rtol=8 * unit, atol=4 * unit * (1 + scale), err_msg=op.name
        )


@pytest.mark.parametrize("op", TESTED, ids=names(TESTED))
def test_run_again_and_captured_have_the_same_bits(op):
    """A second run, and ``facula.compile`` of the op alone, give what the first run gave."""
    for k, sample in enumerate(samples(op)[:2]):
        args, kwargs = drawn(op, sample, D.float32, k)
        given: list = []

        def collect(array, given=given):
            given.append(facula.from_numpy(array))
            return given[-1]

        args, kwargs = map_tensors(args, collect), map_tensors(kwargs, collect)
        first = function_of(op)(*args, **kwargs)
        same(op, function_of(op)(*args, **kwargs), first)

        def call(tensors, op=op, args=args, kwargs=kwargs, given=given):
            swap = {id(old): new for old, new in zip(given, tensors)}
            return function_of(op)(*replaced(args, swap), **replaced(kwargs, swap))

        same(op, facula.compile(call)(given), first)


def replaced(tree, swap):
    if isinstance(tree, (list, tuple)):
        return type(tree)(replaced(x, swap) for x in tree)
    if isinstance(tree, dict):
        return {k: replaced(v, swap) for k, v in tree.items()}
    return swap.get(id(tree), tree)


@pytest.mark.parametrize("op", POINTWISE, ids=names(POINTWISE))
def test_a_row_alone_has_the_bits_it_has_among_others(op):
    rng = rng_of(op, "rows")
    arity = len([p for p in op.signature.parameters.values()
                 if "Value" in str(p.annotation) and p.default is p.empty])  # fmt: skip
    many = [rng.uniform(*op.domain, (5, 37)).astype("f4") for _ in range(arity)]
    whole = function_of(op)(*map(facula.from_numpy, many))
    if isinstance(whole, tuple) or tuple(whole.shape) != (5, 37):
        return  # Not of one element each.
    for i in (0, 3):
        alone = function_of(op)(*(facula.from_numpy(a[i : i + 1]) for a in many))
        same(op, alone.reshape(1, 37), whole[i : i + 1])


#: Calls of a batch [n, ...] whose rows do not depend on one another.
ROWWISE = {
    "softmax": lambda F, x, w: F.softmax(x, -1),
    "log_softmax": lambda F, x, w: F.log_softmax(x, -1),
    "layer_norm": lambda F, x, w: F.layer_norm(x, (x.shape[-1],)),
    "rms_norm": lambda F, x, w: F.rms_norm(x, (x.shape[-1],)),
    "sum": lambda F, x, w: F.sum(x, -1),
    "logsumexp": lambda F, x, w: F.logsumexp(x, -1),
    "var": lambda F, x, w: F.var(x, -1),
    "cumsum": lambda F, x, w: F.cumsum(x, -1),
    "sort": lambda F, x, w: F.sort(x, -1)[0],
    "matmul": lambda F, x, w: F.matmul(F.reshape(x, (x.shape[0], 8, -1)), w),
    "linear": lambda F, x, w: F.linear(F.reshape(x, (x.shape[0], 8, -1)), F.t(w)),
    "conv2d": lambda F, x, w: F.conv2d(
        F.reshape(x, (x.shape[0], 3, 8, -1)), F.reshape(w[:, :9], (-1, 3, 3, 3))
    ),
}


@pytest.mark.parametrize("name", ROWWISE)
@pytest.mark.parametrize("n", [2, 5, 33])
def test_a_batch_of_one_has_the_bits_of_its_row(name, n):
    from facula.library import F

    rng = np.random.default_rng(n)
    x = facula.from_numpy(rng.standard_normal((n, 240)).astype("f4"))
    w = facula.from_numpy(rng.standard_normal((30, 19)).astype("f4"))
    if name == "conv2d":
        w = facula.from_numpy(rng.standard_normal((6, 18)).astype("f4"))
    call = ROWWISE[name]
    whole = call(F, x, w)
    for i in (0, n - 1):
        same(OPS[name], call(F, x[i : i + 1], w), whole[i : i + 1])


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=names(DIFFERENTIABLE))
def test_second_derivative_is_the_slope_of_the_first(op):
    """Along random directions, in float64, of the first samples."""
    sample, inputs = samples(op)[0], []
    rng = rng_of(op, "twice")

    def draw(spec):
        array = spec.array(rng, D.float64, op.domain)
        if array.dtype == np.float64 and spec.grad:
            inputs.append(array)
        return array

    args, kwargs = map_specs(sample, draw)
    if not inputs or any(a.size == 0 for a in inputs):
        return
    directions = [rng.standard_normal(a.shape) for a in inputs]
    fixed: list = []

    def cotangents(outputs):
        """The same random numbers at every call."""
        if not fixed:
            fixed.extend(facula.from_numpy(rng.standard_normal(tuple(o.shape))) for o in outputs)
        return fixed

    def first(shift, again):
        made = {
            id(x): facula.from_numpy(np.asarray(x + shift * d)).requires_grad_()
            for x, d in zip(inputs, directions)
        }
        enter = lambda a: made[id(a)] if id(a) in made else facula.from_numpy(a)  # noqa: E731
        out = function_of(op)(*map_tensors(args, enter), **map_tensors(kwargs, enter))
        out = [o for o in leaves(out) if o.requires_grad]
        if not out:
            return None, None
        xs = list(made.values())
        grads = facula.autograd.grad(
            out, xs, cotangents(out), create_graph=again, allow_unused=True
        )
        return xs, [g for g in grads if g is not None]

    xs, grads = first(0.0, True)
    if xs is None or not any(g.requires_grad for g in grads):
        return
    weights = [facula.from_numpy(rng.standard_normal(tuple(g.shape))) for g in grads]
    used = [(g, w) for g, w in zip(grads, weights) if g.requires_grad]
    second = facula.autograd.grad([g for g, _ in used], xs, [w for _, w in used], allow_unused=True)
    slope = sum(float((s.numpy() * d).sum()) for s, d in zip(second, directions) if s is not None)
    step = 1e-6

    def weighted(shift):
        _, grads = first(shift, False)
        return sum(float((g.detach().numpy() * w.numpy()).sum()) for g, w in zip(grads, weights))

    difference = (weighted(step) - weighted(-step)) / (2 * step)
    assert slope == pytest.approx(difference, rel=5e-4, abs=5e-5), f"{op.name} {args} {kwargs}"
