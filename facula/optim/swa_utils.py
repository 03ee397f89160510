"""Averages of a model's weights over training."""

import copy

from facula.nn import Module
from facula.tensor import int64, no_grad, tensor

__all__ = ["AveragedModel", "get_ema_avg_fn", "update_bn"]


def get_ema_avg_fn(decay=0.999):
    """An ``avg_fn`` that moves the average by ``1 - decay`` of the way to the new weights."""
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1].")

    def move(average, value, n_averaged):
        return average * decay + value * (1 - decay)

    return move


def _running_mean(average, value, n_averaged):
    return average + (value - average) / (n_averaged + 1)


class AveragedModel(Module):
    """A copy of ``model`` whose parameters are averages (Izmailov, 2018).

    Args:
        model: what to average; it is copied.
        device: where the copy lives; the model's device where left out.
        avg_fn: ``avg_fn(average, value, n_averaged)`` to the new average; the mean where left out.
        use_buffers: whether buffers are averaged too, instead of copied.

    >>> from facula import nn, optim
    >>> model = nn.Linear(2, 2)
    >>> averaged = optim.swa_utils.AveragedModel(model)
    >>> averaged.update_parameters(model)
    >>> int(averaged.n_averaged)
    1
    """

    def __init__(self, model, device=None, avg_fn=None, use_buffers=False):
        super().__init__()
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, dtype=int64))
        self.avg_fn = _running_mean if avg_fn is None else avg_fn
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
        n_averaged = int(self.n_averaged)
        for average, value in self._averaged_pairs(model):
            value = value.detach()
            if n_averaged == 0 or not average.is_floating_point():
                average.copy_(value)
            else:
                average.copy_(self.avg_fn(average.detach(), value, n_averaged))
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
