"""Averages of a model's weights over training."""

import copy
import math

from facula.nn import Module
from facula.optim.lr_scheduler.base import LRScheduler, one_per_group
from facula.tensor import int64, no_grad, tensor

__all__ = [
    "SWALR",
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]


def get_ema_avg_fn(decay=0.999):
    """An ``avg_fn`` that moves the average by ``1 - decay`` of the way to the new weights."""
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1].")

    def move(average, value, n_averaged):
        return average * decay + value * (1 - decay)

    return move


def _running_mean(average, value, n_averaged):
    return average + (value - average) / (n_averaged + 1)


def get_swa_avg_fn():
    """The ``avg_fn`` of the plain mean."""
    return _running_mean


def _of_lists(avg_fn):
    """An ``avg_fn`` as a function of lists of averages, changed in place, and of values."""

    @no_grad()
    def move(averages, values, n_averaged):
        for average, value in zip(averages, values):
            average.copy_(avg_fn(average, value, n_averaged))

    return move


def get_ema_multi_avg_fn(decay=0.999):
    """:func:`get_ema_avg_fn` for lists of tensors, which it changes in place."""
    return _of_lists(get_ema_avg_fn(decay))


def get_swa_multi_avg_fn():
    """:func:`get_swa_avg_fn` for lists of tensors, which it changes in place."""
    return _of_lists(_running_mean)


class AveragedModel(Module):
    """A copy of ``model`` whose parameters are averages (Izmailov, 2018).

    Args:
        model: what to average; it is copied.
        device: where the copy lives; the model's device where left out.
        avg_fn: ``avg_fn(average, value, n_averaged)`` to the new average; the mean where left out.
        multi_avg_fn: the same for lists of tensors, in place; one of the two.
        use_buffers: whether buffers are averaged too, instead of copied.

    >>> from facula import nn, optim
    >>> model = nn.Linear(2, 2)
    >>> averaged = optim.swa_utils.AveragedModel(model)
    >>> averaged.update_parameters(model)
    >>> int(averaged.n_averaged)
    1
    """

    def __init__(self, model, device=None, avg_fn=None, multi_avg_fn=None, use_buffers=False):
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, dtype=int64))
        self.avg_fn = _running_mean if avg_fn is None else avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)

    def _averaged_pairs(self, model):
        yield from zip(self.module.parameters(), model.parameters())
        if self.use_buffers:
            yield from zip(self.module.buffers(), model.buffers())

    @no_grad()
    def update_parameters(self, model):
        """Take the present weights of ``model`` into the averages."""
        n_averaged, together = int(self.n_averaged), ([], [])
        for average, value in self._averaged_pairs(model):
            value = value.detach()
            if self.multi_avg_fn is not None and n_averaged and average.is_floating_point():
                together[0].append(average.detach())
                together[1].append(value)
                continue
            if n_averaged == 0 or not average.is_floating_point():
                average.copy_(value)
            else:
                average.copy_(self.avg_fn(average.detach(), value, n_averaged))
        if together[0]:
            self.multi_avg_fn(*together, n_averaged)
        if not self.use_buffers:
            for copied, value in zip(self.module.buffers(), model.buffers()):
                copied.copy_(value)
        self.n_averaged.add_(1)


@no_grad()
def update_bn(loader, model, device=None):
    """Run ``model`` over ``loader`` to make its batch norms' statistics fit its weights.

    A batch may be a tuple or list whose first entry is the input.
    """
    norms = [m for m in model.modules() if hasattr(m, "reset_running_stats")]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    was_training = model.training
    model.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    for batch in loader:
        if isinstance(batch, (list, tuple)):
            batch = batch[0]
        model(batch if device is None else batch.to(device))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    model.train(was_training)


class SWALR(LRScheduler):
    """Goes from the present rate to ``swa_lr`` in ``anneal_epochs`` steps, then stays there.

    Args:
        optimizer: whose groups' ``lr`` to set.
        swa_lr: the rate to go to, or one a group.
        anneal_epochs: the number of steps.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        last_epoch: the last step made, to go on from; -1 at the start.
    """

    def __init__(self, optimizer, swa_lr, anneal_epochs=10, anneal_strategy="cos", last_epoch=-1):
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}"
            )
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        for group, rate in zip(optimizer.param_groups, one_per_group(swa_lr, optimizer, "swa_lr")):
            group["swa_lr"] = rate
        self.anneal_epochs, self.anneal_strategy = anneal_epochs, anneal_strategy
        super().__init__(optimizer, last_epoch)

    def _share(self, step):
        """How much of the way is gone at a step."""
        t = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return t if self.anneal_strategy == "linear" else (1 - math.cos(math.pi * t)) / 2

    def get_lr(self):
        """The rates at the present step, from those of the step before."""
        step = self._step_count - 1
        step = max(1, step) if self.anneal_epochs == 0 else step
        before, now = self._share(step - 1), self._share(step)
        rates = []
        for group in self.optimizer.param_groups:
            last = group["swa_lr"]
            start = last if before == 1 else (group["lr"] - before * last) / (1 - before)
            rates.append(last * now + start * (1 - now))
        return rates
