"""Every op of the registry against its meaning, its finite differences, and itself in other forms.

The parametrisation is derived from the registry: an op added is an op tested.
"""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from oracle import leaves, map_specs, meaning, samples

import facula
from facula.base import dtypes as D
from facula.eager import engine
from facula.library import OPS
from facula.tensor.functions import function_of

TESTED = [op for op in OPS.values() if not op.random and samples(op)]
#: The meaning's values are in float64 where the kernel rounds after every op: units of the last
#: place allowed per op, by dtype; composites of many ops get more.
TOLERANCE = {D.float32: (3e-5, 3e-6), D.float64: (1e-9, 1e-11), D.float16: (3e-2, 3e-3),
             D.bfloat16: (2e-1, 3e-2)}  # fmt: skip


REFUSALS = (RuntimeError, TypeError, ValueError, IndexError)


def rng_of(op, more=""):
    return np.random.default_rng(zlib.crc32(f"{op.name}{more}".encode()))


def tensors(tree):
    return map_tensors(tree, facula.from_numpy)


def map_tensors(tree, make):
    if isinstance(tree, np.ndarray):
        return make(tree)
    if isinstance(tree, (list, tuple)):
        return type(tree)(map_tensors(x, make) for x in tree)
    if isinstance(tree, dict):
        return {k: map_tensors(v, make) for k, v in tree.items()}
    return tree


def drawn(op, sample, dtype, more=""):
    rng = rng_of(op, more)
    return map_specs(sample, lambda spec: spec.array(rng, dtype, op.domain))


def check(op, got, want, dtype):
    got = leaves(got)
    assert len(got) == len(want), f"{op.name}: {len(got)} results, expected {len(want)}"
    rtol, atol = TOLERANCE.get(dtype, (0, 0))
    for g, w in zip(got, want):
        assert tuple(g.shape) == w.shape, f"{op.name}: shape {tuple(g.shape)}, expected {w.shape}"
        assert g.dtype is D.from_numpy(w.dtype), f"{op.name}: dtype {g.dtype}, meaning {w.dtype}"
        if w.dtype.kind == "f":
            scale = np.max(np.abs(w[np.isfinite(w)]), initial=0)
            np.testing.assert_allclose(
                g.detach().numpy(), w, rtol=rtol, atol=atol * (1 + scale), err_msg=op.name
            )
        else:
            np.testing.assert_array_equal(g.numpy(), w, err_msg=op.name)


def names(ops):
    return [op.name for op in ops]


@pytest.mark.parametrize("op", TESTED, ids=names(TESTED))
@pytest.mark.parametrize("dtype", [D.float32, D.float64], ids=lambda d: d.name)
def test_forward_is_its_meaning(op, dtype):
    for k, sample in enumerate(samples(op)):
        args, kwargs = drawn(op, sample, dtype, k)
        agree(op, args, kwargs, dtype)


def agree(op, args, kwargs, dtype):
    """The op gives what it means, or refuses what its trace refuses."""
    try:
        want = meaning(op, args, kwargs)
    except REFUSALS:
        with pytest.raises(REFUSALS):
            function_of(op)(*tensors(args), **tensors(kwargs))
        return
    check(op, function_of(op)(*tensors(args), **tensors(kwargs)), want, dtype)


def positive(a, dtype):
    """At least 1, so that divisors are not 0 (bools stay)."""
    if not isinstance(a, np.ndarray) or dtype is D.bool_:
        return a
    return np.asarray(np.maximum(a, 1))


ANY_DTYPE = [op for op in TESTED if op.samples is None]


@pytest.mark.parametrize("op", ANY_DTYPE, ids=names(ANY_DTYPE))
@pytest.mark.parametrize("dtype", [D.int64, D.int32, D.uint8, D.bool_], ids=lambda d: d.name)
def test_integers_are_their_meaning_or_refused(op, dtype):
    for k, sample in enumerate(samples(op)[:2]):
        args, kwargs = drawn(op, sample, dtype, k)
        args = tuple(positive(a, dtype) for a in args)
        agree(op, args, kwargs, D.float32)


@pytest.mark.parametrize("op", TESTED, ids=names(TESTED))
def test_strides_do_not_matter(op):
    """Transposed and stepped inputs give what contiguous ones give.

    Sums over several dimensions may run in another order where they cannot be merged.
    """
    for k, sample in enumerate(samples(op)[:2]):
        args, kwargs = drawn(op, sample, D.float32, k)
        plain = leaves(function_of(op)(*tensors(args), **tensors(kwargs)))
        strided = leaves(
            function_of(op)(*map_tensors(args, awkward), **map_tensors(kwargs, awkward))
        )
        for a, b in zip(plain, strided):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=3e-6, atol=1e-6, err_msg=op.name)


def awkward(array):
    """The array as a tensor whose memory is reversed in dimension order and spaced out."""
    t = facula.from_numpy(np.array(array.T, order="C"))
    order = tuple(reversed(range(array.ndim)))
    t = t.permute(order) if array.ndim else t
    wide = facula.stack([t, t], -1) if array.dtype != bool else None
    return wide.select(-1, 1) if wide is not None else t


