"""Adam and its kin: steps scaled by running averages of the gradient and of its square."""

from facula.optim.optimizer import Optimizer, check_betas, check_range
from facula.tensor import maximum, zeros_like

__all__ = ["Adam", "AdamW", "Adamax", "NAdam", "RAdam"]


def _decayed(param, grad, lr, weight_decay, maximize, decays, decoupled):
    """Parameter and gradient after weight decay."""
    if maximize:
        grad = -grad
    if decays:
        if decoupled:
            param = param * (1 - lr * weight_decay)
        else:
            grad = grad + weight_decay * param
    return param, grad


def _averaged(grad, exp_avg, exp_avg_sq, beta1, beta2):
    """The running averages of gradient and square after one more gradient."""
    exp_avg = exp_avg + (1 - beta1) * (grad - exp_avg)
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * (grad * grad)
    return exp_avg, exp_avg_sq


def adam_rule(
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    max_exp_avg_sq=None,
    *,
    lr,
    beta1,
    beta2,
    eps,
    weight_decay,
    step_size,
    root_correction,
    maximize,
    decays,
    decoupled,
):
    """One step of Adam; with ``max_exp_avg_sq``, of AMSGrad.

    ``step_size`` is the learning rate over the first average's bias correction, and
    ``root_correction`` the root of the second's.
    """
    param, grad = _decayed(param, grad, lr, weight_decay, maximize, decays, decoupled)
    exp_avg, exp_avg_sq = _averaged(grad, exp_avg, exp_avg_sq, beta1, beta2)
    if max_exp_avg_sq is None:
        scale = exp_avg_sq.sqrt() / root_correction + eps
        return param - step_size * (exp_avg / scale), exp_avg, exp_avg_sq
    max_exp_avg_sq = maximum(max_exp_avg_sq, exp_avg_sq)
    scale = max_exp_avg_sq.sqrt() / root_correction + eps
    return param - step_size * (exp_avg / scale), exp_avg, exp_avg_sq, max_exp_avg_sq


class _AdamLike(Optimizer):
    """What the family shares: the check of options and the two averages."""

    def __init__(self, params, defaults):
        check_range("learning rate", defaults["lr"])
        check_range("epsilon value", defaults["eps"])
        check_betas(defaults["betas"])
        check_range("weight_decay value", defaults["weight_decay"])
        super().__init__(params, defaults)

    def _new_state(self, param, group):
        return {"step": 0, "exp_avg": zeros_like(param), "exp_avg_sq": zeros_like(param)}

    def _names(self, group):
        return ("exp_avg", "exp_avg_sq")

    def _common(self, group):
        """The scalars and flags that every member of the family takes."""
        beta1, beta2 = group["betas"]
        scalars = {
            "lr": float(group["lr"]),
            "beta1": float(beta1),
            "beta2": float(beta2),
            "eps": float(group["eps"]),
            "weight_decay": float(group["weight_decay"]),
        }
        flags = {
            "maximize": group["maximize"],
            "decays": group["weight_decay"] != 0,
            "decoupled": group.get("decoupled_weight_decay", False),
        }
        return scalars, flags


class Adam(_AdamLike):
    """Adam (Kingma and Ba, 2014), and AMSGrad (Reddi, 2018).

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas: how much of the averages of gradient and square is kept at each step.
        eps: added to the root that divides.
        weight_decay: this times the parameter is added to the gradient.
        amsgrad: divide by the greatest average of squares so far.
        maximize: go up instead of down.
        decoupled_weight_decay: shrink the parameter instead, as :class:`AdamW` does.
        foreach, fused, capturable: accepted; a step is one kernel anyway.
        differentiable: not supported.

    >>> from facula import nn, optim, ones
    >>> weight = nn.Parameter(ones(2))
    >>> optimizer = optim.Adam([weight], lr=0.25)
    >>> weight.sum().backward()
    >>> optimizer.step()
    >>> [round(value, 4) for value in weight.tolist()]
    [0.75, 0.75]
    """

    rule = staticmethod(adam_rule)

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0,
        amsgrad=False,
        *,
        foreach=None,
        maximize=False,
        capturable=False,
        differentiable=False,
        fused=None,
        decoupled_weight_decay=False,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def _new_state(self, param, group):
        state = super()._new_state(param, group)
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = zeros_like(param)
        return state

    def _names(self, group):
        return ("exp_avg", "exp_avg_sq") + (("max_exp_avg_sq",) if group["amsgrad"] else ())

    def _numbers(self, group, state):
        scalars, flags = self._common(group)
        step = state["step"] + 1
        scalars["step_size"] = scalars["lr"] / (1 - scalars["beta1"] ** step)
        scalars["root_correction"] = (1 - scalars["beta2"] ** step) ** 0.5
        return scalars, flags, {"step": step}


class AdamW(Adam):
    """Adam whose weight decay does not pass through the averages (Loshchilov, 2017).

    The arguments are :class:`Adam`'s; each step shrinks the parameter by ``lr * weight_decay``.
    """

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=1e-2,
        amsgrad=False,
        *,
        maximize=False,
        foreach=None,
        capturable=False,
        differentiable=False,
        fused=None,
    ):
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )


