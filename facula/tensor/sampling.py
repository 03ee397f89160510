"""Random tensors: new ones, and fills of existing ones. All draw from counter-based streams."""

from __future__ import annotations

import functools

from facula.base import dtypes as D
from facula.base.errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError, fail
from facula.eager.grad_mode import mode, no_grad
from facula.eager.tensor import Tensor, need_tensor
from facula.library import OPS
from facula.runtime import random as streams
from facula.tensor import creation
from facula.tensor.creation import blank, element_type, fills, leaf, number, target
from facula.tensor.functions import function_of
from facula.tensor.positions import into

#: Integers up to which a floating-point dtype holds all of them.
_EXACT = {D.float16: 1 << 11, D.bfloat16: 1 << 8, D.float32: 1 << 24, D.float64: 1 << 53}


def _need_float(name, x):
    need_tensor(name, x)
    if not x._meta.dtype.is_floating_point:
        fail(DtypeError, name, f'"{name}" not implemented for {x._meta.dtype.name!r}',
             "give a floating-point dtype")  # fmt: skip


# New tensors -------------------------------------------------------------------------------------


def _shaped(name, fill):
    def function(
        *given, size=None, generator=None, out=None, dtype=None, layout=None, device=None,
        requires_grad=False, pin_memory=False, names=None,
    ):  # fmt: skip
        x = target(name, out, given, dtype, device, size)
        _need_float(name, x)
        return leaf(fills(fill)(x, generator=generator), requires_grad, layout)

    def like(
        input, *, dtype=None, layout=None, device=None, requires_grad=False, memory_format=None,
        generator=None, pin_memory=False,
    ):  # fmt: skip
        x = creation.empty_like(input, dtype=dtype, device=device, memory_format=memory_format)
        _need_float(name + "_like", x)
        return leaf(fills(fill)(x, generator=generator), requires_grad, layout)

    for made, title in ((function, name), (like, name + "_like")):
        made.__name__ = made.__qualname__ = title
    return function, like


rand, rand_like = _shaped("rand", "uniform")
rand.__doc__ = "Numbers uniform in [0, 1), of the shape given."
rand_like.__doc__ = "Numbers uniform in [0, 1), of the shape and dtype of ``input``."
randn, randn_like = _shaped("randn", "normal")
randn.__doc__ = "Standard normal numbers, of the shape given."
randn_like.__doc__ = "Standard normal numbers, of the shape and dtype of ``input``."


def randint(
    low, high=None, size=None, *, generator=None, out=None, dtype=None, layout=None, device=None,
    requires_grad=False, pin_memory=False,
) -> Tensor:  # fmt: skip
    """Integers from [low, high): ``randint(high, size)`` or ``randint(low, high, size)``.

    Raises:
        RuntimeError: an empty range, or one that the dtype does not hold.
    """
    if size is None and isinstance(high, (tuple, list)):
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if size is None:
        fail(ArgumentTypeError, "randint", "size is missing")
    low, high = _bounds("randint", low, high)
    if dtype is None:
        dtype = out.dtype if out is not None else D.int64
    x = target("randint", out, (size,), dtype, device)
    _check_range("randint", x.dtype, low, high)
    return leaf(fills("integers")(x, low, high, generator=generator), requires_grad, layout)


def randint_like(
    input, low, high=None, *, dtype=None, layout=None, device=None, requires_grad=False,
    memory_format=None, generator=None,
) -> Tensor:  # fmt: skip
    """Integers from [low, high), of the shape and dtype of ``input``."""
    if high is None:
        low, high = 0, low
    low, high = _bounds("randint_like", low, high)
    x = creation.empty_like(input, dtype=dtype, device=device, memory_format=memory_format)
    _check_range("randint_like", x.dtype, low, high)
    return leaf(fills("integers")(x, low, high, generator=generator), requires_grad, layout)


def _bounds(name, low, high):
    low, high = int(number(name, low)), int(number(name, high))
    if low >= high:
        fail(ShapeError, name, f"random_ expects 'from' to be less than 'to', but got from={low} "
             f">= to={high}")  # fmt: skip
    if not -(1 << 63) <= low < high <= (1 << 63) - 1:
        fail(DtypeError, name, f"bounds [{low}, {high}) are out of range of int64")
    return low, high


def _check_range(name, dtype, low, high):
    if dtype.is_floating_point:
        lowest = -_EXACT[dtype]
        highest = _EXACT[dtype]
    elif dtype is D.bool_:
        lowest, highest = 0, 1
    else:
        bits = 8 * dtype.itemsize
        signed = dtype.is_signed
        lowest = -(1 << bits - 1) if signed else 0
        highest = (1 << bits - 1) - 1 if signed else (1 << bits) - 1
    if not dtype.is_floating_point and (low < lowest or high - 1 > highest):
        fail(DtypeError, name, f"bounds [{low}, {high}) are out of bounds for {dtype.name}")


