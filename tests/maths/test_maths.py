"""The maths library through machine code, against libraries and many digits."""

from __future__ import annotations

import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
import scipy.special as sp
from native import WIDTHS, apply, equal, ulps

from facula.base.dtypes import float16, float32, float64, int32
from facula.codegen import maths
from facula.ir import loops as L

UNARY = [name for name, count in L.TRANSCENDENTAL.items() if count == 1]
TYPES = [float32, float64]

#: name -> bounds of the error in units in the last place, float32 and float64; the measured ones,
#: rounded up, are in docs/design/maths.md. In float64, near their zeros, digamma's and (at negative
#: arguments) lgamma's are units of 1.
BOUNDS = {
    "exp": (1, 1.2), "exp2": (1, 1), "expm1": (1.6, 2), "log": (1, 1), "log2": (1, 1),
    "log10": (1, 1), "log1p": (1.5, 1.5), "sin": (1.6, 1.6), "cos": (1.6, 1.6), "tan": (1.5, 1.5),
    "asin": (2, 2), "acos": (1.5, 1.5), "atan": (1.5, 2), "sinh": (1.6, 1.8), "cosh": (1.5, 1.5),
    "tanh": (2, 1.7), "asinh": (1.8, 1.8), "acosh": (1.5, 1.5), "atanh": (1.8, 1.8),
    "erf": (1.5, 1.5), "erfc": (3.5, 3.5), "erfinv": (2.5, 3), "rsqrt": (1.6, 1.6),
    "sigmoid": (2, 2), "lgamma": (1, 4), "digamma": (1, 16),
}  # fmt: skip

ORACLES = {
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "asinh": np.arcsinh,
    "acosh": np.arccosh, "atanh": np.arctanh, "erf": sp.erf, "erfc": sp.erfc,
    "erfinv": lambda x: np.copysign(sp.erfinv(x), x), "sigmoid": sp.expit, "digamma": sp.psi,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "lgamma": lambda x: np.where(np.isinf(x), np.inf, sp.gammaln(x)),
}  # fmt: skip

DIGITS = {
    "exp2": lambda x: mpmath.mpf(2) ** x,
    "log2": lambda x: mpmath.log(x, 2),
    "lgamma": lambda x: mpmath.re(mpmath.loggamma(x)),
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
}

#: Where results are numbers that float64 holds, or where mpmath is quick.
DOMAINS = {
    **dict.fromkeys(("log", "log2", "log10", "rsqrt"), (0, np.inf)),
    **dict.fromkeys(("asin", "acos", "atanh", "erfinv"), (-1, 1)),
    **dict.fromkeys(("exp", "expm1", "sinh", "cosh", "sigmoid"), (-745, 709)),
    **dict.fromkeys(("lgamma", "digamma"), (-170, np.inf)),
    "log1p": (-1, np.inf), "acosh": (1, np.inf), "erf": (-7, 7), "erfc": (-7, 27),
    "exp2": (-1074, 1023), "tanh": (-40, 40),
}  # fmt: skip

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, np.inf, -np.inf, np.nan]


def oracle(name):
    return ORACLES.get(name) or getattr(np, name)


def edges(d):
    info = np.finfo(d.numpy())
    ends = [info.max, info.tiny, info.smallest_subnormal, info.eps, info.tiny * (1 - info.eps)]
    return np.array([*SPECIAL, *ends, *(-e for e in ends)], d.numpy())


