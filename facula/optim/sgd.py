"""Stochastic gradient descent, plain, with momentum, and averaged."""

from functools import partial

from facula.optim._fused import apply, outside
from facula.optim.optimizer import Optimizer, check_range
from facula.tensor import zeros_like

__all__ = ["ASGD", "SGD"]


def sgd_rule(
    param,
    grad,
    momentum_buffer=None,
    *,
    lr,
    momentum,
    dampening,
    weight_decay,
    nesterov,
    maximize,
    decays,
):
    """One step of SGD; with a buffer, of SGD with momentum."""
    if maximize:
        grad = -grad
    if decays:
        grad = grad + weight_decay * param
    if momentum_buffer is None:
        return (param - lr * grad,)
    momentum_buffer = momentum * momentum_buffer + (1 - dampening) * grad
    grad = grad + momentum * momentum_buffer if nesterov else momentum_buffer
    return param - lr * grad, momentum_buffer


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Polyak, 1964; Nesterov, 1983).

    Args:
        params: parameters or groups.
        lr: learning rate.
        momentum: the share of the last step's direction that goes on.
        dampening: how much less of the gradient goes into the direction.
        weight_decay: this times the parameter is added to the gradient.
        nesterov: look ahead along the direction; needs momentum and no dampening.
        maximize: go up instead of down.
        foreach, fused: accepted; a step is one kernel anyway.
        differentiable: not supported.

    >>> from facula import nn, optim, ones
    >>> weight = nn.Parameter(ones(2))
    >>> optimizer = optim.SGD([weight], lr=0.5)
    >>> weight.sum().backward()
    >>> optimizer.step()
    >>> weight.tolist()
    [0.5, 0.5]
    """

    number_state = ()
    rule = staticmethod(sgd_rule)

    def __init__(
        self,
        params,
        lr=1e-3,
        momentum=0,
        dampening=0,
        weight_decay=0,
        nesterov=False,
        *,
        maximize=False,
        foreach=None,
        differentiable=False,
        fused=None,
    ):
        check_range("learning rate", lr)
        check_range("momentum value", momentum)
        check_range("weight_decay value", weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def _numbers(self, group, state):
        # The first gradient goes into the buffer whole: that is, into zeros, without dampening.
        begun = state.get("begun", True)
        scalars = {
            "lr": float(group["lr"]),
            "momentum": float(group["momentum"]),
            "dampening": float(group["dampening"]) if begun else 0.0,
            "weight_decay": float(group["weight_decay"]),
        }
        flags = {
            "nesterov": group["nesterov"],
            "maximize": group["maximize"],
            "decays": group["weight_decay"] != 0,
        }
        return scalars, flags, {} if begun else {"begun": True}

    def _update(self, group):
        params = [param for param in group["params"] if param.grad is not None]
        if group["momentum"] == 0:
            self._apply(group, [(param, param.grad) for param in params], {})
            return
        fresh = [p for p in params if self.state[p].get("momentum_buffer") is None]
        if fresh:
            with outside():
                for param in fresh:
                    self.state[param]["momentum_buffer"] = zeros_like(param)
        new = set(map(id, fresh))
        rows = [(p, p.grad, self.state[p]["momentum_buffer"]) for p in params]
        fresh = [row for row in rows if id(row[0]) in new]
        moving = [row for row in rows if id(row[0]) not in new]
        self._apply(group, fresh, {"begun": False})
        self._apply(group, moving, {})

    def _apply(self, group, rows, state):
        if rows:
            columns = tuple(list(column) for column in zip(*rows))
            apply(self.rule, columns, partial(self._numbers, group, state), [state])


def asgd_rule(param, grad, ax, *, lambd, eta, mu, weight_decay, maximize, decays, averages):
    """One step of averaged SGD; ``ax`` is the average."""
    if maximize:
        grad = -grad
    if decays:
        grad = grad + weight_decay * param
    param = (1 - lambd * eta) * param - eta * grad
    ax = ax + mu * (param - ax) if averages else param
    return param, ax


class ASGD(Optimizer):
    """SGD with a falling learning rate, and the average of its path (Polyak and Juditsky, 1992).

    Args:
        params: parameters or groups.
        lr: learning rate.
        lambd: how fast parameters shrink.
        alpha: the power with which the learning rate falls.
        t0: after how many steps averaging starts.
        weight_decay: this times the parameter is added to the gradient.
        maximize: go up instead of down.
    """

    number_state = ("step", "eta", "mu")
    rule = staticmethod(asgd_rule)

    def __init__(
        self,
        params,
        lr=1e-2,
        lambd=1e-4,
        alpha=0.75,
        t0=1e6,
        weight_decay=0,
        foreach=None,
        maximize=False,
        differentiable=False,
        capturable=False,
    ):
        check_range("learning rate", lr)
        check_range("weight_decay value", weight_decay)
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _new_state(self, param, group):
        return {"step": 0, "eta": float(group["lr"]), "mu": 1.0, "ax": zeros_like(param)}

    def _names(self, group):
        return ("ax",)

    def _numbers(self, group, state):
        lr, lambd = float(group["lr"]), float(group["lambd"])
        step, mu = state["step"] + 1, state["mu"]
        scalars = {
            "lambd": lambd,
            "eta": state["eta"],
            "mu": mu,
            "weight_decay": float(group["weight_decay"]),
        }
        flags = {
            "maximize": group["maximize"],
            "decays": group["weight_decay"] != 0,
            "averages": mu != 1,
        }
        changed = {
            "step": step,
            "eta": lr / (1 + lambd * lr * step) ** group["alpha"],
            "mu": 1 / max(1, step - group["t0"]),
        }
        return scalars, flags, changed