def randperm(
    n, *, generator=None, out=None, dtype=None, layout=None, device=None, requires_grad=False,
    pin_memory=False,
) -> Tensor:  # fmt: skip
    """The integers from 0 to ``n - 1`` in random order."""
    if not hasattr(n, "__index__"):
        fail(ArgumentTypeError, "randperm", f"n must be an int, got {type(n).__name__}")
    if n < 0:
        fail(ShapeError, "randperm", f"n must be non-negative, got {n}")
    if dtype is None:
        dtype = out.dtype if out is not None else D.int64
    dtype = element_type(dtype)
    if dtype.is_floating_point and n > _EXACT[dtype] + 1:
        fail(DtypeError, "randperm", f"{n} is too large for {dtype.name}")
    # Sorting random 62-bit keys; equal keys are as good as impossible and harmless.
    keys = fills("integers")(blank("randperm", (n,), D.int64), 0, 1 << 62, generator=generator)
    order = OPS["sort"](keys, 0)[1] if n else keys
    x = target("randperm", out, (n,), dtype, device)
    return leaf(x.copy_(order), requires_grad, layout)


def normal(mean, std=1.0, size=None, *, generator=None, out=None, dtype=None, layout=None,
           device=None, requires_grad=False, pin_memory=False):  # fmt: skip
    """Normal numbers whose mean and standard deviation are numbers or tensors."""
    if not isinstance(mean, Tensor) and not isinstance(std, Tensor):
        if size is None:
            fail(ArgumentTypeError, "normal", "size is missing")
        x = target("normal", out, (size,), dtype, device)
        _check_std("normal", std)
        return leaf(
            fills("normal")(x, float(mean), float(std), generator=generator), requires_grad, layout
        )
    with no_grad():
        for value in (mean, std):
            if isinstance(value, Tensor):
                _need_float("normal", value)
        if isinstance(std, Tensor) and std.numel() and bool((std < 0).any()):
            fail(ShapeError, "normal", "expects all elements of std >= 0.0")
        shape = _together(mean, std)
        own = next(v.dtype for v in (mean, std) if isinstance(v, Tensor))
        z = fills("normal")(blank("normal", shape, own), generator=generator)
        y = z * std + mean
        if out is not None:
            return creation.target("normal", out, (y.shape,)).copy_(y)
    return _linked(y, mean, std)


def _together(*values):
    from facula.ops.promote import broadcast_shapes

    return broadcast_shapes(*(v.shape for v in values if isinstance(v, Tensor)), name="normal")


def _check_std(name, std):
    if not std >= 0.0:
        fail(ShapeError, name, f"normal expects std >= 0.0, but found std {std}")


def bernoulli(input, p=None, *, generator=None, out=None) -> Tensor:  # noqa: A002
    """1 with the probability that each element tells (or ``p`` for all), else 0."""
    with no_grad():
        if p is None:
            _need_float("bernoulli", input)
            if input.numel() and bool(((input < 0) | (input > 1)).any()):
                fail(ShapeError, "bernoulli", "Expected p_in >= 0 && p_in <= 1 to be true, but got "
                     "false.")  # fmt: skip
        x = target("bernoulli", out, (input.shape,), input.dtype if out is None else None)
        chance = input if p is None else _probability(p)
        y = fills("bernoulli_of")(x, chance, generator=generator)
    return _linked(y, input) if out is None else y


def _linked(y, *sources):
    """``y`` as a result of tensors that want gradients, to which zeros flow."""
    for x in sources:
        if mode.grad is not False and isinstance(x, Tensor) and x.requires_grad:
            y = function_of(OPS["where"])(y.new_ones(y.shape, dtype=D.bool_), y, x)
    return y


def _probability(p):
    if not isinstance(p, Tensor) and not 0 <= p <= 1:
        fail(ShapeError, "bernoulli_", f"expects p to be in [0, 1], but got p={p}")
    return p if isinstance(p, Tensor) else float(p)


