"""Short convolutions by interpolation (Toom, Cook, Winograd): matrices, and code that applies them.

``m`` results of a correlation with ``r`` taps need m + r - 1 products: of the input and the taps,
each seen as a polynomial's values at so many points, one of them infinite. So ``y = A ((G w) *
(B x))`` in one dimension, and the same along rows and columns in two.

The points decide how much rounding errors grow. Textbooks take 0, 1, -1, 2, -2: sums then come
4 to 5 times less exact than direct ones. Those below were found by measuring, among fractions
whose products are exact. They lie symmetric about 0, which halves the arithmetic: values at p and
-p are the sum and the difference of an even and an odd part.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import NamedTuple

from facula.ir import loops as L

#: By their number, which counts the infinite one, the last: 0 first, if it is there, then pairs.
POINTS = {
    5: (Fraction(1, 2), Fraction(-1, 2), Fraction(5, 4), Fraction(-5, 4)),
    6: (Fraction(0), Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2)),
}


class Toom(NamedTuple):
    """The matrices for ``m`` results of ``r`` taps: rows of fractions.

    Attributes:
        out: A, m rows of n = m + r - 1.
        taps: G, n rows of r.
        data: B, n rows of n.
        pairs: (j, j + 1) for the points p, -p number j and j + 1.
    """

    out: list
    taps: list
    data: list
    pairs: tuple


def _product_of(roots):
    """Coefficients of the polynomial that is 0 there, from that of degree 0 on."""
    result = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *result], [root * c for c in result] + [Fraction(0)]
        result = [a - b for a, b in zip(shifted, scaled)]
    return result


@functools.cache
def toom(m: int, r: int) -> Toom:
    """Matrices for ``m`` results of ``r`` taps."""
    n = m + r - 1
    points = POINTS[n]
    data, taps = [], []
    for p in points:
        others = [q for q in points if q != p]
        norm = Fraction(1)
        for q in others:
            norm *= p - q
        data.append([*_product_of(others), Fraction(0)])
        taps.append([p**i / norm for i in range(r)])
    data.append(_product_of(points))
    taps.append([Fraction(int(i == r - 1)) for i in range(r)])
    out = [[p**i for p in points] + [Fraction(int(i == m - 1))] for i in range(m)]
    first = len(points) % 2
    return Toom(out, taps, data, tuple((j, j + 1) for j in range(first, n - 1, 2)))


def _chain(k, coefficients, values):
    """(factor, sum) with ``factor * sum`` the combination; the last term has no other factor."""
    terms = [(c, v) for c, v in zip(coefficients, values) if c]
    factor, result = terms.pop()
    for c, v in reversed(terms):
        result = k.let(_scaled(v, c / factor, result))
    return factor, result


def _scaled(v, c, total):
    """``v * c + total``"""
    if c == 1:
        return total + v
    if c == -1:
        return total - v
    return L.fma(v, float(c), total)


def _times(k, v, c):
    return v if c == 1 else k.let(v * float(c))


def to_points(k: L.Builder, matrix, pairs, values) -> list:
    """``matrix @ values``, for a matrix to the points: data or taps."""
    result = [None] * len(matrix)
    for j, i in pairs:
        even = [(a + b) / 2 for a, b in zip(matrix[j], matrix[i])]
        odd = [(a - b) / 2 for a, b in zip(matrix[j], matrix[i])]
        factor, even = _chain(k, even, values)
        even = _times(k, even, factor)
        factor, odd = _chain(k, odd, values)
        result[j] = k.let(_scaled(odd, factor, even))
        result[i] = k.let(_scaled(odd, -factor, even))
    for j, row in enumerate(matrix):
        if result[j] is None:
            factor, total = _chain(k, row, values)
            result[j] = _times(k, total, factor)
    return result


def from_points(k: L.Builder, matrix, pairs, values) -> list:
    """``matrix @ values``, for a matrix from the points: out."""
    values = list(values)
    matrix = [list(row) for row in matrix]
    for j, i in pairs:
        a, b = values[j], values[i]
        values[j], values[i] = k.let(a + b), k.let(a - b)
        for row in matrix:
            row[j], row[i] = (row[j] + row[i]) / 2, (row[j] - row[i]) / 2
    result = []
    for row in matrix:
        # First a term without a factor, if there is one.
        terms = sorted(((c, v) for c, v in zip(row, values) if c), key=lambda term: term[0] != 1)
        (c, v), *others = terms
        total = _times(k, v, c)
        for c, v in others:
            total = k.let(_scaled(v, c, total))
        result.append(total)
    return result


def in_two(transform, rows):
    """Apply to columns, then to rows, of a matrix of values."""
    columns = [transform([row[j] for row in rows]) for j in range(len(rows[0]))]
    return [transform([column[i] for column in columns]) for i in range(len(columns[0]))]