DIFFERENTIABLE = [op for op in TESTED if op.name not in ("bernoulli_of",)]


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=names(DIFFERENTIABLE))
def test_gradient_is_the_slope(op):
    """Directional derivatives in float64: the tape's against central differences."""
    for k, sample in enumerate(samples(op)):
        specs: list = []
        rng = rng_of(op, k)

        def draw(spec, specs=specs, rng=rng):
            array = spec.array(rng, D.float64, op.domain)
            if array.dtype == np.float64 and spec.grad:
                specs.append(array)
            return array

        args, kwargs = map_specs(sample, draw)
        if not specs or any(a.size == 0 for a in specs):
            continue
        slope_matches(op, args, kwargs, specs, rng)


def slope_matches(op, args, kwargs, inputs, rng):
    directions = [rng.standard_normal(a.shape) for a in inputs]
    made = {}

    def enter(array, shift=0.0):
        for i, (x, d) in enumerate(zip(inputs, directions)):
            if array is x:
                if i not in made:
                    made[i] = facula.from_numpy(np.array(x + shift * d)).requires_grad_(shift == 0)
                return made[i]
        return facula.from_numpy(array)

    def run(shift):
        made.clear()
        at = lambda a: enter(a, shift)  # noqa: E731
        out = function_of(op)(*map_tensors(args, at), **map_tensors(kwargs, at))
        return [o for o in leaves(out) if o.dtype.is_floating_point]

    outputs = run(0.0)
    xs = [made[i] for i in sorted(made)]
    pairs = [(o, rng.standard_normal(tuple(o.shape))) for o in outputs if o.requires_grad]
    if not pairs:
        return
    grads = facula.autograd.grad(
        [o for o, _ in pairs], xs, [facula.from_numpy(np.asarray(c)) for _, c in pairs],
        allow_unused=True,
    )  # fmt: skip
    slope = sum(float((g.numpy() * directions[i]).sum())
                for i, g in zip(sorted(made), grads) if g is not None)  # fmt: skip
    marks = [o.requires_grad for o in outputs]
    step = 1e-6
    high, low = run(step), run(-step)
    cotangents = iter(c for _, c in pairs)
    difference = 0.0
    for keep, h, lo in zip(marks, high, low):
        if keep:
            difference += float(((h.numpy() - lo.numpy()) / (2 * step) * next(cotangents)).sum())
    assert slope == pytest.approx(difference, rel=2e-4, abs=2e-5), f"{op.name} {args} {kwargs}"


INPLACE = [op for op in TESTED if op.inplace]


@pytest.mark.parametrize("op", INPLACE, ids=names(INPLACE))
def test_in_place_has_the_same_bits(op):
    for k, sample in enumerate(samples(op)[:2]):
        args, kwargs = drawn(op, sample, D.float32, k)
        want = function_of(op)(*tensors(args), **tensors(kwargs))
        fresh = tensors(tuple(np.array(a) if isinstance(a, np.ndarray) else a for a in args))
        if want.shape != fresh[0].shape or want.dtype.category > fresh[0].dtype.category:
            with pytest.raises(RuntimeError):
                function_of(op, "self")(*fresh, **tensors(kwargs))
            continue
        before = fresh[0].data_ptr()
        got = function_of(op, "self")(*fresh, **tensors(kwargs))
        assert got is fresh[0] and got.data_ptr() == before
        want = want.to(got.dtype)
        np.testing.assert_array_equal(got.numpy(), want.numpy(), err_msg=op.name)


OUT = [op for op in TESTED if op.out]


@pytest.mark.parametrize("op", OUT, ids=names(OUT))
def test_out_has_the_same_bits(op):
    sample = samples(op)[0]
    args, kwargs = drawn(op, sample, D.float32)
    want = function_of(op)(*tensors(args), **tensors(kwargs))
    one = not isinstance(want, tuple)
    outs = [facula.empty_like(w) for w in leaves(want)]
    got = function_of(op)(*tensors(args), **tensors(kwargs), out=outs[0] if one else tuple(outs))
    assert (got is outs[0]) if one else all(a is b for a, b in zip(got, outs))
    for a, b in zip(outs, leaves(want)):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=op.name)


POINTWISE = [op for op in ANY_DTYPE if not op.view]


@pytest.mark.parametrize("op", POINTWISE, ids=names(POINTWISE))
def test_new_sizes_compile_nothing(op):
    """After one call of a structure, other sizes of it emit no kernel."""
    arity = len([p for p in op.signature.parameters.values()
                 if "Value" in str(p.annotation) and p.default is p.empty])  # fmt: skip
    rng = rng_of(op)

    def call(*shape):
        xs = [facula.from_numpy(rng.uniform(*op.domain, shape).astype("f4")) for _ in range(arity)]
        function_of(op)(*xs)

    call(5, 7)
    call(64, 33)  # Hand-written kernels, of sorting for one, have a variant for long rows.
    before = engine.compiled_kernels
    for shape in ((2, 3), (7, 5), (65, 40), (3, 128)):
        call(*shape)
    assert engine.compiled_kernels == before, f"{op.name} compiled for a new size"


@pytest.mark.parametrize("op", TESTED, ids=names(TESTED))
def test_one_thread_and_two_have_the_same_bits(op):
    args, kwargs = drawn(op, samples(op)[0], D.float32)
    threads = facula.get_num_threads()
    try:
        facula.set_num_threads(1)
        one = leaves(function_of(op)(*tensors(args), **tensors(kwargs)))
        facula.set_num_threads(2)
        two = leaves(function_of(op)(*tensors(args), **tensors(kwargs)))
    finally:
        facula.set_num_threads(threads)
    for a, b in zip(one, two):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=op.name)
