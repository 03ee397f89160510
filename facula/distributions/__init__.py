"""Probability distributions: sampling, densities, divergences; PyTorch's ``torch.distributions``.

>>> import facula
>>> from facula.distributions import Normal, kl_divergence
>>> p = Normal(facula.zeros(2), facula.ones(2))
>>> tuple(p.rsample((3,)).shape), kl_divergence(p, Normal(0.0, 1.0)).tolist()
((3, 2), [0.0, 0.0])
"""

from facula.distributions import constraints, kl, registry, transforms
from facula.distributions.composed import *  # noqa: F403
from facula.distributions.continuous import *  # noqa: F403
from facula.distributions.discrete import *  # noqa: F403
from facula.distributions.distribution import Distribution, ExponentialFamily
from facula.distributions.kl import kl_divergence, register_kl
from facula.distributions.multivariate import *  # noqa: F403
from facula.distributions.registry import biject_to, transform_to
from facula.distributions.tails import *  # noqa: F403
from facula.distributions.transforms import *  # noqa: F403

#: PyTorch's name of the module.
constraint_registry = registry

__all__ = [
    "Distribution",
    "ExponentialFamily",
    "biject_to",
    "constraint_registry",
    "constraints",
    "kl",
    "kl_divergence",
    "register_kl",
    "registry",
    "transform_to",
    "transforms",
]