def multinomial(input, num_samples, replacement=False, *, generator=None, out=None):  # noqa: A002
    """Indices drawn with the probabilities (up to a factor) of each row: int64.

    Without replacement by Efraimidis and Spirakis' races (2006): the ``num_samples`` largest of
    ``p / exponential``. With replacement by inverting the cumulative distribution.

    Raises:
        RuntimeError: negative, infinite or missing probabilities, or too few of them.
    """
    with no_grad():
        p = input
        _need_float("multinomial", p)
        if p.ndim not in (1, 2):
            fail(ShapeError, "multinomial", "prob_dist must be 1 or 2 dim")
        n = p.shape[-1]
        if num_samples <= 0:
            fail(ShapeError, "multinomial", "cannot sample n_sample <= 0 samples")
        if not replacement and num_samples > n:
            fail(ShapeError, "multinomial", "cannot sample n_sample > prob_dist.size(-1) samples "
                 "without replacement")  # fmt: skip
        if p.numel() and not bool((p.isfinite() & (p >= 0)).all()):
            fail(ShapeError, "multinomial", "probability tensor contains either `inf`, `nan` or "
                 "element < 0")  # fmt: skip
        positive = (p > 0).sum(-1)
        least = 1 if replacement else num_samples
        if p.numel() and bool((positive < least).any()):
            fail(ShapeError, "multinomial", "invalid multinomial distribution (sum of "
                 "probabilities <= 0, or fewer of them than samples)")  # fmt: skip
        p = p.float() if p.dtype is not D.float64 else p
        if replacement:
            picked = _inverted(p, num_samples, generator)
        else:
            race = fills("exponential")(creation.empty_like(p), generator=generator)
            picked = OPS["topk"](p / race, num_samples, -1)[1]
        return picked if out is None else into("multinomial", out, picked)


def _inverted(p, n, generator):
    cumulative = p.double().cumsum(-1)
    shape = (*p.shape[:-1], n)
    u = fills("uniform")(blank("multinomial", shape, D.float64), generator=generator)
    total = cumulative.narrow(-1, p.shape[-1] - 1, 1)
    # The first position whose cumulative probability is larger: never one of probability 0.
    picked = OPS["searchsorted"](cumulative.contiguous(), u * total, right=True)
    last = (p > 0).to(D.int64) * creation.arange(p.shape[-1])
    return OPS["minimum"](picked, last.amax(-1, keepdim=True))


# In place ----------------------------------------------------------------------------------------


def _in_place(name, check=None):
    fill = name

    def method(self, *args, generator=None, **named):
        with no_grad():
            if check is not None:
                check(self, *args, **named)
            return fills(fill)(self, *map(_plain, args), generator=generator,
                               **{k: _plain(v) for k, v in named.items()})  # fmt: skip

    method.__name__ = method.__qualname__ = name + "_"
    method.__doc__ = f"{OPS[name].__doc__} In place; gradients do not flow through it."
    return _checked(method)


def _checked(method):
    """``method`` refused for leaves that require grad, as every change in place."""
    from facula.eager.views import check_in_place

    @functools.wraps(method)
    def guarded(self, *args, **named):
        check_in_place(self, method.__name__)
        return method(self, *args, **named)

    return guarded


def _plain(x):
    return float(x.item()) if isinstance(x, Tensor) else float(x)


def _uniform_ok(self, low=0.0, high=1.0, **named):
    low, high = named.get("from", low), named.get("to", high)
    if low > high:
        fail(ShapeError, "uniform_", f"expects to return a [from, to) range, but found from={low} "
             f"> to={high}")  # fmt: skip


def uniform_(self, *args, generator=None, **named):
    """Uniform in [from, to), in place; ``uniform_(from=0, to=1)``."""
    low = named.pop("from", args[0] if args else 0.0)
    high = named.pop("to", args[1] if len(args) > 1 else 1.0)
    if named or len(args) > 2:
        fail(ArgumentTypeError, "uniform_", f"unexpected arguments {list(named) or args[2:]}")
    _uniform_ok(self, low, high)
    with no_grad():
        return fills("uniform")(self, float(low), float(high), generator=generator)


def _std_ok(self, mean=0.0, std=1.0):
    _check_std("normal_", std)


def _positive(name, word):
    def check(self, value=1.0, other=None, **named):
        value = named.get(word, value)
        if other is not None and word == "sigma":
            value = other
        if not value > 0:
            fail(ShapeError, name, f"expects {word} > 0.0, but found {word}={value}")

    return check


def random_(self, *args, generator=None, **named):
    """Integers from [from, to), in place; by default all that the dtype holds exactly."""
    low = named.pop("from", None)
    high = named.pop("to", None)
    if named or len(args) > 2:
        fail(ArgumentTypeError, "random_", f"unexpected arguments {list(named) or args[2:]}")
    if len(args) == 2:
        low, high = args
    elif len(args) == 1:
        low, high = (args[0], high) if high is not None else (0, args[0])
    dtype = self._meta.dtype
    if high is None:
        low = 0 if low is None else low
        high = _EXACT[dtype] + 1 if dtype.is_floating_point else _ceiling(dtype)
    low, high = _bounds("random_", 0 if low is None else low, high)
    _check_range("random_", dtype, low, high)
    with no_grad():
        return fills("integers")(self, low, high, generator=generator)


