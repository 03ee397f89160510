"""Differentiable maps with inverses and the logarithms of their Jacobians' determinants."""

from facula.distributions.maps import *  # noqa: F403
from facula.distributions.shaped import *  # noqa: F403
