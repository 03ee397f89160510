"""Functionals that are written with tensor operations, against PyTorch's."""

from __future__ import annotations

import pytest

from facula.nn import composed, interpolation
from tests.nn.against import assert_close, assert_same_gradient, flat, to_facula, weighted_sum

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.conformance
F = torch.nn.functional


def assert_same(ours, theirs, inputs, tolerance=2e-5, **options):
    mine = to_facula(inputs)
    my_options = {key: to_facula(value) for key, value in options.items()}
    outputs, reference = ours(*mine, **my_options), theirs(*inputs, **options)
    assert_close(outputs, reference, tolerance)
    if reference.requires_grad:
        weighted_sum(outputs).backward()
        weighted_sum(reference).backward()
        for a, b in zip(flat(list(mine)), flat(list(inputs))):
            if hasattr(b, "grad"):
                assert_same_gradient(a, b, tolerance)


def scores(*shape):
    return torch.randn(*shape, requires_grad=True)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


SIZES = [
    ((1, 2, 5), {"size": 9}),
    ((1, 2, 5), {"scale_factor": 1.7}),
    ((1, 2, 7), {"scale_factor": 0.4, "recompute_scale_factor": True}),
    ((2, 2, 5, 6), {"size": (3, 11)}),
    ((2, 2, 5, 6), {"scale_factor": (2.0, 1.5)}),
    ((1, 1, 3, 4, 5), {"size": (6, 2, 7)}),
]
LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "area", "linear", "corners", "cubic"])
@pytest.mark.parametrize("shape, options", SIZES, ids=str)
def test_interpolate(shape, options, mode):
    if mode in ("linear", "corners"):
        options = {**options, "align_corners": mode == "corners"}
        mode = LINEAR[len(shape)]
    elif mode == "cubic":
        if len(shape) != 4:
            pytest.skip("bicubic is of images")
        mode = "bicubic"
    assert_same(interpolation.interpolate, F.interpolate, (scores(*shape),), mode=mode, **options)


@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize("name", ["upsample", "upsample_nearest", "upsample_bilinear"])
def test_former_names_of_interpolate(name):
    ours, theirs = getattr(interpolation, name), getattr(F, name)
    assert_same(ours, theirs, (scores(2, 3, 4, 5),), scale_factor=2)


def test_interpolate_errors():
    x = to_facula(torch.ones(1, 1, 4, 4))
    with pytest.raises(ValueError, match="only one of size or scale_factor"):
        interpolation.interpolate(x)
    with pytest.raises(ValueError, match="align_corners option"):
        interpolation.interpolate(x, 2, align_corners=True)
    with pytest.raises(NotImplementedError, match="hint"):
        interpolation.interpolate(x, 2, mode="linear")


@pytest.mark.parametrize(
    "options", [{}, {"padding": 1, "stride": 2}, {"dilation": (2, 1)}], ids=str
)
def test_unfold_and_fold(options):
    image = scores(2, 3, 5, 6)
    assert_same(composed.unfold, F.unfold, (image,), kernel_size=(2, 3), **options)
    columns = F.unfold(image, (2, 3), **options).detach().requires_grad_()
    assert_same(
        composed.fold, F.fold, (columns,), output_size=(5, 6), kernel_size=(2, 3), **options
    )


@pytest.mark.parametrize("rank, shape", [(1, (2, 3, 8)), (2, (2, 3, 4, 6)), (3, (1, 2, 4, 4, 6))])
def test_max_unpool(rank, shape):
    pooled, index = getattr(F, f"max_pool{rank}d")(torch.randn(shape), 2, return_indices=True)
    pooled.requires_grad_()
    name = f"max_unpool{rank}d"
    assert_same(getattr(composed, name), getattr(F, name), (pooled, index), kernel_size=2)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ctc_loss(reduction):
    x = scores(9, 3, 5)
    targets = torch.tensor([[1, 1, 2, 4], [3, 2, 1, 0], [4, 4, 4, 4]])
    lengths = torch.tensor([9, 7, 8]), torch.tensor([4, 3, 0])

    def loss(function):
        return lambda x, t, a, b: function(x.log_softmax(-1), t, a, b, reduction=reduction)

    assert_same(loss(composed.ctc_loss), loss(F.ctc_loss), (x, targets, *lengths))
    joined = torch.cat([row[:n] for row, n in zip(targets, lengths[1])])
    assert_same(loss(composed.ctc_loss), loss(F.ctc_loss), (scores(9, 3, 5), joined, *lengths))


def test_ctc_loss_of_the_impossible():
    x = torch.randn(2, 1, 3)
    inputs = (x.log_softmax(-1), torch.tensor([[1, 1]]), torch.tensor([2]), torch.tensor([2]))
    assert_same(composed.ctc_loss, F.ctc_loss, inputs)
    assert_same(composed.ctc_loss, F.ctc_loss, inputs, zero_infinity=True)


BAGS = [{"mode": "sum"}, {"mode": "mean"}, {"mode": "max"}, {"mode": "sum", "padding_idx": 2}]


@pytest.mark.parametrize("options", [*BAGS, {"mode": "max", "padding_idx": -1}], ids=str)
def test_embedding_bag(options):
    index = torch.tensor([[1, 2, 4], [2, 2, 2]])
    assert_same(composed.embedding_bag, F.embedding_bag, (index, scores(5, 3)), **options)
    inputs = (index.reshape(-1), scores(5, 3), torch.tensor([0, 4, 4]))
    assert_same(composed.embedding_bag, F.embedding_bag, inputs, **options)
    if options == {"mode": "sum"}:
        inputs = (inputs[0], scores(5, 3), torch.tensor([0, 4, 6]))
        options = {**options, "include_last_offset": True, "per_sample_weights": torch.randn(6)}
        assert_same(composed.embedding_bag, F.embedding_bag, inputs, **options)
