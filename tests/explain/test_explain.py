"""What ``facula.explain`` tells about calls, and about functions that cannot be captured."""

from __future__ import annotations

import doctest

import pytest

import facula
import facula.explanation
from facula import nn
from facula.eager import engine
from facula.ir.program import verify


def test_a_softmax_is_one_kernel_that_reads_and_writes_once():
    e = facula.explain(facula.softmax, facula.randn(8, 100), dim=-1)
    (kernel,) = e.kernels
    assert kernel.cost.reads == kernel.cost.writes == 8 * 100 * 4
    assert e.bytes_moved == 2 * 8 * 100 * 4 and e.temporaries == [] and e.backward is None
    (group,) = e.groups
    assert [v.node.op.kind for v in group.roots] == ["reduce", "reduce", "pointwise"]
    assert kernel.bindings["b0"] == "input 0" and kernel.bindings["b1"] == "output 0"
    assert "s0d1 = 100" in kernel.bindings.values()
    assert kernel.loops.startswith("kernel ") and "parallel" in kernel.loops
    assert f"@{kernel.name}(" in kernel.llvm
    assert kernel.name in kernel.assembly
    verify(e.program)
    verify(e.optimized)


def test_explaining_gives_the_kernels_that_a_call_runs():
    x = facula.randn(13, 37)
    facula.nn.functional.gelu(x)
    before = engine.compiled_kernels
    facula.explain(facula.nn.functional.gelu, x)
    assert engine.compiled_kernels == before


def test_a_module_with_parameters_has_a_backward():
    model = nn.Sequential(nn.Linear(20, 16), nn.GELU(), nn.Linear(16, 3))
    target = facula.tensor([0, 2, 1, 0])

    def loss(x, y):
        return nn.functional.cross_entropy(model(x), y)

    e = facula.explain(loss, facula.randn(4, 20), target)
    assert len(e.program.inputs) == 6 and len(e.backward.program.outputs) == 4
    assert e.kernels == e.forward.kernels + e.backward.kernels
    by_hand = [{n.op.name for n in g.nodes} for g in e.backward.groups if g.opaque]
    assert sum("matmul" in names for names in by_hand) == 3
    assert {k.group for k in e.forward.kernels} == {g.number for g in e.groups}
    assert all(n > 0 for _, n in e.temporaries)
    text = str(e)
    assert "== backward" in text and "written by hand): matmul" in text
    assert max(map(len, text.splitlines())) < 2000


def test_strided_and_broadcast_inputs_count_what_lies_in_memory():
    x = facula.randn(4, 6)
    assert facula.explain(facula.exp, x.t()).kernels[0].cost.reads == 96
    assert facula.explain(facula.exp, x[:1].expand(9, 6)).kernels[0].cost.reads == 24


def test_numbers_random_streams_and_changes_in_place():
    x = facula.randn(4, 6)
    assert "number 1" in facula.explain(facula.add, x, 2.5).kernels[0].bindings.values()
    e = facula.explain(lambda x: nn.functional.dropout(x, 0.5), x)
    assert [v.weak for v in e.program.inputs] == [False, True, True]
    state = facula.zeros(6)

    def step(x):
        state.add_(x.sum(0))

    e = facula.explain(step, x)
    assert e.kernels and state.tolist() == [0.0] * 6


@pytest.mark.parametrize(
    "fn, said",
    [
        (lambda x: x if x.sum() > 0 else -x, "needs the elements"),
        (lambda x: x * x.max().item(), "needs the elements"),
        (lambda x: x.no_such_method(), "no_such_method"),
        (lambda x: x @ x, "matmul"),
    ],
)
def test_it_says_why_and_where_a_function_is_not_captured(fn, said):
    e = facula.explain(fn, facula.ones(2, 3))
    assert said in e.reason and "test_explain.py" in e.where
    assert e.kernels == [] and e.optimized is None
    assert str(e).startswith("not captured: ")
    assert facula.ones(2).sum().item() == 2  # the capture is over


def test_what_was_recorded_until_then_is_shown():
    e = facula.explain(lambda x: (x * 2).exp().item(), facula.ones(1))
    assert [n.op.name for n in e.program.nodes][-1] == "exp"


def test_functions_that_compute_nothing_and_wrong_arguments():
    assert facula.explain(lambda x: x, facula.ones(3)).kernels == []
    assert facula.explain(facula.compile(lambda x: x + 1), facula.ones(3)).kernels
    with pytest.raises(TypeError, match="explain: expected a function"):
        facula.explain(3)


def test_the_examples():
    assert doctest.testmod(facula.explanation).failed == 0