def _ceiling(dtype):
    if dtype is D.bool_:
        return 2
    bits = 8 * dtype.itemsize - (1 if dtype.is_signed else 0)
    return min(1 << bits, (1 << 63) - 1)


def bernoulli_(self, p=0.5, *, generator=None):
    """1 with probability ``p`` (a number, or a tensor that broadcasts), else 0; in place."""
    with no_grad():
        return fills("bernoulli_of")(self, _probability(p), generator=generator)


def bernoulli_method(self, p=None, *, generator=None):
    """1 with the probability that each element tells (or ``p`` for all), else 0."""
    return bernoulli(self, p, generator=generator)


def _geometric_ok(self, p):
    if not 0 < p < 1:
        fail(ShapeError, "geometric_", f"expects p to be in (0, 1), but got p={p}")


def _attach():
    Tensor.normal_ = _in_place("normal", _std_ok)
    Tensor.exponential_ = _in_place("exponential", _positive("exponential_", "lambd"))
    Tensor.cauchy_ = _in_place("cauchy", _positive("cauchy_", "sigma"))
    Tensor.log_normal_ = _in_place(
        "log_normal", lambda self, mean=1.0, std=2.0: _positive("log_normal_", "std")(self, std)
    )
    Tensor.geometric_ = _in_place("geometric", _geometric_ok)
    for method in (uniform_, random_, bernoulli_):
        setattr(Tensor, method.__name__, _checked(method))
    Tensor.bernoulli, Tensor.multinomial = bernoulli_method, multinomial


_attach()


# Generators --------------------------------------------------------------------------------------


class Generator(streams.Generator):
    """A random stream and the place reached in it; see ``manual_seed``.

    >>> g = Generator().manual_seed(3)
    >>> g.initial_seed()
    3
    """

    def __init__(self, device="cpu"):
        creation.check_device(device)
        super().__init__()

    @property
    def device(self):
        """Always the CPU."""
        return creation.CPU

    def get_state(self) -> Tensor:
        """Seed and place as a uint8 tensor for :meth:`set_state`."""
        return _bytes_tensor(super().get_state())

    def set_state(self, new_state) -> Generator:
        """Go on where :meth:`get_state` was called."""
        super().set_state(_state_bytes("set_state", new_state))
        return self

    def clone_state(self) -> Generator:
        """Another generator at the same place."""
        other = Generator()
        return other.set_state(self.get_state())

    def __reduce__(self):
        return _generator_of, (bytes(streams.Generator.get_state(self)),)


def _generator_of(state):
    g = Generator()
    streams.Generator.set_state(g, state)
    return g


def _bytes_tensor(state) -> Tensor:
    from facula.tensor.data import tensor

    return tensor(list(state), dtype=D.uint8)


def _state_bytes(name, state) -> bytes:
    if not isinstance(state, Tensor) or state.dtype is not D.uint8:
        fail(ArgumentTypeError, name, "RNG state must be a facula.ByteTensor")
    return bytes(state.tolist())


def manual_seed(seed):
    """Start the default stream of that seed; the generator."""
    return streams.default_generator.manual_seed(int(seed))


def seed() -> int:
    """Start a default stream that nobody can foresee; its seed."""
    return streams.default_generator.seed()


def initial_seed() -> int:
    """The seed of the default stream."""
    return streams.default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the default stream, a uint8 tensor."""
    return _bytes_tensor(streams.Generator.get_state(streams.default_generator))


def set_rng_state(new_state) -> None:
    """Go on where :func:`get_rng_state` was called."""
    try:
        state = _state_bytes("set_rng_state", new_state)
        streams.Generator.set_state(streams.default_generator, state)
    except ArgumentError as error:
        fail(ShapeError, "set_rng_state", f"RNG state is wrong: {error}")


#: What random functions draw from unless given a generator of their own.
default_generator = streams.default_generator
# The runtime made it before there were tensors; from here on its state is one.
default_generator.__class__ = Generator

__all__ = [
    "Generator", "bernoulli", "default_generator", "get_rng_state", "initial_seed", "manual_seed",
    "multinomial", "normal", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like",
    "randperm", "seed", "set_rng_state",
]  # fmt: skip
