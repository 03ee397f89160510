"""The one place where optimizers touch parameters.

An optimizer is an update *rule*: a function of tensors and numbers, written for one parameter in
plain arithmetic, that returns new values. :func:`apply` runs a rule over lists of parameters in
one native call; states are made :func:`outside` of a captured step, which then finds them.
"""

from facula.eager.dispatch import outside
from facula.eager.multi import update as apply

__all__ = ["apply", "outside"]
