"""Tensors as text, against PyTorch's letter by letter."""

from __future__ import annotations

import numpy as np
import pytest

import facula

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.conformance


def arrays():
    rng = np.random.default_rng(7)
    f = np.float32
    yield from (
        np.array(1.5, f), np.array(3, np.int64), np.array(True), np.array(2.0, np.float64),
        np.array([], f), np.zeros((0, 3), f), np.zeros((2, 0), np.int32), np.zeros(0, np.int64),
        np.array([1, 2, 3], f), np.array([1, 1e4], f), np.array([1e-5, 1], f),
        np.array([1, 1e9], f), np.array([0.5, 100.25, -3], f), np.array([np.inf, 1, np.nan], f),
        np.array([np.inf, 1.5, -np.inf, np.nan], f), np.array([np.nan], f), np.zeros(3, f),
        np.array([True, False]), np.array([-1, 100, 5]), np.array([1, 2], np.int8),
        np.array([0.0, -0.0, 1e-8], f), np.array([1e10, 1e-10], np.float64),
        np.arange(1001), np.arange(1000), np.arange(2000, dtype=f).reshape(2, 1000),
        rng.standard_normal((3, 4)).astype(f), rng.standard_normal((2, 3, 4)).astype(np.float64),
        rng.standard_normal((2, 2, 2, 2)).astype(f), rng.standard_normal((30, 40)).astype(f),
        rng.standard_normal((12, 13, 14)).astype(f), rng.standard_normal(50).astype(np.float16),
        rng.integers(-1000, 1000, (4, 30)), rng.integers(0, 2, (5, 40)).astype(bool),
        (rng.standard_normal((4, 4)) * 10.0 ** rng.integers(-6, 6, (4, 4))).astype(f),
    )  # fmt: skip


def same(ours, theirs):
    assert repr(ours).replace("facula.", "torch.") == repr(theirs)
    assert str(ours).replace("facula.", "torch.") == str(theirs)


@pytest.mark.parametrize("array", arrays(), ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_as_pytorch_prints(array):
    same(facula.tensor(array), torch.tensor(array))


def test_views_and_broadcast_memory():
    a = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    x, y = facula.tensor(a), torch.tensor(a)
    same(x[:, 1], y[:, 1])
    same(x.transpose(0, 2), y.transpose(0, 2))
    same(x[0, 0].expand(3, 4), y[0, 0].expand(3, 4))


def test_bfloat16():
    same(
        facula.tensor([1.0, 2.5], dtype=facula.bfloat16),
        torch.tensor([1.0, 2.5], dtype=torch.bfloat16),
    )


def test_history_is_told():
    x = facula.tensor([1.0, 2.0], requires_grad=True)
    y = torch.tensor([1.0, 2.0], requires_grad=True)
    same(x, y)
    same(x * 2, y * 2)
    same(facula.zeros(6, 3, requires_grad=True) + 0.5, torch.zeros(6, 3, requires_grad=True) + 0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": 2}, {"sci_mode": True}, {"sci_mode": False}, {"linewidth": 40},
        {"threshold": 5, "edgeitems": 1}, {"profile": "short"}, {"profile": "full"},
    ],
    ids=str,
)  # fmt: skip
def test_options(options):
    try:
        facula.set_printoptions(**options)
        torch.set_printoptions(**options)
        for array in arrays():
            same(facula.tensor(array), torch.tensor(array))
    finally:
        facula.set_printoptions(profile="default")
        torch.set_printoptions(profile="default")


@pytest.mark.parametrize("spec", ["", ".2f", "8.3e", ">10"])
def test_format_of_one_element(spec):
    assert format(facula.tensor(3.14159), spec) == format(torch.tensor(3.14159), spec)
