"""Updates of the rows that an embedding's gradient touches: the bits of the dense update."""

from __future__ import annotations

import math

import numpy as np
import pytest

import facula as fc
from facula import nn, optim


def trained(compiled, rule, rate, dtype=fc.float32):
    """A table after some steps, and its gradient. Rows below 9 are never touched."""
    fc.manual_seed(1)
    table = nn.Embedding(60, 20).to(dtype)
    with fc.no_grad():
        table.weight[5], table.weight[7, 2], table.weight[8, 1] = -0.0, math.inf, math.nan
    optimizer = optim.SGD(table.parameters(), lr=0.1, maximize=rule == "maximize")
    index = fc.randint(9, 60, (30, 2))
    factor = fc.randn(30, 20).to(dtype)

    def step():
        optimizer.zero_grad()
        (table(index[:, 1]) * factor).sum().backward()
        if rule == "add":
            with fc.no_grad():
                table.weight.add_(table.weight.grad, alpha=-rate)
        else:
            optimizer.step()

    run = fc.compile(step, fullgraph=True) if compiled else step
    for scale in (1.0, 0.5, 1.0):
        optimizer.param_groups[0]["lr"] = rate * scale
        run()
    found = [x.double().numpy().copy() for x in (table.weight.detach(), table.weight.grad)]
    for x in found:
        x[np.isnan(x)] = np.nan  # Of several kinds of NaN one.
    return [x.tobytes() for x in found]


@pytest.mark.parametrize("rate", [0.1, 0.0, -0.1, 1e38, math.inf, math.nan])
@pytest.mark.parametrize("rule", ["sgd", "maximize", "add"])
def test_of_special_numbers(rule, rate):
    assert trained(True, rule, rate) == trained(False, rule, rate)


@pytest.mark.parametrize("dtype", [fc.float64, fc.bfloat16, fc.float16], ids=str)
def test_of_other_dtypes(dtype):
    assert trained(True, "sgd", 0.3, dtype) == trained(False, "sgd", 0.3, dtype)


def kernels(change):
    def f(table, index, rows):
        gradient = fc.zeros(60, 20).index_add(0, index, rows)
        change(table, gradient)
        return gradient

    operands = fc.randn(60, 20), fc.randint(0, 60, (9,)), fc.randn(9, 20)
    return len(fc.explain(f, *operands).kernels)


def test_an_update_is_done_by_the_kernel_that_adds_up():
    assert kernels(lambda table, g: table.sub_(0.1 * g)) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda table, g: table.sub_(0.1 * g * table),
        lambda table, g: table.mul_(g),
        lambda table, g: table.add_(g.flip(0)),
    ],
    ids=["decay", "product", "elsewhere"],
)
def test_what_else_follows_a_gradient_is_another_kernel(change):
    assert kernels(change) == 2


def test_an_operand_that_shares_the_targets_memory():
    index = fc.tensor([1, 1, 0, 2])
    x = fc.arange(20.0).reshape(4, 5)
    want = x.clone().index_add(0, index, x.clone())
    assert x.index_add_(0, index, x).tolist() == want.tolist()
    x = fc.arange(20.0).reshape(4, 5)
    x[index] = x.flip(0)
    assert x.tolist() == [
        [5, 6, 7, 8, 9],
        [10, 11, 12, 13, 14],
        [0, 1, 2, 3, 4],
        [15, 16, 17, 18, 19],
    ]


def test_the_old_value_is_read_before_it_is_written_over():
    def f(x, index, src):
        old = x * 2
        x.index_add_(0, index, src)
        return old, x.sum(), x[index]

    operands = fc.randn(6, 4), fc.tensor([1, 1, 5]), fc.randn(3, 4)
    mine, other = (operands[0].clone() for _ in range(2))
    got, want = fc.compile(f)(mine, *operands[1:]), f(other, *operands[1:])
    assert [x.tolist() for x in (*got, mine)] == [x.tolist() for x in (*want, other)]
