"""Optimizers that scale each value's step by its past gradients, other than Adam's family."""

from facula.optim.optimizer import Optimizer, check_range
from facula.tensor import full_like, where, zeros_like

__all__ = ["Adadelta", "Adagrad", "RMSprop", "Rprop"]


def _descent(param, grad, weight_decay, maximize, decays):
    """The gradient to go down, weight decay added."""
    if maximize:
        grad = -grad
    return grad + weight_decay * param if decays else grad


def _common_flags(group):
    return {"maximize": group["maximize"], "decays": group["weight_decay"] != 0}


def adagrad_rule(param, grad, sum, *, lr, eps, weight_decay, maximize, decays):
    """One step of Adagrad; ``sum`` is that of all squares."""
    grad = _descent(param, grad, weight_decay, maximize, decays)
    sum = sum + grad * grad
    return param - lr * (grad / (sum.sqrt() + eps)), sum


class Adagrad(Optimizer):
    """Steps divided by the root of the sum of all squares so far (Duchi, 2011).

    Args:
        params: parameters or groups.
        lr: learning rate.
        lr_decay: how fast the learning rate falls.
        weight_decay: this times the parameter is added to the gradient.
        initial_accumulator_value: what the sum starts from.
        eps: added to the root.
        maximize: go up instead of down.
    """

    rule = staticmethod(adagrad_rule)

    def __init__(
        self,
        params,
        lr=1e-2,
        lr_decay=0,
        weight_decay=0,
        initial_accumulator_value=0,
        eps=1e-10,
        foreach=None,
        *,
        maximize=False,
        differentiable=False,
        fused=None,
    ):
        check_range("learning rate", lr)
        check_range("lr_decay value", lr_decay)
        check_range("weight_decay value", weight_decay)
        check_range("initial_accumulator_value value", initial_accumulator_value)
        check_range("epsilon value", eps)
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group):
        super().add_param_group(param_group)
        # The sums are there before the first step, so that they can be shared or looked at.
        group = self.param_groups[-1]
        for param in group["params"]:
            self.state[param].update(self._new_state(param, group))

    def _new_state(self, param, group):
        start = float(group["initial_accumulator_value"])
        return {"step": 0, "sum": full_like(param, start, requires_grad=False)}

    def _names(self, group):
        return ("sum",)

    def _numbers(self, group, state):
        step = state["step"] + 1
        scalars = {
            "lr": float(group["lr"]) / (1 + (step - 1) * group["lr_decay"]),
            "eps": float(group["eps"]),
            "weight_decay": float(group["weight_decay"]),
        }
        return scalars, _common_flags(group), {"step": step}


def adadelta_rule(
    param, grad, square_avg, acc_delta, *, lr, rho, eps, weight_decay, maximize, decays
):
    """One step of Adadelta."""
    grad = _descent(param, grad, weight_decay, maximize, decays)
    square_avg = rho * square_avg + (1 - rho) * (grad * grad)
    delta = (acc_delta + eps).sqrt() / (square_avg + eps).sqrt() * grad
    acc_delta = rho * acc_delta + (1 - rho) * (delta * delta)
    return param - lr * delta, square_avg, acc_delta


class Adadelta(Optimizer):
    """Steps as long as the last ones were, by running averages of squares (Zeiler, 2012).

    Args:
        params: parameters or groups.
        lr: what the step is multiplied by.
        rho: how much of the averages is kept at each step.
        eps: added under the roots.
        weight_decay: this times the parameter is added to the gradient.
        maximize: go up instead of down.
    """

    rule = staticmethod(adadelta_rule)

    def __init__(
        self,
        params,
        lr=1.0,
        rho=0.9,
        eps=1e-6,
        weight_decay=0,
        foreach=None,
        *,
        capturable=False,
        maximize=False,
        differentiable=False,
    ):
        check_range("learning rate", lr)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        check_range("epsilon value", eps)
        check_range("weight_decay value", weight_decay)
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _new_state(self, param, group):
        return {"step": 0, "square_avg": zeros_like(param), "acc_delta": zeros_like(param)}

    def _names(self, group):
        return ("square_avg", "acc_delta")

    def _numbers(self, group, state):
        scalars = {name: float(group[name]) for name in ("lr", "rho", "eps", "weight_decay")}
        return scalars, _common_flags(group), {"step": state["step"] + 1}


