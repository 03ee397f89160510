"""Fits the polynomials of ``facula/codegen/maths`` and writes them to ``coefficients.py`` there.

Run as ``python tools/fit_maths.py [NAME ...]`` (needs mpmath); names given are fitted anew, all
others are kept. Every fit is a Remez exchange on a grid in many digits: the polynomial whose
largest weighted error is least. Coefficients are rounded to the format one after the other, the
rest being fitted again each time, so that rounding costs next to nothing.
"""

from __future__ import annotations

import pathlib
import sys
import textwrap

import mpmath as mp
import numpy as np

mp.mp.dps = 50
TARGET = pathlib.Path(__file__).parent.parent / "facula/codegen/maths/coefficients.py"
LN2 = mp.log(2)


def chebyshev(lo, hi, count):
    """Points of [lo, hi] that lie densest at its ends."""
    lo, hi = mp.mpf(lo), mp.mpf(hi)
    angles = ((2 * k + 1) * mp.pi / (2 * count) for k in range(count))
    return sorted((lo + hi) / 2 + (hi - lo) / 2 * mp.cos(a) for a in angles)


def exchange(columns, target, scale, steps=40):
    """Coefficients c that minimise the largest ``|(columns @ c - target) * scale|``."""
    n, m = len(columns), len(target)
    pick = [round((m - 1) * (1 - np.cos(np.pi * k / n)) / 2) for k in range(n + 1)]
    best = None
    for _ in range(steps):
        a = mp.matrix(n + 1, n + 1)
        for row, i in enumerate(pick):
            for j in range(n):
                a[row, j] = columns[j][i]
            a[row, n] = (-1) ** row / scale[i]
        c = mp.lu_solve(a, mp.matrix([target[i] for i in pick]))
        error = -target
        for j in range(n):
            error = error + columns[j] * c[j]
        error = error * scale
        size = np.array([abs(float(e)) for e in error])
        if best is None or size.max() < best[1]:
            best = [c[j] for j in range(n)], size.max()
        # The extremum of every run of one sign; the n + 1 neighbours that hold the largest.
        peaks, sign = [], 0
        for i, e in enumerate(error):
            if mp.sign(e) != sign:
                peaks.append(i)
                sign = mp.sign(e)
            elif size[i] > size[peaks[-1]]:
                peaks[-1] = i
        while len(peaks) > n + 1:
            peaks.pop(0 if size[peaks[0]] < size[peaks[-1]] else -1)
        levelled = abs(float(c[n])) * 1.01 > size.max()
        if len(peaks) < n + 1 or levelled:
            break
        pick = peaks
    return best


def fit(bits, f, lo, hi, powers, weight, exact=None):
    """Coefficients of ``f`` over ``powers`` of x on [lo, hi], rounded to ``bits`` of mantissa.

    ``weight(x)`` times the error is what is minimised. The first ``exact`` coefficients are
    rounded with a new fit of the others after each.
    """
    x = np.array(chebyshev(lo, hi, 24 * (len(powers) + 2)), dtype=object)
    target = np.array([f(v) for v in x], dtype=object)
    scale = np.array([abs(mp.mpf(weight(v))) for v in x], dtype=object)
    columns = [x**p for p in powers]
    exact = len(powers) - 1 if exact is None else exact
    done = []
    for k in range(len(powers)):
        if k <= exact:
            c, error = exchange(columns[k:], target, scale)
        else:
            c = c[1:]
        value = float(np.float32(float(c[0]))) if bits == 24 else float(c[0])
        done.append(value)
        target = target - columns[k] * mp.mpf(value)
    final = max(abs(float(e)) for e in target * scale)
    return done, final


ERFC_CENTRE = 3


def scaled_erfc(t):
    """exp(a^2) erfc(a) (a + c) at a = c (1 + t) / (1 - t)."""
    a = ERFC_CENTRE * (1 + t) / (1 - t)
    return mp.exp(a * a) * mp.erfc(a) * (a + ERFC_CENTRE)


def inverse_of_erf(w):
    """erfinv(x) / x where w = -log(1 - x^2)."""
    x = mp.sqrt(-mp.expm1(-w))
    return mp.erfinv(x) / x


