"""Pruning: weights multiplied by masks of zeros and ones.

A pruned parameter ``weight`` becomes ``weight_orig`` with a buffer ``weight_mask``; ``weight`` is
their product, computed anew before each call. ``remove`` makes the zeros permanent.
"""

from abc import ABC, abstractmethod

from facula.base.errors import ArgumentError, ArgumentTypeError, fail
from facula.tensor import Tensor, cat, rand, randperm

__all__ = [
    "BasePruningMethod",
    "CustomFromMask",
    "Identity",
    "L1Unstructured",
    "LnStructured",
    "PruningContainer",
    "RandomStructured",
    "RandomUnstructured",
    "custom_from_mask",
    "global_unstructured",
    "identity",
    "is_pruned",
    "l1_unstructured",
    "ln_structured",
    "random_structured",
    "random_unstructured",
    "remove",
]


class BasePruningMethod(ABC):
    """A rule that gives masks. A subclass has ``PRUNING_TYPE`` and ``compute_mask``.

    ``PRUNING_TYPE`` is "unstructured" (single elements), "structured" (slices along a dimension) or
    "global" (elements, all tensors seen as one).
    """

    _tensor_name: str
    PRUNING_TYPE = "unstructured"

    def __call__(self, module, inputs):
        setattr(module, self._tensor_name, self.apply_mask(module))

    @abstractmethod
    def compute_mask(self, t, default_mask):
        """The mask for ``t``, given what is masked already."""

    def apply_mask(self, module):
        """The pruned tensor of a module."""
        name = self._tensor_name
        mask = getattr(module, name + "_mask")
        original = getattr(module, name + "_orig")
        return mask.to(original.dtype) * original

    @classmethod
    def apply(cls, module, name, *args, importance_scores=None, **kwargs):
        """Prune a module's tensor, once more if it is pruned already; returns the method."""
        method, old = cls(*args, **kwargs), _method_of(module, name)
        method._tensor_name = name
        tensor = getattr(module, name)
        scores = tensor if importance_scores is None else importance_scores
        if scores.shape != tensor.shape:
            fail(ArgumentError, "prune", "importance_scores should have the shape of "
                 f"{name}, got {tuple(scores.shape)} and {tuple(tensor.shape)}")  # fmt: skip
        if old is None:
            module.register_parameter(name + "_orig", module._parameters.pop(name))
            default = tensor.detach().new_ones(tensor.shape)
        else:
            key, previous = old
            default = getattr(module, name + "_mask").detach().clone()
            del module._forward_pre_hooks[key]
            container = previous
            if not isinstance(previous, PruningContainer):
                container = PruningContainer(previous)
                container._tensor_name = name
            container.add_pruning_method(method)
            method = container
        mask = method.compute_mask(scores.detach(), default)
        module.register_buffer(name + "_mask", mask)
        setattr(module, name, method.apply_mask(module))
        module.register_forward_pre_hook(method)
        return method

    def prune(self, t, default_mask=None, importance_scores=None):
        """``t`` pruned, without a module."""
        scores = t if importance_scores is None else importance_scores
        default = t.detach().new_ones(t.shape) if default_mask is None else default_mask
        return t * self.compute_mask(scores.detach(), default)

    def remove(self, module):
        """Make the pruned tensor the parameter, for good."""
        name = self._tensor_name
        pruned = self.apply_mask(module).detach()
        original = module._parameters.pop(name + "_orig")
        del module._buffers[name + "_mask"]
        vars(module).pop(name, None)
        original.data = pruned
        setattr(module, name, original)


class PruningContainer(BasePruningMethod):
    """Several methods for one tensor, one after the other."""

    def __init__(self, *methods):
        self._pruning_methods = tuple(methods)

    def add_pruning_method(self, method):
        """One more; it must be for the same tensor."""
        if not isinstance(method, BasePruningMethod):
            fail(ArgumentTypeError, "prune", f"{type(method)} is not a BasePruningMethod subclass")
        self._pruning_methods += (method,)

    def __len__(self):
        return len(self._pruning_methods)

    def __iter__(self):
        return iter(self._pruning_methods)

    def __getitem__(self, index):
        return self._pruning_methods[index]

    def compute_mask(self, t, default_mask):
        """The last method's mask over what is left, and the masks before it."""
        method, left = self._pruning_methods[-1], default_mask != 0
        mask = default_mask.clone()
        if method.PRUNING_TYPE == "structured":
            dim = method.dim % t.ndim
            others = [d for d in range(t.ndim) if d != dim]
            kept = left.sum(others) != 0
            rows = kept.nonzero().squeeze(1)
            part = method.compute_mask(t.index_select(dim, rows), mask.index_select(dim, rows))
            return mask.index_copy(dim, rows, part)
        part = method.compute_mask(t[left], default_mask[left])
        mask[left] = part.to(mask.dtype)
        return mask


def _count(amount, size):
    """A fraction or a number of elements as a number of them."""
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        fail(
            ArgumentTypeError, "prune", f"Invalid type for amount: {amount}. Must be int or float."
        )
    if amount < 0 or isinstance(amount, float) and amount > 1:
        fail(ArgumentError, "prune", f"amount={amount} should either be a float in the range "
             "[0.0, 1.0] or a non-negative integer")  # fmt: skip
    count = amount if isinstance(amount, int) else round(amount * size)
    if count > size:
        fail(ArgumentError, "prune", f"amount={amount} should be smaller than the number of "
             f"parameters to prune={size}")  # fmt: skip
    return count


