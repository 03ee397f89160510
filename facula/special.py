"""Special functions: PyTorch's ``torch.special``."""

from __future__ import annotations

from facula.tensor import names_of_space, series

#: Names that the functions have at the top level.
_ELSEWHERE = {
    "exp2": "exp2", "expit": "sigmoid", "expm1": "expm1", "gammaln": "lgamma", "log1p": "log1p",
    "multigammaln": "mvlgamma", "psi": "digamma", "round": "round",
}  # fmt: skip


def __getattr__(name):
    if name in series.SPECIAL:
        return series.SPECIAL[name]
    if name in _ELSEWHERE:
        return names_of_space("torch", _ELSEWHERE[name], __name__)
    return names_of_space("special", name, __name__)