def rmsprop_rule(
    param,
    grad,
    square_avg,
    *buffers,
    lr,
    alpha,
    eps,
    weight_decay,
    momentum,
    maximize,
    decays,
    centered,
    moves,
):
    """One step of RMSprop; ``buffers`` are the momentum's if it ``moves`` and then, if
    ``centered``, the average of the gradient."""
    grad = _descent(param, grad, weight_decay, maximize, decays)
    square_avg = alpha * square_avg + (1 - alpha) * (grad * grad)
    variance = square_avg
    results = []
    if centered:
        grad_avg = buffers[-1]
        grad_avg = grad_avg + (1 - alpha) * (grad - grad_avg)
        variance = square_avg - grad_avg * grad_avg
        results.append(grad_avg)
    direction = grad / (variance.sqrt() + eps)
    if moves:
        direction = momentum * buffers[0] + direction
        results.insert(0, direction)
    return param - lr * direction, square_avg, *results


class RMSprop(Optimizer):
    """Steps divided by the root of a running average of squares (Hinton, 2012; Graves, 2013).

    Args:
        params: parameters or groups.
        lr: learning rate.
        alpha: how much of the average is kept at each step.
        eps: added to the root.
        weight_decay: this times the parameter is added to the gradient.
        momentum: the share of the last step's direction that goes on.
        centered: divide by the root of an estimate of the variance instead.
        maximize: go up instead of down.
    """

    rule = staticmethod(rmsprop_rule)

    def __init__(
        self,
        params,
        lr=1e-2,
        alpha=0.99,
        eps=1e-8,
        weight_decay=0,
        momentum=0,
        centered=False,
        capturable=False,
        foreach=None,
        maximize=False,
        differentiable=False,
    ):
        check_range("learning rate", lr)
        check_range("epsilon value", eps)
        check_range("momentum value", momentum)
        check_range("weight_decay value", weight_decay)
        check_range("alpha value", alpha)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _names(self, group):
        names = ["square_avg"]
        if group["momentum"] > 0:
            names.append("momentum_buffer")
        if group["centered"]:
            names.append("grad_avg")
        return names

    def _new_state(self, param, group):
        return {"step": 0, **{name: zeros_like(param) for name in self._names(group)}}

    def _numbers(self, group, state):
        names = ("lr", "alpha", "eps", "weight_decay", "momentum")
        scalars = {name: float(group[name]) for name in names}
        flags = _common_flags(group)
        flags["centered"] = group["centered"]
        flags["moves"] = group["momentum"] > 0
        return scalars, flags, {"step": state["step"] + 1}


def rprop_rule(param, grad, prev, step_size, *, shrink, grow, shortest, longest, maximize):
    """One step of Rprop; ``prev`` is the last gradient, zero where the step was taken back."""
    if maximize:
        grad = -grad
    agreement = grad * prev
    longer, shorter = step_size * grow, step_size * shrink
    step_size = where(agreement > 0, longer, where(agreement < 0, shorter, step_size))
    step_size = step_size.clamp(shortest, longest)
    grad = where(agreement < 0, 0.0, grad)
    return param - grad.sign() * step_size, grad, step_size


class Rprop(Optimizer):
    """Steps that grow while the gradient keeps its sign, else shrink (Riedmiller, 1993).

    Args:
        params: parameters or groups.
        lr: the first step's length.
        etas: by how much steps shrink and grow.
        step_sizes: the shortest and the longest step.
        maximize: go up instead of down.
    """

    rule = staticmethod(rprop_rule)

    def __init__(
        self,
        params,
        lr=1e-2,
        etas=(0.5, 1.2),
        step_sizes=(1e-6, 50),
        *,
        capturable=False,
        foreach=None,
        maximize=False,
        differentiable=False,
    ):
        check_range("learning rate", lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _new_state(self, param, group):
        return {
            "step": 0,
            "prev": zeros_like(param),
            "step_size": full_like(param, float(group["lr"]), requires_grad=False),
        }

    def _names(self, group):
        return ("prev", "step_size")

    def _numbers(self, group, state):
        shrink, grow = group["etas"]
        shortest, longest = group["step_sizes"]
        scalars = {
            "shrink": float(shrink),
            "grow": float(grow),
            "shortest": float(shortest),
            "longest": float(longest),
        }
        return scalars, {"maximize": group["maximize"]}, {"step": state["step"] + 1}