def erfc_root(a):
    return mp.erfc(a) ** 0.25


def near_zero(centre):
    return lambda u: inverse_of_erf(u + centre)


def tail(centre):
    """As a function of the root of w."""
    return lambda u: inverse_of_erf((u + centre) ** 2)


def between_zeros(u):
    x = u + mp.mpf(1.65)
    return mp.loggamma(x) / ((x - 1) * (x - 2))


def at_centre(a):
    return mp.mpf(a - ERFC_CENTRE) / (a + ERFC_CENTRE)


# name -> (f, lo, hi, weight, number of coefficients for float32, for float64)
H = LN2 / 2 * mp.mpf("1.002")
LO, HI = mp.sqrt(mp.mpf("0.5")) - 1 - mp.mpf("1e-4"), mp.sqrt(2) - 1 + mp.mpf("1e-4")
Q = (mp.pi / 4 * mp.mpf("1.015")) ** 2


def rounded(value, bits):
    return mp.mpf(float(np.float32(float(value)))) if bits == 24 else mp.mpf(float(value))


def logarithm(base):
    """(log(1 + t) / log(base) - t * head) / t^2, where head is 1 / log(base), rounded."""

    def of(bits):
        head = rounded(1 / mp.log(base), bits)
        low = rounded(1 / mp.log(base) - head, bits)
        return lambda t: (mp.log1p(t) / mp.log(base) - t * head - t * low) / t**2

    return of


def root(f):
    """``f`` of the root of its argument: odd and even functions become ones of the square."""
    return lambda z: f(mp.sqrt(z))


tanh_excess = root(lambda a: (mp.tanh(a) - a) / a**3)
POLYNOMIALS = {
    "exp": (lambda r: (mp.expm1(r) - r) / r**2, -H, H, lambda r: r**2 / mp.exp(r), 5, 11),
    "exp2": (
        lambda r: (mp.mpf(2) ** r - 1) / r, -0.501, 0.501, lambda r: r / mp.mpf(2) ** r, 6, 12),
    "expm1": (lambda r: (mp.expm1(r) - r) / r**2, -H, H, lambda r: r**2 / mp.expm1(r), 6, 12),
    "log": (logarithm(mp.e), LO, HI, lambda t: t**2 / mp.log1p(t), 10, 22),
    "log2": (logarithm(2), LO, HI, lambda t: t**2 / mp.log1p(t), 10, 21),
    "log10": (logarithm(10), LO, HI, lambda t: t**2 / mp.log1p(t), 10, 21),
    "tanh": (tanh_excess, 1e-20, 1.376**2, root(lambda a: a**3 / mp.tanh(a)), 9, 0),
    "tanh_": (tanh_excess, 1e-20, 0.3026, root(lambda a: a**3 / mp.tanh(a)), 0, 12),
    # The fourth root of 1 - tanh.
    "tanh_root": (lambda a: (1 - mp.tanh(a)) ** 0.25, 1.374, 9.02,
                  lambda a: 4 * (1 - mp.tanh(a)) ** 0.75 / mp.tanh(a), 11, 0),
    "sin": (root(lambda r: (mp.sin(r) - r) / r**3), 0, Q,
            root(lambda r: r**3 / mp.sin(r)), 4, 7),
    # log2 and exp2 for powers of float32, computed in float64.
    "pow_log2": (logarithm(2), LO, HI, lambda t: t**2 / mp.log1p(t), 0, 14),
    "pow_exp2": (lambda r: (mp.mpf(2) ** r - 1) / r, -0.501, 0.501, lambda r: r, 0, 7),
    # log(m) = 2 s (1 + s^2 / 3 + s^4 Q(s^2)) with s = (m - 1) / (m + 1).
    "pow_log": (root(lambda s: (mp.atanh(s) / s - 1 - s**2 / 3) / s**4), 1e-6, 0.0296,
                lambda z: z**2, 0, 8),
    "erf": (root(lambda a: mp.erf(a) / a - 1), 1e-20, 1, root(lambda a: a / mp.erf(a)), 7, 13),
    # The fourth root of erfc, which is so flat that its errors hardly matter.
    "erfc_root": (erfc_root, 1, 3.92, lambda a: 4 * erfc_root(a) ** 3 / mp.erf(a), 10, 0),
    "erfc_root_": (erfc_root, 1, 5.93, lambda a: 4 * erfc_root(a) ** 3 / mp.erf(a), 0, 24),
    "erfc": (scaled_erfc, at_centre(1), at_centre(10.1), lambda t: 1 / scaled_erfc(t), 11, 0),
    "erfc_": (scaled_erfc, at_centre(1), at_centre(27.3), lambda t: 1 / scaled_erfc(t), 0, 24),
    "sinh": (root(lambda r: (mp.sinh(r) - r) / r**3), 1e-20, H**2,
             root(lambda r: r**3 / mp.sinh(r)), 3, 5),
    "cosh": (root(lambda r: (mp.cosh(r) - 1) / r**2), 1e-20, H**2, root(lambda r: r**2), 3, 6),
    "asin": (root(lambda x: (mp.asin(x) - x) / x**3), 1e-20, 0.25,
             root(lambda x: x**3 / mp.asin(x)), 5, 12),
    "atan": (root(lambda x: (mp.atan(x) - x) / x**3), 1e-20, 1,
             root(lambda x: x**3 / mp.atan(x)), 9, 21),
    # lgamma(x) / (x - 1) / (x - 2) around its zeros.
    "lgamma": (between_zeros, -0.951, 0.951, lambda u: 1 / between_zeros(u), 0, 33),
    "sinpi": (root(lambda x: mp.sinpi(x) / x), 1e-20, 0.25, lambda z: 1, 0, 10),
    "erfinv": (near_zero(1), -0.9999999, 4.01, lambda u: 1 / near_zero(1)(u), 10, 0),
    "erfinv_": (near_zero(2), -1.9999999, 6.41, lambda u: 1 / near_zero(2)(u), 0, 28),
    "erfinv_tail": (tail(3), mp.sqrt(5) - 3.001, 1.01, lambda u: 1 / tail(3)(u), 10, 0),
    "erfinv_tail_": (tail(4.45), mp.sqrt(8.4) - 4.451, 1.56, lambda u: 1 / tail(4.45)(u), 0, 27),
    "cos": (root(lambda r: (mp.cos(r) - 1 + r**2 / 2) / r**4), 0, Q,
            root(lambda r: r**4 / mp.cos(r)), 3, 7),
}  # fmt: skip


