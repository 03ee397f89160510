"""Formulas: native code computes what the trees say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facula.base.dtypes import int64
from facula.base.errors import OutOfMemoryError
from facula.ir import dims
from facula.ir import loops as L
from facula.ir.dims import Dim, maximum
from facula.ir.evaluate_loops import evaluate as evaluate_loops
from facula.ir.formulas import Formulas
from facula.runtime.formulas import evaluate

NAMES = ("a", "b", "c")
SIZES = st.integers(0, 1 << 20)


def combined(children):
    pairs = st.tuples(children, children)
    return st.one_of(
        pairs.map(lambda p: p[0] + p[1]),
        pairs.map(lambda p: p[0] - p[1]),
        pairs.map(lambda p: maximum(*p)),
        st.tuples(children, st.integers(1, 9)).map(lambda p: p[0] * p[1]),
        st.tuples(children, st.integers(-9, 9)).map(lambda p: p[0] // p[1] if p[1] else p[0]),
        st.tuples(children, st.integers(-9, 9)).map(lambda p: p[0] % p[1] if p[1] else p[0]),
        pairs.map(lambda p: p[0] // p[1] if isinstance(p[1], Dim) else p[0]),
    )


POLYNOMIALS = st.recursive(
    st.one_of(st.integers(-5, 5), st.sampled_from([Dim.symbol(n, 7) for n in NAMES])),
    combined,
    max_leaves=12,
)


@given(st.lists(POLYNOMIALS, min_size=1, max_size=8), st.tuples(SIZES, SIZES, SIZES))
def test_polynomials(wanted, sizes):
    values = dict(zip(NAMES, sizes))
    formulas = Formulas()
    places = [formulas.want(d) for d in wanted]
    product = formulas.want_product(wanted[:2])
    found = evaluate(formulas.code(), tuple(formulas.names), values)
    expected = [dims.evaluate(d, values) for d in wanted]
    assert [found[p] for p in places] == expected
    assert found[product] == expected[0] * (expected[1] if len(expected) > 1 else 1)


def test_index_expressions():
    k = L.Builder("k")
    m, n = k.size("m"), k.size("n")
    e = L.maximum(m * 3, L.minimum((n + 7) // 8 * 8, m % 5)) + L.Const(2, int64)
    formulas = Formulas()
    assert formulas.want(e) == 0
    for values in ({"m": 4, "n": 9}, {"m": 0, "n": 90}):
        found = evaluate(formulas.code(), tuple(formulas.names), values)
        assert found == (evaluate_loops(e, values),)
    # Variables stand for what they are bound to.
    bound = Formulas()
    bound.want(e, {"m": Dim.symbol("x", 3) * 2, "n": 9})
    assert bound.names == ["x"]
    assert evaluate(bound.code(), ("x",), {"x": 2}) == (evaluate_loops(e, {"m": 4, "n": 9}),)


def test_guards():
    a, b = (Dim.symbol(n, 3) for n in "ab")
    formulas = Formulas()
    formulas.guard("eq", a, b, False)
    formulas.guard("lt", a * 2, b, True)
    formulas.want(a + b)
    code, names = formulas.code(), tuple(formulas.names)
    assert evaluate(code, names, {"a": 1, "b": 3}) == (4,)
    assert evaluate(code, names, {"a": 3, "b": 3}) is None
    assert evaluate(code, names, {"a": 2, "b": 4}) is None


@pytest.mark.parametrize("a", [1 << 61, -(1 << 62) - 1, 1 << 70])
def test_numbers_beyond_64_bits_are_refused(a):
    formulas = Formulas()
    formulas.want(Dim.symbol("a", 3) * 2 * 4)
    with pytest.raises(OutOfMemoryError, match="need more memory"):
        evaluate(formulas.code(), ("a",), {"a": a})
    quotient = Formulas()
    quotient.want(Dim.symbol("a", 3) // -1)
    with pytest.raises(OutOfMemoryError):
        evaluate(quotient.code(), ("a",), {"a": -(1 << 63)})


def test_a_missing_size_is_an_error():
    formulas = Formulas()
    formulas.want(Dim.symbol("a", 3))
    with pytest.raises(KeyError, match="a"):
        evaluate(formulas.code(), ("a",), {})
