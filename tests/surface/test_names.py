"""Names of PyTorch's top level that are short combinations, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import facula

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.conformance
RNG = np.random.default_rng(4)
X, W, B = RNG.standard_normal((2, 4, 3)), RNG.standard_normal(4), RNG.standard_normal(4)
M, V = RNG.standard_normal(4), RNG.uniform(0.5, 2.0, 4)
CASES = {
    "constant_pad_nd": (X, [1, 2, 0, 1], 0.5), "as_strided_copy": (X, (2, 2), (3, 1), 1),
    "as_strided_scatter": (X, np.ones((2, 2)), (2, 2), (3, 1), 1), "slice_copy": (X, 1, 1, 4, 2),
    "split_with_sizes_copy": (X, [1, 3], 1), "ger": (W, B), "conj_physical": (X,),
    "frobenius_norm": (X, (1, 2), True), "nuclear_norm": (X, (1, 2)), "pdist": (X[0], 2.0),
    "norm_except_dim": (X, 2, 1), "native_layer_norm": (X, [3], None, None, 1e-5),
    "native_group_norm": (X, W, B, 2, 4, 3, 2, 1e-5),
    "native_batch_norm": (X, W, B, M, V, True, 0.1, 1e-5),
    "grid_sampler_2d": (X[None], RNG.uniform(-1, 1, (1, 2, 2, 2)), 0, 1, False),
    "native_channel_shuffle": (X, 2), "histogramdd": (X[0], 3), "nextafter": (X, np.zeros(3)),
}  # fmt: skip


def flat(y):
    return [x for z in y for x in flat(z)] if isinstance(y, (tuple, list)) else [y]


@pytest.mark.parametrize("name", CASES)
def test_values(name):
    def run(library):
        args = [library.tensor(x) if isinstance(x, np.ndarray) else x for x in CASES[name]]
        return flat(getattr(library, name)(*args))

    for a, b in zip(run(facula), run(torch), strict=True):
        assert tuple(a.shape) == tuple(b.shape)
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-9, err_msg=name)


def test_next_numbers():
    a = np.array([0.0, -0.0, 1.0, -1.0, np.inf, np.nan, 3e38, 1.0], "f4")
    b = np.array([1.0, -1.0, 2.0, 0.0, 0.0, 1.0, np.inf, 1.0], "f4")
    y = facula.nextafter(facula.tensor(a), facula.tensor(b)).numpy()
    np.testing.assert_array_equal(y, np.nextafter(a, b))


def test_dropout_tells_what_it_kept():
    y, mask = facula.native_dropout(facula.ones(1000), 0.25, True)
    assert 650 < int(mask.sum()) < 850 and facula.equal(y != 0, mask)


def test_scripts_are_what_they_were():
    @facula.jit.script
    def double(x):
        return x * 2

    layer = facula.jit.trace(facula.nn.Linear(2, 2), facula.ones(1, 2))
    assert double(facula.ones(2)).tolist() == [2, 2] and layer(facula.ones(1, 2)).shape == (1, 2)
    assert not facula.jit.is_scripting()
    with pytest.raises(NotImplementedError):
        facula.jit.save(layer, "file")


def test_special_functions_by_loops():
    x, q = facula.tensor([0.5, 2.0, 30.0, 5.0, 0.0]), facula.tensor([0.3, 5.0, 20.0, 5.0, 1.0])
    for name in ("gammainc", "gammaincc"):
        want = getattr(torch.special, name)(
            torch.from_numpy(x.numpy()), torch.from_numpy(q.numpy())
        )
        got = getattr(facula.special, name)(x, q)
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=2e-5, atol=1e-7)
    z = facula.special.zeta(facula.tensor([2.0, 3.5]), 1.0)
    np.testing.assert_allclose(z.numpy(), [np.pi**2 / 6, 1.1267338673], rtol=1e-6)
    n = facula.tensor([0, 1, 2, 7])
    for name in facula.tensor.series.SPECIAL:
        if "polynomial" not in name:
            continue
        want = getattr(torch.special, name)(torch.tensor(0.3), torch.tensor([0, 1, 2, 7]))
        got = getattr(facula.special, name)(facula.tensor(0.3), n)
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def test_memory_seen_as_another_dtype():
    x = RNG.standard_normal((2, 4)).astype("f4")
    ours, theirs = facula.tensor(x), torch.tensor(x)
    for name in ("int32", "uint8", "float64", "int16"):
        got = ours.view(getattr(facula, name))
        want = theirs.view(getattr(torch, name))
        assert tuple(got.shape) == tuple(want.shape) and got.stride() == want.stride()
        np.testing.assert_array_equal(got.numpy(), want.numpy())
    ours.view(facula.int32)[0, 0] = 0
    assert ours[0, 0] == 0 and ours.view(8).shape == (8,) and ours.view(-1, 2).shape == (4, 2)
    with pytest.raises(RuntimeError):
        facula.zeros(3).view(facula.float64)
    with pytest.raises(RuntimeError):
        ours.t().view(facula.uint8)
