"""The one place where optimizers touch parameters.

An optimizer is an update *rule*: a function of tensors and numbers, written for one parameter in
plain arithmetic, that returns new values. :func:`apply` runs a rule over lists of parameters: one
kernel, made of the rule when it is first used, over all of them in one native call.
"""

from facula.tensor import multi

__all__ = ["apply"]


def apply(rule, tensors, scalars, flags):
    """Update parameters and their state in place by ``rule``.

    Args:
        rule: ``rule(param, grad, *state, **scalars, **flags)``, which returns the new values of
            ``(param, *state)``, the gradient left out. It writes to nothing.
        tensors: ``(params, grads, *states)``, lists of equal length; the i-th entries of all lists
            belong together.
        scalars: numbers by name that change from step to step, such as a learning rate.
        flags: booleans by name that choose the rule's branches, such as ``nesterov``.
    """
    multi.update(rule, tensors, scalars, flags)
