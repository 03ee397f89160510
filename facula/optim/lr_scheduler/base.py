"""``LRScheduler``, the base of the schedulers."""

import functools
import warnings

from facula.eager.grad_mode import capture

__all__ = ["LRScheduler"]


class LRScheduler:
    """Base of the schedulers: it counts steps and writes what ``get_lr`` returns.

    Args:
        optimizer: whose groups' ``lr`` to set.
        last_epoch: the last step made, to go on from; -1 at the start.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _done_again(cls.step)

    def __init__(self, optimizer, last_epoch=-1):
        if last_epoch == -1:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        else:
            for i, group in enumerate(optimizer.param_groups):
                if "initial_lr" not in group:
                    raise KeyError(
                        f"param 'initial_lr' is not specified in param_groups[{i}] when resuming "
                        "an optimizer"
                    )
        self.optimizer = optimizer
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self):
        self._step_count = 0
        self.step()

    @property
    def _lrs(self):
        """The present rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def get_lr(self):
        """The rate of each group at step ``last_epoch``."""
        raise NotImplementedError

    def get_last_lr(self):
        """The rates set last."""
        return self._last_lr

    def step(self, epoch=None):
        """Go one step on, or to step ``epoch``, and set the rates."""
        if self._step_count == 1 and not getattr(self.optimizer, "_opt_called", False):
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`. In PyTorch "
                "1.1.0 and later, you should call them in the opposite order: "
                "`optimizer.step()` before `lr_scheduler.step()`.  Failure to do this will result "
                "in PyTorch skipping the first value of the learning rate schedule. See more "
                "details at "
                "https://pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate",
                UserWarning,
                stacklevel=2,
            )
        self._step_count += 1
        if epoch is None:
            self.last_epoch += 1
            rates = self.get_lr()
        else:
            self.last_epoch = epoch
            closed = getattr(self, "_get_closed_form_lr", None)
            rates = self.get_lr() if closed is None else closed()
        self._set(rates)

    def _set(self, rates):
        for group, rate in zip(self.optimizer.param_groups, rates):
            group["lr"] = rate
        self._last_lr = self._lrs

    def state_dict(self):
        """Everything but the optimizer."""
        return {name: value for name, value in self.__dict__.items() if name != "optimizer"}

    def load_state_dict(self, state_dict):
        """Take over what :meth:`state_dict` returned."""
        self.__dict__.update(state_dict)


def _done_again(step):
    """``step``, which a captured function does again at each call."""

    @functools.wraps(step)
    def wrapper(self, *args, **kwargs):
        if capture.trace is None or getattr(self.optimizer, "param_groups", None) is None:
            return step(self, *args, **kwargs)
        return capture.trace.host(lambda: step(self, *args, **kwargs), _changed(self))

    return wrapper


def _changed(scheduler):
    """The dicts that a step of a scheduler changes."""
    inner = [d for s in getattr(scheduler, "_schedulers", ()) for d in _changed(s)]
    return [scheduler.__dict__, *scheduler.optimizer.param_groups, *inner]


LRScheduler.step = _done_again(LRScheduler.step)


def one_per_group(value, optimizer, name):
    """``value`` as a list with one entry a group."""
    n = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * n
    if len(value) != n:
        raise ValueError(f"Expected {n} {name}, but got {len(value)}")
    return list(value)
