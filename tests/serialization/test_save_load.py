"""Objects through a file and back, without PyTorch: values, sharing, paths, failures to write."""

from __future__ import annotations

import copy
import io
import os
import pickle
import stat
import struct
import zipfile
from collections import Counter, OrderedDict

import pytest

from facula import nn
from facula.base import dtypes
from facula.base.device import device
from facula.eager.meta import Size
from facula.nn.parameter import Buffer, Parameter
from facula.serialization import (
    UnpicklingError,
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
    load,
    safe_globals,
    save,
)
from facula.tensor import Tensor, arange, empty, ones, zeros


def through(obj, **kwargs):
    file = io.BytesIO()
    save(obj, file)
    file.seek(0)
    return load(file, **kwargs)


def numbers(dtype):
    return arange(12).reshape(3, 4).to(dtype)


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=lambda d: d.name)
def test_every_dtype(dtype):
    x = numbers(dtype)
    y = through(x)
    assert type(y) is Tensor and y.dtype is dtype and tuple(y.shape) == (3, 4)
    assert y.tolist() == x.tolist() and not y.requires_grad and y.is_leaf


def test_layouts():
    x = arange(24.0).reshape(2, 3, 4)
    views = (x.permute(2, 0, 1), x[:, 1], x[..., ::2], x[1, 2, 3], x[:, :0])
    for view in (*views, x[0].expand(5, 3, 4)):
        y = through(view)
        assert y.tolist() == view.tolist()
        assert tuple(y.stride()) == tuple(view.stride())
        assert y.storage_offset() == view.storage_offset() or view.numel() == 0
    assert through(zeros(0, 3)).tolist() == zeros(0, 3).tolist()


def test_sharing_is_kept_through_file_and_memory():
    x = arange(10.0)
    first, second, other = through([x[2:5], x[3:8], x.clone()])
    first[1] = 100.0
    assert second[0].item() == 100.0 and other[3].item() == 3.0
    assert first.storage_offset() == 2
    tied = ones(2)
    a, b = through((tied, tied))
    assert a is b


def test_requires_grad_and_parameters():
    x = zeros(2).requires_grad_()
    p = Parameter(ones(2, 2))
    frozen = Parameter(ones(1), requires_grad=False)
    got = through({"x": x, "p": p, "frozen": frozen, "b": Buffer(ones(3), persistent=False)})
    assert got["x"].requires_grad and type(got["x"]) is Tensor
    assert type(got["p"]) is Parameter and got["p"].requires_grad and got["p"].is_leaf
    assert type(got["frozen"]) is Parameter and not got["frozen"].requires_grad
    assert type(got["b"]) is Buffer and got["b"].persistent is False


def test_containers_and_scalars():
    state = OrderedDict(weight=ones(2), bias=zeros(1))
    state._metadata = OrderedDict({"": {"version": 1}})
    got = through(state)
    assert type(got) is OrderedDict and list(got) == ["weight", "bias"]
    assert got._metadata == state._metadata
    plain = {
        "numbers": [1, -(2**70), 1.5, float("inf"), True, None, 3 + 4j],
        "text": ("a", "\u4e2d", "\ud800", b"\x00\xff", bytearray(b"xy")),
        "sets": [{1, 2}, frozenset({(1, "a")}), Counter("aab")],
        (1, 2): {"nested": [[], {}, ()]},
        "long": list(range(3000)),
    }
    assert through(plain) == plain
    names = [dtypes.float32, dtypes.bool_, dtypes.bfloat16, device("cpu")]
    got = through(names)
    assert got == names and got[2] is dtypes.bfloat16
    size = through(zeros(2, 3).shape)
    assert type(size) is Size and size == (2, 3)
    cycle = []
    cycle.append(cycle)
    got = through(cycle)
    assert got[0] is got


def test_paths(tmp_path):
    path = tmp_path / "model.pt"
    save({"a": ones(3)}, path)
    assert load(str(path))["a"].tolist() == [1, 1, 1]
    with open(path, "rb") as file:
        assert load(file)["a"].tolist() == [1, 1, 1]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {"archive/data.pkl", "archive/data/0", "archive/version"} <= set(archive.namelist())
        for info in archive.infolist():
            with open(path, "rb") as file:
                file.seek(info.header_offset)
                header = file.read(30)
            lengths = struct.unpack("<2H", header[26:])
            assert (info.header_offset + 30 + sum(lengths)) % 64 == 0


def test_the_same_object_gives_the_same_bytes():
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        save({"a": arange(5), "b": "text"}, file)
    assert files[0].getvalue() == files[1].getvalue()


def test_a_failed_save_leaves_the_former_file(tmp_path):
    path = tmp_path / "model.pt"
    save("former", path)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save([ones(1000), lambda: None], path)

    class Stops:
        def __reduce__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save([Stops()], path)
    assert load(path) == "former" and os.listdir(tmp_path) == ["model.pt"]


def test_replacing_keeps_links_and_modes(tmp_path):
    path, link = tmp_path / "real.pt", tmp_path / "link.pt"
    save(1, path)
    os.chmod(path, 0o640)
    link.symlink_to(path)
    save(2, link)
    assert link.is_symlink() and load(path) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    save(3, os.devnull)
    with pytest.raises(FileNotFoundError):
        save(4, tmp_path / "nowhere" / "model.pt")


def test_streams_that_only_write():
    class Pipe:
        def __init__(self):
            self.data = bytearray()

        def write(self, piece):
            # A raw file may take less than it is given.
            self.data += piece[:1000]
            return len(piece[:1000])

    pipe = Pipe()
    save(arange(2000), pipe)
    assert load(io.BytesIO(pipe.data)).tolist() == list(range(2000))