def nadam_rule(
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    *,
    lr,
    beta1,
    beta2,
    eps,
    weight_decay,
    correction,
    grad_size,
    average_size,
    maximize,
    decays,
    decoupled,
):
    """One step of NAdam: so much of the gradient, so much of its average."""
    param, grad = _decayed(param, grad, lr, weight_decay, maximize, decays, decoupled)
    exp_avg, exp_avg_sq = _averaged(grad, exp_avg, exp_avg_sq, beta1, beta2)
    scale = (exp_avg_sq / correction).sqrt() + eps
    param = param - grad_size * (grad / scale) - average_size * (exp_avg / scale)
    return param, exp_avg, exp_avg_sq


class NAdam(_AdamLike):
    """Adam with Nesterov's look ahead (Dozat, 2016).

    The arguments are :class:`Adam`'s; ``momentum_decay`` is how fast the momentum rises to beta1.
    """

    number_state = ("step", "mu_product")
    rule = staticmethod(nadam_rule)

    def __init__(
        self,
        params,
        lr=2e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0,
        momentum_decay=4e-3,
        decoupled_weight_decay=False,
        *,
        foreach=None,
        maximize=False,
        capturable=False,
        differentiable=False,
    ):
        check_range("momentum_decay value", momentum_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _new_state(self, param, group):
        return {"step": 0, "mu_product": 1.0, **super()._new_state(param, group)}

    def _numbers(self, group, state):
        scalars, flags = self._common(group)
        lr, beta1, decay = scalars["lr"], scalars["beta1"], group["momentum_decay"]
        step = state["step"] + 1
        mu = beta1 * (1 - 0.5 * 0.96 ** (step * decay))
        mu_next = beta1 * (1 - 0.5 * 0.96 ** ((step + 1) * decay))
        mu_product = state["mu_product"] * mu
        scalars["correction"] = 1 - scalars["beta2"] ** step
        scalars["grad_size"] = lr * (1 - mu) / (1 - mu_product)
        scalars["average_size"] = lr * mu_next / (1 - mu_product * mu_next)
        return scalars, flags, {"step": step, "mu_product": mu_product}


def radam_rule(
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    *,
    lr,
    beta1,
    beta2,
    eps,
    weight_decay,
    step_size,
    rectified_size,
    maximize,
    decays,
    decoupled,
    rectified,
):
    """One step of RAdam, scaled by the squares only where their average can be trusted."""
    param, grad = _decayed(param, grad, lr, weight_decay, maximize, decays, decoupled)
    exp_avg, exp_avg_sq = _averaged(grad, exp_avg, exp_avg_sq, beta1, beta2)
    if rectified:
        param = param - rectified_size * (exp_avg / (exp_avg_sq.sqrt() + eps))
    else:
        param = param - step_size * exp_avg
    return param, exp_avg, exp_avg_sq


class RAdam(_AdamLike):
    """Adam without the need to warm up: early steps are rectified (Liu, 2019).

    The arguments are :class:`Adam`'s.
    """

    rule = staticmethod(radam_rule)

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0,
        decoupled_weight_decay=False,
        *,
        foreach=None,
        maximize=False,
        capturable=False,
        differentiable=False,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _numbers(self, group, state):
        scalars, flags = self._common(group)
        beta1, beta2, step = scalars["beta1"], scalars["beta2"], state["step"] + 1
        correction2 = 1 - beta2**step
        # The length of the average of squares as a simple moving one, now and in the limit.
        limit = 2 / (1 - beta2) - 1
        length = limit - 2 * step * beta2**step / correction2
        flags["rectified"] = length > 5.0
        rectification = 0.0
        if flags["rectified"]:
            rectification = (
                (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
            ) ** 0.5
        scalars["step_size"] = scalars["lr"] / (1 - beta1**step)
        scalars["rectified_size"] = scalars["step_size"] * rectification * correction2**0.5
        return scalars, flags, {"step": step}


def adamax_rule(
    param,
    grad,
    exp_avg,
    exp_inf,
    *,
    lr,
    beta1,
    beta2,
    eps,
    weight_decay,
    step_size,
    maximize,
    decays,
    decoupled,
):
    """One step of Adamax."""
    param, grad = _decayed(param, grad, lr, weight_decay, maximize, decays, decoupled)
    exp_avg = exp_avg + (1 - beta1) * (grad - exp_avg)
    exp_inf = maximum(beta2 * exp_inf, grad.abs() + eps)
    return param - step_size * (exp_avg / exp_inf), exp_avg, exp_inf


class Adamax(_AdamLike):
    """Adam with the decaying maximum in place of the average of squares (Kingma, 2014).

    The arguments are :class:`Adam`'s.
    """

    rule = staticmethod(adamax_rule)

    def __init__(
        self,
        params,
        lr=2e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0,
        foreach=None,
        *,
        maximize=False,
        differentiable=False,
        capturable=False,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _new_state(self, param, group):
        return {"step": 0, "exp_avg": zeros_like(param), "exp_inf": zeros_like(param)}

    def _names(self, group):
        return ("exp_avg", "exp_inf")

    def _numbers(self, group, state):
        scalars, flags = self._common(group)
        step = state["step"] + 1
        scalars["step_size"] = scalars["lr"] / (1 - scalars["beta1"] ** step)
        return scalars, flags, {"step": step}
