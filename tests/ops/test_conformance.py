"""Ops of the registry against PyTorch's of the same names: values, dtypes, shapes, gradients."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import leaves, samples
from test_registry import TESTED, drawn, map_tensors

import facula
from facula.base import dtypes as D
from facula.library import OPS
from facula.tensor.functions import function_of

pytestmark = pytest.mark.conformance

#: Gradients that PyTorch has otherwise, and why ours are kept.
OTHER_GRADIENTS = {
    "ldexp": "PyTorch computes 2 ** other in integers, where negative powers are 0",
}


def theirs(op):
    """PyTorch's function of an op, or None."""
    import torch

    roots = {
        "nn.functional": torch.nn.functional,
        "torch": torch,
        "method": torch.Tensor,
        "special": torch.special,
        "linalg": torch.linalg,
    }
    for space, root in roots.items():
        if space in op.spaces and callable(getattr(root, op.name, None)):
            return getattr(root, op.name)
    return None


def public():
    """(op, its number of samples) where a comparison is possible."""
    return [op for op in TESTED if op.spaces]


def dtypes(x):
    """Arguments with our dtypes as PyTorch's."""
    import torch

    if isinstance(x, D.dtype):
        return getattr(torch, x.name)
    if isinstance(x, (list, tuple)):
        return type(x)(map(dtypes, x))
    if isinstance(x, dict):
        return {k: dtypes(v) for k, v in x.items()}
    return x


def run(function, tensor, op, sample, dtype, grad=False):
    """(results, leaves that want gradients) of one sample, by one of the two libraries."""
    xs: list = []

    def enter(array):
        x = tensor(np.array(array))
        if grad and array.dtype.kind == "f":
            xs.append(x.requires_grad_())
        return x

    args, kwargs = drawn(op, sample, dtype)
    args, kwargs = map_tensors(args, enter), map_tensors(kwargs, enter)
    if tensor is not facula.from_numpy:
        args, kwargs = dtypes(args), dtypes(kwargs)
    return leaves(function(*args, **kwargs)), xs


def close(name, a, b, dtype):
    """The same shapes, dtypes and, within rounding, values."""
    assert tuple(a.shape) == tuple(b.shape), f"{name}: {tuple(a.shape)}, PyTorch {tuple(b.shape)}"
    assert str(a.dtype).split(".")[1] == str(b.dtype).split(".")[1], f"{name}: {a.dtype} {b.dtype}"
    rtol, atol = (2e-4, 2e-5) if dtype is D.float32 else (1e-7, 1e-9)
    np.testing.assert_allclose(
        a.detach().numpy(), b.detach().resolve_conj().numpy(), rtol=rtol, atol=atol, err_msg=name
    )


@pytest.mark.parametrize("op", public(), ids=lambda op: op.name)
def test_values_and_gradients_are_those_of_pytorch(op):
    import torch

    function = theirs(op)
    if function is None:
        pytest.skip("PyTorch has no function of this name")
    compared = 0
    for sample in samples(op):
        try:
            want, _ = run(function, torch.from_numpy, op, sample, D.float32)
        except (TypeError, RuntimeError, IndexError):
            continue  # PyTorch's function takes other arguments, or refuses these.
        got, _ = run(function_of(op), facula.from_numpy, op, sample, D.float32)
        compared += 1
        assert len(got) == len(want)
        for a, b in zip(got, want):
            close(op.name, a, b, D.float32)
        if op.name not in OTHER_GRADIENTS:
            gradients(op, function, sample)
    if not compared:
        pytest.skip("PyTorch's function takes other arguments")


def gradients(op, function, sample):
    """Gradients of all differentiable results, in double precision, where PyTorch has them."""
    import torch

    rng = np.random.default_rng(0)
    try:
        want, ys = run(function, torch.from_numpy, op, sample, D.float64, grad=True)
        wanting = [i for i, w in enumerate(want) if w.requires_grad]
        seeds = [rng.standard_normal(tuple(want[i].shape)) for i in wanting]
        own = torch.autograd.grad(
            [want[i] for i in wanting], ys, [torch.from_numpy(np.array(s)) for s in seeds],
            allow_unused=True,
        )  # fmt: skip
    except (RuntimeError, ValueError):
        return
    got, xs = run(function_of(op), facula.from_numpy, op, sample, D.float64, grad=True)
    ours = facula.autograd.grad(
        [got[i] for i in wanting], xs, [facula.from_numpy(np.array(s)) for s in seeds],
        allow_unused=True,
    )  # fmt: skip
    for a, b in zip(ours, own):
        if a is None or b is None:
            rest = b if a is None else a
            assert rest is None or not rest.numel() or not rest.abs().max().item(), op.name
            continue
        close(f"gradient of {op.name}", a, b, D.float64)


def test_most_ops_have_a_counterpart():
    assert sum(theirs(op) is not None for op in public()) > 0.8 * len(public())
    assert len(OPS) > 300
