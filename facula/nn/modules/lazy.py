"""Layers that learn the size of their input from the first one: ``LazyLinear`` and its kin.

Until then their weights are uninitialized parameters; then they become the ordinary layer.
"""

from facula.nn.modules.batchnorm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from facula.nn.modules.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from facula.nn.modules.linear import Linear
from facula.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy
from facula.tensor import int64, tensor

__all__ = [
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyConv3d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "LazyConvTranspose3d",
    "LazyInstanceNorm1d",
    "LazyInstanceNorm2d",
    "LazyInstanceNorm3d",
    "LazyLinear",
]


class LazyModuleMixin:
    """What lazy layers share: sizes are inferred before the first call, or loaded.

    A subclass gives ``cls_to_become`` and ``initialize_parameters(input)``.
    """

    cls_to_become: type

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._infer_handle = self.register_forward_pre_hook(type(self)._infer, with_kwargs=True)

    def has_uninitialized_params(self):
        """Whether sizes are still unknown."""
        return any(is_lazy(x) for x in (*self._parameters.values(), *self._buffers.values()))

    def _infer(self, args, kwargs):
        self.initialize_parameters(*args, **kwargs)
        self._infer_handle.remove()
        del self._infer_handle
        self.__class__ = self.cls_to_become

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        for name, x in [*self._parameters.items(), *self._buffers.items()]:
            given = state_dict.get(prefix + name)
            if is_lazy(x) and given is not None and not is_lazy(given):
                x.materialize(given.shape, dtype=given.dtype)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def reset_parameters(self):
        """Draw the weights anew, once their sizes are known."""
        if "_infer_handle" in vars(self) and not self.has_uninitialized_params():
            super().reset_parameters()


class LazyLinear(LazyModuleMixin, Linear):
    """:class:`Linear` with ``in_features`` inferred from the first input.

    >>> from facula import nn, ones
    >>> layer = nn.LazyLinear(4)
    >>> tuple(layer(ones(2, 3)).shape), layer
    ((2, 4), Linear(in_features=3, out_features=4, bias=True))
    """

    cls_to_become = Linear

    def __init__(self, out_features, bias=True, device=None, dtype=None):
        super().__init__(0, 0, False)
        self.out_features = out_features
        place = {"device": device, "dtype": dtype}
        self.weight = UninitializedParameter(**place)
        if bias:
            self.bias = UninitializedParameter(**place)

    def initialize_parameters(self, input):
        """Make the weights for inputs like this one."""
        if not self.has_uninitialized_params():
            self.in_features = self.weight.shape[-1]
            return
        self.in_features = input.shape[-1]
        self.weight.materialize((self.out_features, self.in_features))
        if self.bias is not None:
            self.bias.materialize((self.out_features,))
        self.reset_parameters()


class _LazyConv(LazyModuleMixin):
    def __init__(self, out_channels, kernel_size, *args, bias=True, **kwargs):
        place = {"device": kwargs.get("device"), "dtype": kwargs.get("dtype")}
        args = list(args)
        if len(args) > 4:  # The bias is given by its place.
            bias, args[4] = args[4], False
        else:
            kwargs["bias"] = False
        super().__init__(0, 0, kernel_size, *args, **kwargs)
        self.out_channels = out_channels
        self.weight = UninitializedParameter(**place)
        if bias:
            self.bias = UninitializedParameter(**place)

    def initialize_parameters(self, input, *rest):
        """Make the weights for inputs like this one."""
        inside = self.in_channels = input.shape[-self.n_dims - 1]
        if not self.has_uninitialized_params():
            return
        if input.ndim not in (self.n_dims + 1, self.n_dims + 2):
            raise RuntimeError(
                f"Expected {self.n_dims + 1}D (unbatched) or {self.n_dims + 2}D (batched) input to "
                f"{type(self).__name__}, but got input of size: {tuple(input.shape)}"
            )
        outer, inner = self.out_channels, inside
        if self.transposed:
            outer, inner = inside, self.out_channels
        if inside % self.groups:
            raise ValueError("in_channels must be divisible by groups")
        self.weight.materialize((outer, inner // self.groups, *self.kernel_size))
        if self.bias is not None:
            self.bias.materialize((self.out_channels,))
        self.reset_parameters()


class _LazyNorm(LazyModuleMixin):
    def __init__(
        self, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True, device=None, dtype=None
    ):
        super().__init__(0, eps, momentum, False, False)
        self.affine, self.track_running_stats = affine, track_running_stats
        place = {"device": device, "dtype": dtype}
        if self.affine:
            self.weight = UninitializedParameter(**place)
            self.bias = UninitializedParameter(**place)
        if self.track_running_stats:
            self.register_buffer("running_mean", UninitializedBuffer(**place))
            self.register_buffer("running_var", UninitializedBuffer(**place))
            self.register_buffer("num_batches_tracked", tensor(0, dtype=int64))

    def reset_running_stats(self):
        """Forget the batches seen, once the number of channels is known."""
        if not self.has_uninitialized_params():
            super().reset_running_stats()

    def initialize_parameters(self, input):
        """Make weights and statistics for inputs like this one."""
        channels = self.num_features = input.shape[1]
        if not self.has_uninitialized_params():
            return
        for x in (*self._parameters.values(), *self._buffers.values()):
            if is_lazy(x):
                x.materialize((channels,))
        self.reset_parameters()


def _lazy(mixin, base):
    doc = f":class:`{base.__name__}` with its number of input channels inferred from the first one."
    fields = {"cls_to_become": base, "__doc__": doc, "__module__": __name__}
    return type(f"Lazy{base.__name__}", (mixin, base), fields)


(
    LazyConv1d,
    LazyConv2d,
    LazyConv3d,
    LazyConvTranspose1d,
    LazyConvTranspose2d,
    LazyConvTranspose3d,
) = (
    _lazy(_LazyConv, base)
    for base in (Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)
)
LazyBatchNorm1d, LazyBatchNorm2d, LazyBatchNorm3d = (
    _lazy(_LazyNorm, base) for base in (BatchNorm1d, BatchNorm2d, BatchNorm3d)
)
LazyInstanceNorm1d, LazyInstanceNorm2d, LazyInstanceNorm3d = (
    _lazy(_LazyNorm, base) for base in (InstanceNorm1d, InstanceNorm2d, InstanceNorm3d)
)
