"""What ops refuse, derived from their declarations: numbers for tensors, unfit ``out=`` tensors."""

from __future__ import annotations

import pytest
from oracle import leaves, samples
from test_registry import TESTED, drawn, names, tensors

import facula
from facula.base import dtypes as D
from facula.library import OPS
from facula.tensor.functions import function_of

NO_NUMBERS = [op for op in OPS.values() if not op.numbers]
EXACT = [op for op in TESTED if "exact" in str(op.out)]
APART = [op for op in TESTED if "apart" in str(op.out)]


@pytest.mark.parametrize("op", NO_NUMBERS, ids=names(NO_NUMBERS))
def test_numbers_are_refused_where_tensors_are_wanted(op):
    function, x = function_of(op), facula.ones(3, dtype=facula.int64)
    compiled = facula.compile(lambda x, y: function(x, y))
    for call in (function, compiled):
        with pytest.raises(TypeError, match="must be Tensor, not int"):
            call(x, 2)


def first_sample(op):
    args, kwargs = drawn(op, samples(op)[0], D.float32)
    args, kwargs = tensors(args), tensors(kwargs)
    return args, kwargs, leaves(function_of(op)(*args, **kwargs))


def given(outs):
    return outs[0] if len(outs) == 1 else tuple(outs)


@pytest.mark.parametrize("op", EXACT, ids=names(EXACT))
def test_results_need_tensors_of_their_dtype(op):
    args, kwargs, ys = first_sample(op)
    outs = [facula.empty(y.shape, dtype=facula.float16) for y in ys]
    with pytest.raises(RuntimeError, match="Expected out tensor to have dtype"):
        function_of(op)(*args, **kwargs, out=given(outs))
    outs = [facula.empty_like(y) for y in ys]
    function_of(op)(*args, **kwargs, out=given(outs))
    assert all(a.tolist() == b.tolist() for a, b in zip(outs, ys))


@pytest.mark.parametrize("op", APART, ids=names(APART))
def test_results_may_not_lie_over_operands(op):
    args, kwargs, ys = first_sample(op)
    x = next(x for x in leaves(args) if isinstance(x, facula.Tensor))
    over = x.reshape(-1)
    outs = [over, *(facula.empty_like(y) for y in ys[1:])]
    with pytest.raises(RuntimeError, match="single memory location"):
        function_of(op)(*args, **kwargs, out=given(outs))