def main(names):
    space = {}
    if TARGET.exists():
        exec(TARGET.read_text(), space)
    tables = {k: v for k, v in space.items() if k.isupper()}
    for name, (f, lo, hi, weight, *counts) in POLYNOMIALS.items():
        if names and name not in names:
            continue
        for bits, count in zip((24, 53), counts):
            if not count:
                continue
            g = f(bits) if f.__name__ == "of" else f
            c, error = fit(bits, g, lo, hi, range(count), weight, None if bits == 24 else 4)
            print(f"{name} float{32 if bits == 24 else 64}: 2^{np.log2(error):.1f}", flush=True)
            tables[f"{name.upper().rstrip('_')}_{32 if bits == 24 else 64}"] = tuple(c)
    mp.mp.dps = 450
    for name, value in (("LN2", mp.log(2)), ("LN10", mp.log(10)), ("PI", mp.pi)):
        tables[name] = int(mp.nint(mp.ldexp(value, 256)))
    digits = int(mp.floor(mp.ldexp(2 / mp.pi, 64 * 21)))
    tables["TWO_OVER_PI"] = tuple(digits >> 64 * (20 - i) & (1 << 64) - 1 for i in range(21))
    lines = [
        '"""Coefficients, lowest power first, as ``tools/fit_maths.py`` found them."""',
        "# fmt: off",
    ]
    for name, values in tables.items():
        if isinstance(values, int):
            lines.append(f"{name} = {values:#x}  # times 2^-256")
            continue
        text = " ".join(f"{v!r}," for v in values)
        lines += [f"{name} = (", textwrap.indent(textwrap.fill(text, 95), "    "), ")"]
    TARGET.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
