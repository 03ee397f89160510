"""Files that cross between Facula and PyTorch, both ways."""

from __future__ import annotations

import io
from collections import OrderedDict

import pytest

from facula.base import dtypes
from facula.nn.parameter import Parameter
from facula.serialization import UnpicklingError, load, save
from facula.tensor import arange, frombuffer, ones, zeros
from facula.tensor.pickling import storage_over, tensor_over

pytestmark = pytest.mark.conformance
torch = pytest.importorskip("torch")


def to_torch(obj, weights_only=True, **kwargs):
    file = io.BytesIO()
    save(obj, file)
    file.seek(0)
    return torch.load(file, weights_only=weights_only, **kwargs)


def from_torch(obj, **kwargs):
    file = io.BytesIO()
    torch.save(obj, file, **kwargs)
    file.seek(0)
    return load(file)


@pytest.mark.parametrize("weights_only", [True, False])
def test_torch_reads_ours(weights_only, tmp_path):
    x = arange(12.0).reshape(3, 4)
    state = OrderedDict((d.name, arange(4).to(d)) for d in dtypes.ALL)
    state._metadata = {"": {"version": 1}}
    obj = {
        "state": state,
        "t": x.t(),
        "row": x[1],
        "every other": x[:, ::2],
        "param": Parameter(ones(2)),
        "grad": zeros(1).requires_grad_(),
        "empty": zeros(0, 3),
        "dtype": dtypes.bfloat16,
        "device": x.device,
        "size": x.shape,
        "plain": [1, 2.5, None, True, "text", (1, 2), {3}, 2**70],
    }
    got = to_torch(obj, weights_only)
    for d in dtypes.ALL:
        assert got["state"][d.name].dtype is getattr(torch, d.name)
        assert got["state"][d.name].tolist() == state[d.name].tolist()
    assert type(got["state"]) is OrderedDict and got["state"]._metadata == state._metadata
    for name in ("t", "row", "every other", "empty"):
        assert got[name].tolist() == obj[name].tolist()
        assert got[name].stride() == tuple(obj[name].stride())
    got["t"][0, 1] = 99
    assert got["row"][0] == 99  # one storage
    assert type(got["param"]) is torch.nn.Parameter and got["param"].requires_grad
    assert got["grad"].requires_grad and type(got["grad"]) is torch.Tensor
    assert got["dtype"] is torch.bfloat16 and got["device"] == torch.device("cpu")
    assert type(got["size"]) is torch.Size and got["size"] == (3, 4)
    assert got["plain"] == obj["plain"]
    path = tmp_path / "model.pt"
    save(obj, path)
    assert torch.load(path, mmap=True)["t"].tolist() == x.t().tolist()


def test_a_storage_with_bytes_left_over():
    x = frombuffer(bytearray(range(11)), dtype=dtypes.int16, count=5)
    odd = tensor_over("test", storage_over(bytearray(range(11))), dtypes.int16, 0, (5,), (1,))
    assert to_torch(odd).tolist() == x.tolist()
    file = io.BytesIO()
    save(odd, file)
    file.seek(0)
    assert load(file).tolist() == x.tolist()


def test_two_dtypes_on_one_storage():
    x = arange(4).to(dtypes.float32)
    bits = tensor_over("test", x._storage, dtypes.int32, 0, (4,), (1,))
    got = to_torch([x, bits])
    assert got[0].view(torch.int32).tolist() == got[1].tolist()
    file = io.BytesIO()
    save([x, bits], file)
    file.seek(0)
    x, again = load(file)
    assert again.tolist() == bits.tolist() and again.data_ptr() == x.data_ptr()


@pytest.mark.parametrize("zipped", [True, False])
def test_we_read_torchs(zipped):
    x = torch.arange(12.0).reshape(3, 4)
    names = [d.name for d in dtypes.ALL]
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    obj = {
        "state": model.state_dict(),
        "dtypes": {name: torch.arange(4).to(getattr(torch, name)) for name in names},
        "views": [x.t(), x[1], x[:, ::2], torch.zeros(0, 3), x[0].expand(3, 4)],
        "param": model[0].weight,
        "optim": torch.optim.Adam(model.parameters()).state_dict(),
        "plain": [1, 2.5, None, True, "text", (1, 2), {3}, 2**70, b"bytes"],
        "names": [torch.bfloat16, torch.device("cpu"), torch.Size([2])],
    }
    got = from_torch(obj, _use_new_zipfile_serialization=zipped)
    for name, tensor in obj["state"].items():
        assert got["state"][name].tolist() == tensor.tolist()
    assert got["state"]._metadata == obj["state"]._metadata
    for name, tensor in obj["dtypes"].items():
        assert got["dtypes"][name].dtype.name == name
        assert got["dtypes"][name].tolist() == tensor.tolist()
    for ours, theirs in zip(got["views"], obj["views"]):
        assert ours.tolist() == theirs.tolist() and tuple(ours.stride()) == theirs.stride()
    got["views"][0][0, 1] = 99.0
    assert got["views"][1][0].item() == 99.0
    assert type(got["param"]) is Parameter and got["param"].requires_grad
    assert got["optim"] == obj["optim"] and got["plain"] == obj["plain"]
    assert got["names"] == [dtypes.bfloat16, ones(1).device, (2,)]


def test_checksums_switched_off():
    torch.serialization.set_crc32_options(False)
    try:
        assert from_torch(torch.ones(3)).tolist() == [1, 1, 1]
    finally:
        torch.serialization.set_crc32_options(True)


def test_attributes_on_a_parameter():
    p = torch.nn.Parameter(torch.ones(2))
    p.note = "kept"
    assert from_torch(p).note == "kept"


def test_big_endian(tmp_path):
    x = {"a": torch.arange(5), "b": torch.ones(3, dtype=torch.bfloat16)}
    with torch.serialization.safe_globals([]):
        file = io.BytesIO()
        torch.save(x, file)
    # As a big-endian machine writes it: the storages' bytes turned, and the record that says so.
    from facula.serialization._archive import ArchiveReader, ArchiveWriter

    reader, out = ArchiveReader(file), io.BytesIO()
    writer = ArchiveWriter(out)
    for name in reader.records:
        data = reader.read(name)
        width = {"data/0": 8, "data/1": 2}.get(name)
        if width:
            data = b"".join(data[i : i + width][::-1] for i in range(0, len(data), width))
        writer.add(name, b"big" if name == "byteorder" else data)
    writer.close()
    out.seek(0)
    got = load(out)
    assert got["a"].tolist() == [0, 1, 2, 3, 4] and got["b"].tolist() == [1, 1, 1]
    out.seek(0)
    assert torch.load(out)["a"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (torch.zeros(2, dtype=torch.complex64), "no counterpart"),
        (torch.zeros(2, dtype=torch.uint16), "no counterpart"),
        (torch.eye(2).to_sparse(), "no counterpart"),
        (torch.nn.Linear(2, 2), "Linear.*allow list"),
    ],
    ids=["complex", "uint16", "sparse", "module"],
)
def test_what_facula_lacks_is_named(obj, words):
    with pytest.raises(UnpicklingError, match=words):
        from_torch(obj)