class Identity(BasePruningMethod):
    """Masks nothing."""

    def compute_mask(self, t, default_mask):
        return default_mask


class _Unstructured(BasePruningMethod):
    def __init__(self, amount):
        _count(amount, float("inf") if isinstance(amount, int) else 1)
        self.amount = amount

    def _scores(self, t):
        raise NotImplementedError

    def compute_mask(self, t, default_mask):
        count, mask = _count(self.amount, t.numel()), default_mask.clone()
        if count:
            lowest = self._scores(t).reshape(-1).topk(count, largest=False).indices
            mask.view(-1)[lowest] = 0
        return mask


class RandomUnstructured(_Unstructured):
    """Masks elements at random."""

    def _scores(self, t):
        return rand(t.shape)


class L1Unstructured(_Unstructured):
    """Masks the elements of least absolute value."""

    def _scores(self, t):
        return t.abs()


class _Structured(BasePruningMethod):
    PRUNING_TYPE = "structured"

    def __init__(self, amount, dim=-1):
        _count(amount, float("inf") if isinstance(amount, int) else 1)
        self.amount, self.dim = amount, dim

    def _lowest(self, t, count):
        raise NotImplementedError

    def compute_mask(self, t, default_mask):
        if t.ndim < 2:
            fail(ArgumentError, "prune", "Structured pruning can only be applied to "
                 f"multidimensional tensors, got {t.ndim}D")  # fmt: skip
        count = _count(self.amount, t.shape[self.dim])
        return (
            default_mask.index_fill(self.dim, self._lowest(t, count), 0) if count else default_mask
        )


class RandomStructured(_Structured):
    """Masks slices along ``dim`` at random."""

    def _lowest(self, t, count):
        return randperm(t.shape[self.dim])[:count]


class LnStructured(_Structured):
    """Masks the slices along ``dim`` of least ``n``-norm."""

    def __init__(self, amount, n, dim=-1):
        super().__init__(amount, dim)
        self.n = n

    def _lowest(self, t, count):
        norms = t.movedim(self.dim, 0).flatten(1).norm(self.n, 1)
        return norms.topk(count, largest=False).indices


class CustomFromMask(BasePruningMethod):
    """Masks what a given mask says."""

    PRUNING_TYPE = "global"

    def __init__(self, mask):
        self.mask = mask

    def compute_mask(self, t, default_mask):
        if self.mask.shape != default_mask.shape:
            fail(ArgumentError, "prune", f"the mask has shape {tuple(self.mask.shape)}, the tensor "
                 f"{tuple(default_mask.shape)}")  # fmt: skip
        return default_mask * self.mask.to(default_mask.dtype)


def _method_of(module, name):
    """(key, hook) of the pruning of a tensor, or None."""
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name:
            return key, hook
    return None


def identity(module, name):
    """Prune nothing, but have the mask."""
    Identity.apply(module, name)
    return module


def random_unstructured(module, name, amount):
    """Prune elements at random: ``amount`` is a number of them or a share.

    >>> from facula import nn
    >>> layer = random_unstructured(nn.Linear(4, 5), "weight", amount=0.5)
    >>> int(layer.weight_mask.sum()), is_pruned(layer)
    (10, True)
    """
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module, name, amount, importance_scores=None):
    """Prune the elements of least absolute value (or least score)."""
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_structured(module, name, amount, dim):
    """Prune slices along ``dim`` at random."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(module, name, amount, n, dim, importance_scores=None):
    """Prune the slices along ``dim`` of least ``n``-norm."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module, name, mask):
    """Prune by a mask."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(parameters, pruning_method, importance_scores=None, **kwargs):
    """Prune elements of several tensors as if they were one.

    Args:
        parameters: pairs (module, name).
        pruning_method: an unstructured method, such as :class:`L1Unstructured`.
        importance_scores: (module, name) to scores, the tensors themselves by default.
    """
    pairs, scores = list(parameters), importance_scores or {}
    flat = cat([scores.get(p, getattr(*p)).detach().reshape(-1) for p in pairs])
    masks = [getattr(m, n + "_mask", None) for m, n in pairs]
    default = cat([
        flat.new_ones(getattr(m, n).numel()) if mask is None else mask.reshape(-1)
        for (m, n), mask in zip(pairs, masks)
    ])  # fmt: skip
    method = pruning_method(**kwargs)
    method._tensor_name = "temp"
    if method.PRUNING_TYPE != "unstructured":
        fail(ArgumentTypeError, "prune", 'Only "unstructured" PRUNING_TYPE is supported for the '
             f"pruning method, got {method.PRUNING_TYPE}")  # fmt: skip
    container = PruningContainer(method)
    whole, start = container.compute_mask(flat, default), 0
    for module, name in pairs:
        tensor: Tensor = getattr(module, name)
        part = whole[start : start + tensor.numel()].view(tensor.shape)
        custom_from_mask(module, name, part)
        start += tensor.numel()


def remove(module, name):
    """Make the pruning of a tensor permanent.

    Raises:
        ValueError: it is not pruned.
    """
    found = _method_of(module, name)
    if found is None:
        fail(ArgumentError, "prune", f"Parameter '{name}' of module {module} has to be pruned "
             "before pruning can be removed")  # fmt: skip
    key, method = found
    method.remove(module)
    del module._forward_pre_hooks[key]
    return module


def is_pruned(module):
    """Whether a module, or one inside of it, has pruned tensors."""
    return any(
        isinstance(hook, BasePruningMethod)
        for part in module.modules()
        for hook in part._forward_pre_hooks.values()
    )
