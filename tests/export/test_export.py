"""Exported programs: captured with sizes that may change, saved, loaded, called."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import nn
from facula.base.errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError
from facula.eager.capture import CaptureError
from facula.export import Dim, ExportError, export, load


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = nn.functional.relu(self.norm(self.conv(x)))
        return self.head(self.drop(x.mean((2, 3))))


def same(a, b):
    np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


@pytest.fixture(params=["folder", "model.facula", "model.zip"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_a_module_comes_back_from_a_file(path):
    model = Net().train()
    x = facula.rand(2, 2, 5, 5)
    program = export(model, (x,), dynamic_shapes={"x": {0: "batch"}})
    assert model.training and model.drop.training, "the module's mode is its own"
    assert program.inputs[0].shape == (None, 2, 5, 5)
    assert program.outputs[0].dims == ("batch", 3)
    assert set(program.state_dict) <= set(model.state_dict())
    program.save(path)
    again = load(path)
    model.eval()
    for n in (1, 2, 7, 0):
        x = facula.rand(n, 2, 5, 5)
        same(program(x), model(x))
        same(again(x), model(x))
    assert [repr(s) for s in again.inputs] == [repr(s) for s in program.inputs]


def test_every_size_may_change(path):
    def f(x, y):
        return (x.unsqueeze(1) * y).sum(0).softmax(-1), x.flatten() * 2

    x, y = facula.rand(3, 4), facula.rand(3, 5, 4)
    shapes = ((Dim("a"), Dim("b")), (Dim("a"), True, Dim("b")))
    program = export(f, (x, y), dynamic_shapes=shapes)
    program.save(path)
    for p in (program, load(path)):
        for a, b, c in ((3, 4, 5), (1, 1, 1), (2, 9, 3)):
            x, y = facula.rand(a, b), facula.rand(a, c, b)
            for got, want in zip(p(x, y), f(x, y)):
                same(got, want)
    with pytest.raises(ShapeError, match="'y'"):
        program(facula.rand(3, 4), facula.rand(4, 5, 4))


def test_structures_are_kept(path):
    def f(pair, *, more, flag):
        a, b = pair
        return {"sum": a + b, "list": [a * more["x"], "text", None], "flag": flag}

    a = facula.rand(3)
    program = export(f, ((a, a),), {"more": {"x": a}, "flag": True})
    program.save(path)
    for p in (program, load(path)):
        b = facula.rand(3)
        got = p((a, b), more={"x": b}, flag=True)
        same(got["sum"], a + b)
        same(got["list"][0], a * b)
        assert got["list"][1:] == ["text", None] and got["flag"] is True
        with pytest.raises(ArgumentTypeError):
            p((a, b), more={"x": b}, flag=False)
        with pytest.raises(ArgumentTypeError):
            p((a,), more={"x": b}, flag=True)
        with pytest.raises(ArgumentTypeError):
            p((a, b), flag=True)


def test_outputs_may_repeat_and_may_be_inputs(path):
    weight = facula.rand(3)

    def f(x):
        y = x + 1
        return y, y, x, weight, y.unsqueeze(0), facula.ones(2)

    x = facula.rand(3)
    export(f, (x,)).save(path)
    results = load(path)(x)
    for got, want in zip(results, f(x)):
        same(got, want)
    assert results[2].data_ptr() != x.data_ptr()


def test_inputs_need_not_be_contiguous():
    program = export(lambda x: x @ x, (facula.rand(4, 4),))
    x = facula.rand(4, 4)
    same(program(x.t()), x.t().contiguous() @ x.t().contiguous())


def test_other_inputs_are_refused():
    program = export(lambda x: x * 2, (facula.rand(2, 3),), dynamic_shapes=({0: "n"},))
    with pytest.raises(DtypeError, match="float64"):
        program(facula.rand(2, 3, dtype=facula.float64))
    with pytest.raises(ShapeError, match=r"expected \[n, 3\]"):
        program(facula.rand(2, 4))
    with pytest.raises(ShapeError):
        program(facula.rand(3))
    with pytest.raises(ArgumentTypeError):
        program()
    with pytest.raises(ArgumentTypeError):
        program(facula.rand(2, 3), y=1)


def test_sizes_for_which_the_capture_does_not_hold_are_refused():
    program = export(lambda x: x[:, :4] if x.shape[1] > 4 else x, (facula.rand(2, 6),),
                     dynamic_shapes=({1: Dim("width", max=10)},))  # fmt: skip
    assert program(facula.rand(2, 9)).shape == (2, 4)
    for width in (3, 11):
        with pytest.raises(ShapeError, match="width"):
            program(facula.rand(2, width))


def test_what_cannot_be_exported_says_why():
    x = facula.rand(3)
    counter = facula.zeros(1)

    def counting(x):
        counter.add_(1)
        return x * counter

    with pytest.raises(ExportError, match="random"):
        export(lambda x: x + facula.randn(3), (x,))
    with pytest.raises(ExportError, match="changes"):
        export(counting, (x,))
    with pytest.raises(ExportError, match="no tensor"):
        export(lambda x: 3, (x,))
    with pytest.raises(CaptureError):
        export(lambda x: x if x.sum() > 0 else -x, (x,))
    with pytest.raises(ArgumentError, match="output names"):
        export(lambda x: x * 2, (x,), output_names=["a", "b"])
    with pytest.raises(ArgumentError):
        export(lambda x: x * 2, (x,), dynamic_shapes={"y": {0: "n"}})
    with pytest.raises(ArgumentError):
        export(lambda x, y: x + y, (x, facula.rand(1, 4)), dynamic_shapes=({0: "n"}, {1: "n"}))


def test_dtypes_are_kept(path):
    half = facula.rand(3).to(facula.bfloat16)

    def f(x, i, b):
        return x.to(facula.float16), i // 3, b & (i > 2), half.float() * x

    args = (facula.rand(3), facula.tensor([-7, 3, 5], dtype=facula.int32),
            facula.tensor([True, False, True]))  # fmt: skip
    export(f, args).save(path)
    for got, want in zip(load(path)(*args), f(*args)):
        assert got.dtype is want.dtype
        same(got, want)


def test_tied_weights_are_kept_once(path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    x = facula.rand(2, 3)
    program = export(model, (x,))
    assert len(program.state_dict) == 3
    program.save(path)
    same(load(path)(x), model(x))


def test_programs_run_on_many_threads():
    from concurrent.futures import ThreadPoolExecutor

    model = Net().eval()
    program = export(model, (facula.rand(2, 2, 5, 5),), dynamic_shapes=({0: "n"},))
    inputs = [facula.rand(1 + i % 5, 2, 5, 5) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for x, got in zip(inputs, pool.map(program, inputs)):
            same(got, model(x))


def test_padded_constants_are_padded_row_by_row():
    """A kernel for a moved constant reads no memory, and must know its rows all the same."""
    index = facula.tensor([[0, 1, 2], [6, 7, 8]])

    def f(index):
        return nn.functional.pad(facula.ones(3, 7), (1, 1))[:, index].sum(-1)

    same(export(f, (index,))(index), f(index))