@pytest.mark.parametrize("name", UNARY)
def test_float32_over_the_whole_range(name):
    x = np.arange(5, 2**32, 8191, dtype=np.uint64).astype(np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        error = ulps(apply(name, float32, x), oracle(name)(x.astype(np.float64)))
    worst = error.argmax()
    assert error[worst] <= BOUNDS[name][0], f"{name}({x[worst]!r}): {error[worst]:.3f} ulp"


def samples(name, count=150):
    """float64 arguments of every size within the domain, and dense ones where it matters."""
    rng = np.random.default_rng(sum(map(ord, name)))
    sign = rng.choice([-1.0, 1.0], count)
    x = np.concatenate([
        rng.uniform(-1, 1, count), rng.uniform(-10, 10, count), rng.uniform(-700, 700, count),
        sign * 2 ** rng.uniform(-1074, 1023, count), sign * np.exp(rng.uniform(-36, 3, count)),
        1 + rng.uniform(-1e-3, 1e-3, count),
    ])  # fmt: skip
    low, high = DOMAINS.get(name, (-np.inf, np.inf))
    return x[(x > low) & (x < high)]


@pytest.mark.parametrize("name", UNARY)
def test_float64_against_many_digits(name):
    x = samples(name)
    with mpmath.workdps(400 if name in ("sin", "cos", "tan") else 40):
        function = DIGITS.get(name) or getattr(mpmath, name, None)
        want = [mpmath.re(function(mpmath.mpf(float(v)))) for v in x]
        got = apply(name, float64, x)
        error = []
        for v, g, w in zip(x, got, want):
            relative_to_one = name == "digamma" or name == "lgamma" and v < 0
            _, exponent = mpmath.frexp(max(abs(w), float(relative_to_one)))
            unit = mpmath.ldexp(1, max(exponent - 53, -1074))
            overflows = np.isinf(g) and abs(w) > np.finfo(float).max
            error.append(0 if overflows else float(abs(mpmath.mpf(float(g)) - w) / unit))
    worst = int(np.argmax(error))
    assert error[worst] <= BOUNDS[name][1], f"{name}({x[worst]!r}): {error[worst]:.3f} ulp"


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_reduction_at_its_hardest(name):
    """Floats nearest to multiples of pi/2, of every size; the first two are the nearest of all."""
    rng = np.random.default_rng(8)
    with mpmath.workdps(400):
        k = [*rng.integers(1, 2**29, 100), *rng.integers(1, 2**52, 100)]
        scale = [0] * 100 + list(rng.integers(0, 960, 100))
        near = [float(mpmath.ldexp(int(i) * mpmath.pi / 2, int(e))) for i, e in zip(k, scale)]
        wide = np.array([6381956970095103 * 2.0**797, *near, 1e9, 2.0**1023, np.finfo(float).max])
        narrow = np.array([16367173 * 2.0**72, *(v for v in near if v < 3e38)], np.float32)
        function = getattr(mpmath, name)
        for d, x in ((float64, wide), (float32, narrow)):
            want = [function(mpmath.mpf(float(v))) for v in x]
            got = [mpmath.mpf(float(v)) for v in apply(name, d, x)]
            error = max(abs(g / w - 1) for g, w in zip(got, want))
            assert error < 2 * np.finfo(d.numpy()).eps


@pytest.mark.parametrize("d", TYPES, ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_special_values(name, d):
    x = edges(d)
    with np.errstate(all="ignore"):
        want = oracle(name)(x.astype(np.longdouble if name in dir(np) else np.float64))
        want = want.astype(d.numpy())
    if name == "lgamma":  # SciPy overflows at denormals.
        x, want = x[abs(x) > 1e-300], want[abs(x) > 1e-300]
    got = apply(name, d, x)
    close = np.isclose(got, want, rtol=8 * np.finfo(d.numpy()).eps, atol=0, equal_nan=True)
    good = close & ((np.signbit(got) == np.signbit(want)) | np.isnan(want))
    assert good.all(), list(zip(x[~good], got[~good], want[~good]))


@pytest.mark.parametrize("d", TYPES, ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_every_width_gives_the_same_bits(name, d):
    rng = np.random.default_rng(3)
    x = (rng.choice([-1, 1], 1001) * 2 ** rng.uniform(-20, 40, 1001)).astype(d.numpy())
    results = [apply(name, d, x, width=w) for w in WIDTHS]
    # As scalars, where no other lane can have an influence.
    results.append(apply(name, d, x, loop="serial"))
    for other in results[1:]:
        assert equal(other, results[0]).all()


def pairs(d, count=20_000):
    """Special pairs, pairs of random bits, and pairs of ordinary sizes."""
    rng = np.random.default_rng(11)
    ends = edges(d)
    x, y = (a.ravel() for a in np.meshgrid(ends, ends))
    bits = rng.integers(0, 256, (2, count * d.itemsize), dtype=np.uint8).view(d.numpy())
    near = (rng.integers(-400, 400, (2, count)) * 0.25).astype(d.numpy())
    return (
        np.concatenate([x, bits[0], near[0], bits[1]]),
        np.concatenate([y, bits[1], near[1], near[0]]),
    )


@pytest.mark.parametrize("d", TYPES, ids=str)
def test_fmod_is_exact(d):
    x, y = pairs(d)
    with np.errstate(all="ignore"):
        want = np.fmod(x, y)
    good = equal(apply("fmod", d, x, y), want)
    assert good.all(), (x[~good][:5], y[~good][:5])


@pytest.mark.parametrize("d", TYPES, ids=str)
@pytest.mark.parametrize("name", ["fmod", "pow", "atan2"])
def test_every_width_gives_the_same_bits_of_pairs(name, d):
    x, y = pairs(d, 1000)
    results = [apply(name, d, x, y, width=w) for w in WIDTHS]
    results.append(apply(name, d, x, y, loop="serial"))
    for other in results[1:]:
        assert equal(other, results[0]).all()


@pytest.mark.parametrize("d", TYPES, ids=str)
def test_atan2(d):
    x, y = pairs(d)
    with np.errstate(all="ignore"):
        want = np.arctan2(y.astype(np.longdouble), x)
    got = apply("atan2", d, y, x)
    assert ulps(got, want).max() <= 2
    assert (np.signbit(got) == np.signbit(want))[~np.isnan(want)].all()


@pytest.mark.parametrize("d", TYPES, ids=str)
def test_pow(d):
    rng = np.random.default_rng(12)
    x, y = pairs(d)
    base = 2 ** rng.uniform(-100, 100, 20_000)
    exponent = rng.uniform(-150, 127, 20_000) * (1 if d is float32 else 8) / np.log2(base)
    near = np.stack([1 + rng.uniform(-1, 1, 5000) / 64, rng.uniform(-5000, 5000, 5000)])
    x, y = (
        np.concatenate([a, *(v.astype(d.numpy()) for v in more)])
        for a, *more in ((x, base, near[0]), (y, exponent, near[1]))
    )
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.longdouble), y.astype(np.longdouble))
    error = ulps(apply("pow", d, x, y), want)
    assert error.max() <= 1.5, (x[error.argmax()], y[error.argmax()], error.max())


@pytest.mark.parametrize("d", TYPES, ids=str)
def test_pow_special_pairs_and_signs(d):
    whole = np.array([3, -3, 4, -4, 2.0**23 + 1, -(2.0**23) - 1, 1e30], d.numpy())
    ends = np.concatenate([edges(d), whole])
    x, y = (a.ravel() for a in np.meshgrid(ends, ends))
    with np.errstate(all="ignore"):
        want = np.power(x, y)
    got = apply("pow", d, x, y)
    close = np.isclose(got, want, rtol=4 * np.finfo(d.numpy()).eps, atol=0, equal_nan=True)
    good = close & ((np.signbit(got) == np.signbit(want)) | np.isnan(want))
    assert good.all(), list(zip(x[~good], y[~good], got[~good], want[~good]))[:5]


def parts(name, d):
    holes = [L.Var(f"a{k}", d) for k in range(L.TRANSCENDENTAL[name])]
    seen, stack = {}, [maths.lower(L.Op(name, holes, d))]
    while stack:
        e = stack.pop()
        if id(e) not in seen:
            seen[id(e)] = e
            stack += e.args
    return list(seen.values())


@pytest.mark.parametrize("d", TYPES, ids=str)
@pytest.mark.parametrize("name", L.TRANSCENDENTAL)
def test_lowered_to_arithmetic_alone(name, d):
    known = {*L.ARITHMETIC, *L.COMPARISONS, "select"}
    for e in parts(name, d):
        assert not isinstance(e, L.Op) or e.name in known, e.name


def test_other_ops_and_types_are_not_lowered():
    assert maths.lower(L.Op("add", [L.Var("a", float32)] * 2, float32)) is None
    assert maths.lower(L.Op("exp", [L.Var("a", float16)], float16)) is None
    assert maths.lower(L.Op("exp", [L.Var("a", int32)], int32)) is None


def test_schedule_puts_operands_first_and_leaves_the_rare_side_out():
    e = maths.lower(L.Op("fmod", [L.Var("x", float32), L.Var("y", float32)], float32))
    order = maths.schedule(e)
    assert order[-1] is e and isinstance(e, maths.Rarely)
    at = {id(part): i for i, part in enumerate(order)}
    for part in order:
        operands = part.args[::2] if isinstance(part, maths.Rarely) else part.args
        assert all(at[id(x)] < at[id(part)] for x in operands)
    assert len(order) < 40 < len(maths.schedule(e.args[1]))


#: What every activation pays, in operations a vector: a longer way needs a reason.
OPERATIONS = {"exp": 18, "log": 34, "tanh": 30, "sigmoid": 26, "erf": 30, "sin": 42, "rsqrt": 18}


@pytest.mark.parametrize("name", OPERATIONS)
def test_number_of_operations(name):
    e = maths.lower(L.Op(name, [L.Var("a", float32)], float32))
    count = sum(isinstance(part, (L.Op, maths.Rarely)) for part in maths.schedule(e))
    assert count <= OPERATIONS[name]


def test_coefficients_can_be_reproduced():
    sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
    try:
        import fit_maths
    finally:
        sys.path.pop(0)
    from facula.codegen.maths import coefficients

    f, lo, hi, weight, count, _ = fit_maths.POLYNOMIALS["exp"]
    found, error = fit_maths.fit(24, f, lo, hi, range(count), weight)
    assert tuple(found) == coefficients.EXP_32
    assert error < 2**-28
