"""Batch and instance normalisation, with running statistics."""

import facula.nn.functional as F
from facula.nn import init
from facula.nn.modules.module import Module
from facula.nn.parameter import Parameter
from facula.tensor import empty, int64, ones, tensor, zeros

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "SyncBatchNorm",
]


class _NormBase(Module):
    """Weights and running statistics of ``num_features`` channels."""

    # From version 2 on there is ``num_batches_tracked``.
    _version = 2

    def __init__(
        self,
        num_features,
        eps=1e-5,
        momentum=0.1,
        affine=True,
        track_running_stats=True,
        device=None,
        dtype=None,
        *,
        bias=True,
    ):
        super().__init__()
        place = {"device": device, "dtype": dtype}
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            self.register_parameter(
                name, Parameter(empty(num_features, **place)) if wanted else None
            )
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, **place) if tracked else None)
        self.register_buffer("running_var", ones(num_features, **place) if tracked else None)
        self.register_buffer(
            "num_batches_tracked", tensor(0, dtype=int64, device=device) if tracked else None
        )
        self.reset_parameters()

    def reset_running_stats(self):
        """Forget the batches seen: mean 0, variance 1."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self):
        """Weight 1, bias 0, statistics forgotten."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _check_input_dim(self, input):
        if input.ndim not in self.ranks:
            expected = " or ".join(f"{rank}D" for rank in self.ranks)
            raise ValueError(f"expected {expected} input (got {input.ndim}D input)")

    def extra_repr(self):
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_NormBase):
    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
        key = prefix + "num_batches_tracked"
        version = local_metadata.get("version")
        if (version is None or version < 2) and self.track_running_stats and key not in state_dict:
            state_dict[key] = self.num_batches_tracked
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def forward(self, input):
        self._check_input_dim(input)
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # A cumulative average: each batch counts the same.
                momentum = 1.0 / float(self.num_batches_tracked)
        # Without running statistics, evaluation too uses those of the batch.
        use_batch = self.training or (self.running_mean is None and self.running_var is None)
        tracks = not self.training or self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if tracks else None,
            self.running_var if tracks else None,
            self.weight,
            self.bias,
            use_batch,
            momentum,
            self.eps,
        )


class BatchNorm1d(_BatchNorm):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` a channel (Ioffe and Szegedy, 2015).

    In training mode mean and (biased) variance are the batch's, and the running ones move towards
    them; in evaluation mode they are the running ones.

    Args:
        num_features: the number of channels, C.
        eps: added to the variance.
        momentum: the share of the new batch in the running statistics; None averages all batches.
        affine: whether there are weight and bias.
        track_running_stats: whether to keep running statistics.
        bias: whether, when affine, there is a bias.

    Shapes:
        ``(N, C)`` or ``(N, C, L)``, output the same.

    >>> from facula import nn, randn
    >>> tuple(nn.BatchNorm1d(4)(randn(8, 4)).shape)
    (8, 4)
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """:class:`BatchNorm1d` for ``(N, C, H, W)``."""

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """:class:`BatchNorm1d` for ``(N, C, D, H, W)``."""

    ranks = (5,)


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation of any rank; with one process it is :class:`BatchNorm1d` and its kin."""

    ranks = (2, 3, 4, 5)

    def __init__(
        self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True,
        process_group=None, device=None, dtype=None,
    ):  # fmt: skip
        if process_group is not None:
            raise NotImplementedError("SyncBatchNorm: groups of processes are not supported")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)

    @classmethod
    def convert_sync_batchnorm(cls, module, process_group=None):
        """The module with every batch normalisation in it as this class, sharing its weights."""
        if isinstance(module, _BatchNorm) and not isinstance(module, cls):
            new = cls(module.num_features, module.eps, module.momentum, module.affine,
                      module.track_running_stats, process_group)  # fmt: skip
            new._parameters.update(module._parameters)
            new._buffers.update(module._buffers)
            new.train(module.training)
            return new
        for name, child in module.named_children():
            setattr(module, name, cls.convert_sync_batchnorm(child, process_group))
        return module


class _InstanceNorm(_NormBase):
    def __init__(
        self,
        num_features,
        eps=1e-5,
        momentum=0.1,
        affine=False,
        track_running_stats=False,
        device=None,
        dtype=None,
        *,
        bias=True,
    ):
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias
        )

    def forward(self, input):
        self._check_input_dim(input)
        batched = input.ndim == self.ranks[-1]
        channels = input.shape[-self.ranks[0]]
        if channels != self.num_features and self.affine:
            raise ValueError(
                f"expected input's size at dim={input.ndim - self.ranks[0]} to match "
                f"num_features ({self.num_features}), but got: {channels}."
            )
        output = F.instance_norm(
            input if batched else input.unsqueeze(0),
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return output if batched else output.squeeze(0)


class InstanceNorm1d(_InstanceNorm):
    """Normalise each channel of each example on its own (Ulyanov, 2016).

    The arguments are :class:`BatchNorm1d`'s, with ``affine`` and ``track_running_stats`` off.

    Shapes:
        ``(N, C, L)`` or ``(C, L)``, output the same.

    >>> from facula import nn, randn
    >>> tuple(nn.InstanceNorm1d(3)(randn(2, 3, 5)).shape)
    (2, 3, 5)
    """

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """:class:`InstanceNorm1d` for ``(N, C, H, W)`` or ``(C, H, W)``."""

    ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """:class:`InstanceNorm1d` for ``(N, C, D, H, W)`` or ``(C, D, H, W)``."""

    ranks = (4, 5)
