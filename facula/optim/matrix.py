"""Optimizers that look at a parameter as a matrix: Adafactor and Muon."""

import math

from facula.base.errors import ArgumentError, fail
from facula.eager.dispatch import outside
from facula.optim.optimizer import Optimizer, check_range
from facula.tensor import finfo, tensor, zeros_like

__all__ = ["Adafactor", "Muon"]


class _OneByOne(Optimizer):
    """Updates parameters one after the other; the step is counted by a tensor."""

    number_state = ()

    def _update(self, group):
        for param in group["params"]:
            if param.grad is None:
                continue
            state = self.state[param]
            if not state:
                with outside():
                    state.update(self._new_state(param, group))
            self._move(param, param.grad, state, group)

    def _move(self, param, grad, state, group):
        """One step of one parameter, in place."""
        raise NotImplementedError


class Adafactor(_OneByOne):
    """Adam's scaling from the sums of squares of rows and columns alone (Shazeer and Stern, 2018).

    Args:
        params: parameters or groups.
        lr: the greatest relative step.
        beta2_decay: how the averages' memory grows with the steps.
        eps: least values of squares (the dtype's epsilon for None) and of the parameter's size.
        d: what the root of the mean square of a step is clipped to.
        weight_decay: the share of a parameter that is taken off at each step, times ``lr``.
        maximize: go up instead of down.
    """

    def __init__(
        self, params, lr=1e-2, beta2_decay=-0.8, eps=(None, 1e-3), d=1.0, weight_decay=0.0, *,
        foreach=None, maximize=False,
    ):  # fmt: skip
        check_range("learning rate", lr)
        if beta2_decay > 0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        if eps[0] is not None:
            check_range("epsilon1", eps[0])
        check_range("epsilon2", eps[1])
        check_range("weight_decay", weight_decay)
        if d < 1.0:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        super().__init__(params, {
            "lr": lr, "beta2_decay": beta2_decay, "eps": tuple(eps), "d": d,
            "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize,
        })  # fmt: skip

    def _new_state(self, param, group):
        state = {"step": tensor(0.0)}
        if param.ndim > 1:
            state["row_var"] = zeros_like(param[..., :1].detach())
            state["col_var"] = zeros_like(param[..., :1, :].detach())
        else:
            state["variance"] = zeros_like(param.detach())
        return state

    def _move(self, param, grad, state, group):
        grad = -grad if group["maximize"] else grad
        lr, (eps1, eps2) = group["lr"], group["eps"]
        eps1 = finfo(param.dtype).eps if eps1 is None else eps1
        step = state["step"].add_(1)
        new = step.pow(group["beta2_decay"])
        root = max(param.numel(), 1) ** 0.5
        rate = step.rsqrt().clamp(max=lr) * (param.norm(2) / root).clamp(min=eps2)
        if group["weight_decay"]:
            param.mul_(1 - lr * group["weight_decay"])
        if param.ndim > 1:
            row, column = state["row_var"], state["col_var"]
            row.lerp_(grad.square().mean(-1, keepdim=True), new.to(row.dtype))
            column.lerp_(grad.square().mean(-2, keepdim=True), new.to(row.dtype))
            variance = row @ column / row.mean(-2, keepdim=True).clamp(min=eps1)
        else:
            variance = state["variance"].lerp_(grad.square(), new.to(grad.dtype))
        update = variance.clamp(min=eps1 * eps1).rsqrt() * grad
        clip = (update.norm(2) / (root * group["d"])).clamp(min=1.0)
        param.sub_(update * (rate / clip).to(update.dtype))


def _orthogonalized(grad, coefficients, steps, eps):
    """About ``U Vᵀ`` of the matrix ``U S Vᵀ``, by a quintic Newton-Schulz iteration in bfloat16."""
    a, b, c = coefficients
    tall = grad.shape[0] > grad.shape[1]
    x = grad.bfloat16()
    x = x.t() if tall else x
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.t()
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.t() if tall else x


class Muon(_OneByOne):
    """Momentum made orthogonal, for the matrices inside of a network (Jordan, 2024).

    Args:
        params: 2-D parameters or groups of them; others belong to another optimizer.
        lr: learning rate.
        weight_decay: the share of a parameter that is taken off at each step, times ``lr``.
        momentum: how much of the momentum is kept.
        nesterov: look ahead by a step.
        ns_coefficients, ns_steps, eps: of the iteration.
        adjust_lr_fn: "original" or "match_rms_adamw": how the rate depends on the matrix's sizes.
    """

    def __init__(
        self, params, lr=1e-3, weight_decay=0.1, momentum=0.95, nesterov=True,
        ns_coefficients=(3.4445, -4.775, 2.0315), eps=1e-7, ns_steps=5, adjust_lr_fn=None,
    ):  # fmt: skip
        check_range("learning rate", lr)
        check_range("momentum", momentum)
        check_range("weight decay", weight_decay)
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        if not 0 <= ns_steps < 100:
            fail(ArgumentError, "Muon", f"ns_steps must be in [0, 100), got {ns_steps}")
        super().__init__(params, {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "ns_coefficients": tuple(ns_coefficients), "eps": eps, "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        })  # fmt: skip
        for group in self.param_groups:
            for param in group["params"]:
                if param.ndim != 2:
                    raise ValueError("Muon only supports 2D parameters, but found a parameter "
                                     f"with size: {tuple(param.shape)}")  # fmt: skip

    def _new_state(self, param, group):
        return {"momentum_buffer": zeros_like(param.detach())}

    def _move(self, param, grad, state, group):
        buffer = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
        update = grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer
        update = _orthogonalized(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = param.shape
        ratio = math.sqrt(max(1, rows / columns))
        if group["adjust_lr_fn"] == "match_rms_adamw":
            ratio = 0.2 * math.sqrt(max(rows, columns))
        param.mul_(1 - group["lr"] * group["weight_decay"])
        param.sub_(update.to(param.dtype) * (group["lr"] * ratio))
