"""A schedule that waits for progress to stop."""

import math

from facula.optim.lr_scheduler.base import LRScheduler, one_per_group

__all__ = ["ReduceLROnPlateau"]


class ReduceLROnPlateau(LRScheduler):
    """The rate times ``factor`` when a quantity has not got better for ``patience`` steps.

    Args:
        optimizer: whose rates to set.
        mode: whether ``"min"`` or ``"max"`` is better.
        factor: by how much the rate falls, under 1.
        patience: how many steps without progress are allowed.
        threshold: by how much a value has to be better.
        threshold_mode: whether that is a share of the best (``"rel"``) or a difference (``"abs"``).
        cooldown: how many steps after a fall do not count.
        min_lr: the lowest rate, one or one a group.
        eps: a smaller fall than this is left out.

    >>> from facula import nn, optim, ones
    >>> optimizer = optim.SGD([nn.Parameter(ones(1))], lr=1.0)
    >>> scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     scheduler.step(loss)
    >>> optimizer.param_groups[0]["lr"]
    0.1
    """

    def __init__(
        self,
        optimizer,
        mode="min",
        factor=0.1,
        patience=10,
        threshold=1e-4,
        threshold_mode="rel",
        cooldown=0,
        min_lr=0,
        eps=1e-8,
    ):
        if factor >= 1.0:
            raise ValueError("Factor should be < 1.0.")
        if mode not in ("min", "max"):
            raise ValueError("mode " + mode + " is unknown!")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError("threshold mode " + threshold_mode + " is unknown!")
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.default_min_lr = None if isinstance(min_lr, (list, tuple)) else min_lr
        self.min_lrs = one_per_group(min_lr, optimizer, "min_lrs")
        self.eps = eps
        self.last_epoch = 0
        self._last_lr = self._lrs
        self._reset()

    def _reset(self):
        """Forget what was seen."""
        self.best = math.inf if self.mode == "min" else -math.inf
        self.cooldown_counter = 0
        self.num_bad_epochs = 0

    def step(self, metrics, epoch=None):
        """Look at the quantity's new value, and let the rate fall if it is time."""
        value = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self.is_better(value, self.best):
            self.best = value
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce_lr()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self._lrs

    def _reduce_lr(self):
        for group, lowest in zip(self.optimizer.param_groups, self.min_lrs):
            rate = max(group["lr"] * self.factor, lowest)
            if group["lr"] - rate > self.eps:
                group["lr"] = rate

    @property
    def in_cooldown(self):
        """Whether a fall was so short a time ago that steps do not count."""
        return self.cooldown_counter > 0

    def is_better(self, a, best):
        """Whether ``a`` is better than ``best`` by the threshold."""
        sign = 1.0 if self.mode == "max" else -1.0
        if self.threshold_mode == "rel":
            limit = best * (1.0 + sign * self.threshold)
        else:
            limit = best + sign * self.threshold
        return a > limit if self.mode == "max" else a < limit
