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

__version__ = "0.1.0"

#: Modules that are attributes of the package without an import of their own.
_SUBMODULES = frozenset(
    "amp autograd backends base cli compat compiler cpu cuda distributed distributions export fft "
    "func jit library linalg multiprocessing nn onnx optim overrides random return_types "
    "serialization serve signal sparse special tensor testing types utils version".split()
)
#: Names that are not among those of tensors -> module.
_ELSEWHERE = {
    "compile": "facula.tensor.compile",
    "device": "facula.base.device",
    "dtype": "facula.base.dtypes",
    "explain": "facula.explanation",
    "get_num_threads": "facula.runtime.threads",
    "load": "facula.serialization",
    "save": "facula.serialization",
    "set_num_threads": "facula.runtime.threads",
    **dict.fromkeys(
        "alpha_dropout batch_norm bilinear channel_shuffle cosine_embedding_loss ctc_loss "
        "dropout feature_alpha_dropout grid_sample hinge_embedding_loss "
        "instance_norm kl_div margin_ranking_loss pdist poisson_nll_loss rrelu threshold "
        "triplet_margin_loss".split(),
        "facula.nn.functional",
    ),
    **dict.fromkeys(
        "bartlett_window blackman_window hamming_window hann_window kaiser_window".split(),
        "facula.signal.windows",
    ),
}


def __getattr__(name):
    if name in _SUBMODULES:
        try:
            return importlib.import_module(f"facula.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"facula.{name}":
                raise
            raise AttributeError(f"module 'facula' has no attribute {name!r}") from None
    module = _ELSEWHERE.get(name, "facula.tensor")
    if name.startswith("__"):
        raise AttributeError(f"module 'facula' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    # Kept, so that the next look-up is an ordinary one.
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__():
    names = importlib.import_module("facula.tensor.namespace").names()
    return sorted({*globals(), *_SUBMODULES, *_ELSEWHERE, *names})
