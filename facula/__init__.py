"""Deep learning with PyTorch's interface, in Python from the tensor down to the machine code.

Names are looked up when first used, so that importing the package loads nothing.

>>> import facula
>>> x = facula.tensor([1.0, 2.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
tensor([2., 4.])
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder

__version__ = "0.1.0"

#: Names that are not among those of tensors -> module.
_ELSEWHERE = {
    "GradScaler": "facula.amp",
    "OutOfMemoryError": "facula.base.errors",
    **dict.fromkeys(
        "autocast clear_autocast_cache get_autocast_dtype is_autocast_cache_enabled "
        "is_autocast_enabled".split(),
        "facula.amp",
    ),
    "compile": "facula.tensor.compile",
    "device": "facula.base.device",
    "dtype": "facula.base.dtypes",
    "explain": "facula.explanation",
    "get_num_threads": "facula.runtime.threads",
    "load": "facula.serialization",
    "save": "facula.serialization",
    "vmap": "facula.func",
    **dict.fromkeys(
        "alpha_dropout batch_norm bilinear channel_shuffle cosine_embedding_loss ctc_loss "
        "dropout feature_alpha_dropout hinge_embedding_loss "
        "instance_norm kl_div margin_ranking_loss poisson_nll_loss rrelu threshold "
        "triplet_margin_loss".split(),
        "facula.nn.functional",
    ),
    **dict.fromkeys(
        "bartlett_window blackman_window hamming_window hann_window kaiser_window".split(),
        "facula.signal.windows",
    ),
}


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(f"module 'facula' has no attribute {name!r}")
    if PathFinder.find_spec(f"facula.{name}", __path__) is not None:
        return importlib.import_module(f"facula.{name}")
    module = _ELSEWHERE.get(name, "facula.tensor")
    value = getattr(importlib.import_module(module), name)
    # Kept, so that the next look-up is an ordinary one.
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__():
    import pkgutil

    names = importlib.import_module("facula.tensor.namespace").names()
    modules = (m.name for m in pkgutil.iter_modules(__path__))
    return sorted({*globals(), *modules, *_ELSEWHERE, *names})
