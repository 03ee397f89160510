"""What ops with several results return: tuples with names."""

from __future__ import annotations

from collections import namedtuple


def _text(self):
    parts = ",\n".join(f"{name}={value!r}" for name, value in zip(self._fields, self))
    return f"facula.return_types.{type(self).__name__}(\n{parts})"


def _named(op, fields):
    kind = namedtuple(op, fields, module="facula.return_types")
    kind.__repr__ = _text
    kind.__doc__ = f"What ``facula.{op}`` returns: {fields.replace(' ', ', ')}."
    return kind


max, min = _named("max", "values indices"), _named("min", "values indices")  # noqa: A001
sort, topk = _named("sort", "values indices"), _named("topk", "values indices")
cummax, cummin = _named("cummax", "values indices"), _named("cummin", "values indices")
median, nanmedian = _named("median", "values indices"), _named("nanmedian", "values indices")
mode, kthvalue = _named("mode", "values indices"), _named("kthvalue", "values indices")
aminmax = _named("aminmax", "min max")
frexp = _named("frexp", "mantissa exponent")
histogram = _named("histogram", "hist bin_edges")
slogdet, qr = _named("slogdet", "sign logabsdet"), _named("qr", "Q R")
svd, svd_old = _named("svd", "U S Vh"), _named("svd", "U S V")
eigh = _named("eigh", "eigenvalues eigenvectors")
lstsq = _named("lstsq", "solution residuals rank singular_values")
cholesky_ex, inv_ex = _named("cholesky_ex", "L info"), _named("inv_ex", "inverse info")
lu, lu_factor = _named("lu", "P L U"), _named("lu_factor", "LU pivots")
lu_factor_ex, solve_ex = _named("lu_factor_ex", "LU pivots info"), _named("solve_ex", "result info")
geqrf = _named("geqrf", "a tau")
triangular_solve = _named("triangular_solve", "solution cloned_coefficient")