def test_mmap(tmp_path):
    path = tmp_path / "model.pt"
    save({"a": arange(1000.0), "e": empty(0)}, path)
    before = path.read_bytes()
    mapped = load(path, mmap=True)
    assert mapped["a"].tolist() == list(range(1000))
    mapped["a"][0] = 5.0
    assert mapped["a"][0].item() == 5.0 and path.read_bytes() == before
    save("another", path)  # the old pages stay with the tensor
    assert mapped["a"][999].item() == 999.0
    with pytest.raises(ValueError, match="path"):
        load(io.BytesIO(before), mmap=True)


def test_wrong_arguments():
    for call in (lambda: save(1, 5), lambda: load(5), lambda: load(io.StringIO("text"))):
        with pytest.raises(TypeError, match="expected"):
            call()
    with pytest.raises(ValueError, match="protocol"):
        save(1, io.BytesIO(), pickle_protocol=4)
    with pytest.raises(FileNotFoundError):
        load("/no/such/file.pt")


def test_map_location():
    file = io.BytesIO()
    save(ones(2), file)
    cpu, cuda = b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:0"
    # The file as a machine with a GPU would have written it.
    moved = _with_pickle(file.getvalue(), lambda pickled: pickled.replace(cpu, cuda))
    with pytest.raises(RuntimeError, match="map_location='cpu'"):
        load(io.BytesIO(moved))
    for where in ("cpu", device("cpu"), {"cuda:0": "cpu"}, lambda storage, location: storage):
        assert load(io.BytesIO(moved), map_location=where).tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="cuda:0"):
        load(io.BytesIO(moved), map_location=lambda storage, location: None)
    with pytest.raises(TypeError):
        load(io.BytesIO(moved), map_location=5)


def _with_pickle(data, change):
    """The archive with another pickle in it."""
    from facula.serialization._archive import ArchiveReader, ArchiveWriter

    reader, out = ArchiveReader(io.BytesIO(data)), io.BytesIO()
    writer = ArchiveWriter(out)
    for name in reader.records:
        record = reader.read(name)
        writer.add(name, change(record) if name == "data.pkl" else record)
    writer.close()
    return out.getvalue()


# -- plain pickles --------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickle(protocol):
    x = arange(24.0).reshape(2, 3, 4)
    for tensor in (x, x.permute(2, 0, 1), x[..., ::2], x[:, :0], x[0].expand(5, 3, 4)):
        assert pickle.loads(pickle.dumps(tensor, protocol)).tolist() == tensor.tolist()
    p = pickle.loads(pickle.dumps(Parameter(ones(2)), protocol))
    assert type(p) is Parameter and p.requires_grad
    assert len(pickle.dumps(zeros(100_000)[:3], protocol)) < 1000


def test_out_of_band_pickle_makes_no_copy():
    x = arange(1000)
    buffers = []
    data = pickle.dumps(x, protocol=5, buffer_callback=buffers.append)
    y = pickle.loads(data, buffers=buffers)
    assert len(data) < 400 and y.data_ptr() == x.data_ptr()
    fixed = pickle.loads(data, buffers=[bytes(b.raw()) for b in buffers])
    assert fixed.tolist() == x.tolist()
    fixed[0] = 5


# -- what may be named ----------------------------------------------------------------------------


class Settings:
    def __init__(self, rate):
        self.rate = rate

    def __eq__(self, other):
        return self.rate == other.rate


class Slotted:
    __slots__ = ("a",)


class WithState(Settings):
    def __setstate__(self, state):
        self.rate = state["rate"] * 2


@pytest.fixture
def empty_list():
    clear_safe_globals()
    yield
    clear_safe_globals()


def test_the_users_list(empty_list):
    file = io.BytesIO()
    save({"s": Settings(0.1)}, file)

    def again():
        file.seek(0)
        return load(file)

    with pytest.raises(UnpicklingError, match=r"Settings.*add_safe_globals\(\[Settings\]\)"):
        again()
    with safe_globals([Settings]):
        assert again() == {"s": Settings(0.1)}
    with pytest.raises(UnpicklingError):
        again()
    add_safe_globals([Settings])
    assert get_safe_globals() == [Settings] and again() == {"s": Settings(0.1)}
    clear_safe_globals()
    add_safe_globals([(Settings, f"{__name__}.Settings")])
    assert again() == {"s": Settings(0.1)}
    with pytest.raises(TypeError):
        add_safe_globals(["os.system"])


def test_objects_with_state(empty_list):
    slotted = Slotted()
    slotted.a = ones(2)
    with safe_globals([Slotted, WithState]):
        assert through(slotted).a.tolist() == [1, 1]
        assert through(WithState(3)).rate == 6


def test_a_whole_module(empty_list):
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    file = io.BytesIO()
    save(model, file)
    file.seek(0)
    with pytest.raises(UnpicklingError, match="Sequential"):
        load(file)
    file.seek(0)
    with safe_globals([nn.Sequential, nn.Linear, nn.ReLU]):
        again = load(file)
    assert again(ones(1, 2)).tolist() == model(ones(1, 2)).tolist()
    fresh = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    fresh.load_state_dict(through(model.state_dict()))
    assert fresh(ones(1, 2)).tolist() == model(ones(1, 2)).tolist()


def test_copies():
    p = Parameter(ones(2))
    assert type(copy.deepcopy(p)) is Parameter
