"""Files that lie: typed errors, no code, no memory beyond the file's own size, no crash."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import random
import struct
import zipfile

import pytest

from facula.base.errors import FaculaError
from facula.serialization import ArchiveError, UnpicklingError, load, save
from facula.tensor import arange, ones
from tests.serialization.hostile import (
    archive,
    glob,
    load_bytes,
    number,
    program,
    storage,
    tensor,
    text,
    tup,
)

SIXTEEN = struct.pack("<4f", 1, 2, 3, 4)


def test_the_helpers_write_what_loads():
    got = load_bytes(archive(program(tensor()), d0=SIXTEEN))
    assert got.tolist() == [1, 2, 3, 4]


# -- code -----------------------------------------------------------------------------------------

RUNS = {
    "os.system": glob("os", "system") + tup(text("touch /tmp/owned")) + pickle.REDUCE,
    "posix": glob("posix", "system") + tup(text("true")) + pickle.REDUCE,
    "eval": glob("builtins", "eval") + tup(text("1")) + pickle.REDUCE,
    "python 2's eval": glob("__builtin__", "eval") + tup(text("1")) + pickle.REDUCE,
    "getattr": glob("builtins", "getattr") + pickle.EMPTY_TUPLE + pickle.REDUCE,
    "stack global": text("os") + text("system") + pickle.STACK_GLOBAL,
    "dotted": glob("collections", "OrderedDict.fromkeys"),
    "inst": pickle.MARK + text("true") + b"ios\nsystem\n",
    "obj": pickle.MARK + glob("collections", "OrderedDict") + pickle.OBJ,
    "extension": pickle.EXT1 + b"\x01",
    "text persistent id": b"Pabc\n",
    "newobj": glob("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.NEWOBJ,
    "newobj of Tensor": glob("torch", "Tensor") + pickle.EMPTY_TUPLE + pickle.NEWOBJ,
    "call of Tensor": glob("torch", "Tensor") + tup(number(10**12)) + pickle.REDUCE,
    "call of a result": tensor() + pickle.EMPTY_TUPLE + pickle.REDUCE,
    "call of a dtype": glob("torch", "float32") + pickle.EMPTY_TUPLE + pickle.REDUCE,
    "call of text": text("abc") + pickle.EMPTY_TUPLE + pickle.REDUCE,
    "call without tuple": glob("builtins", "set") + number(3) + pickle.REDUCE,
    "facula's own": glob("facula.serialization", "load") + tup(text("x")) + pickle.REDUCE,
    "state of a function": glob("torch._utils", "_rebuild_tensor_v2")
    + (pickle.EMPTY_DICT + text("__defaults__") + pickle.NONE + pickle.SETITEM + pickle.BUILD),
    "state of a class": glob("torch", "Tensor")
    + (pickle.EMPTY_DICT + text("add") + pickle.NONE + pickle.SETITEM + pickle.BUILD),
    "state that hides a method": glob("collections", "OrderedDict")
    + (pickle.EMPTY_TUPLE + pickle.REDUCE + pickle.EMPTY_DICT + text("items") + pickle.NONE)
    + (pickle.SETITEM + pickle.BUILD),
    "items of a class": glob("torch", "Tensor") + text("a") + number(1) + pickle.SETITEM,
    "append to a dict": pickle.EMPTY_DICT + number(1) + pickle.APPEND,
    "elements of a list": pickle.EMPTY_LIST + pickle.MARK + number(1) + pickle.ADDITEMS,
}


@pytest.mark.parametrize("name", RUNS)
def test_no_code_runs(name):
    with pytest.raises(UnpicklingError):
        load_bytes(archive(program(RUNS[name]), d0=SIXTEEN))
    assert not os.path.exists("/tmp/owned")


def test_the_error_says_how_to_allow_or_that_it_cannot_be():
    with pytest.raises(UnpicklingError, match=r"global os\.system.*add_safe_globals"):
        load_bytes(archive(program(RUNS["os.system"])))
    with pytest.raises(UnpicklingError, match=r"torch\.complex64.*no counterpart"):
        load_bytes(archive(program(glob("torch", "complex64"))))


# -- layouts out of bounds ------------------------------------------------------------------------

LAYOUTS = {
    "too long": tensor(size=(5,)),
    "offset": tensor(offset=1),
    "offset overflow": tensor(offset=2**63 - 1),
    "huge offset": tensor(offset=2**64),
    "negative offset": tensor(offset=-1),
    "negative size": tensor(size=(-1,)),
    "negative stride": tensor(offset=3, stride=(-1,)),
    "stride": tensor(size=(2, 2), stride=(3, 1)),
    "stride overflow": tensor(size=(3,), stride=(2**62,)),
    "numel overflow": tensor(size=(2**40, 2**40), stride=(0, 0)),
    "ranks differ": tensor(size=(2, 2), stride=(1,)),
    "rank": tensor(size=(1,) * 1000, stride=(1,) * 1000),
    "no ints": tensor().replace(number(4), pickle.BINFLOAT + struct.pack(">d", 4.0)),
    "no storage": tensor(stored=number(5)),
    "storage larger than record": tensor(storage(numel=5)),
    "storage smaller than record": tensor(storage(numel=3), size=(3,)),
    "huge storage": tensor(storage(numel=2**61)),
    "negative storage": tensor(storage(numel=-4)),
    "another width": tensor(storage("DoubleStorage")),
    "no such record": tensor(storage(key="1")),
    "a path for a key": tensor(storage(key="../data.pkl")),
    "two sizes of one storage": tup(tensor(), tensor(storage("DoubleStorage", numel=4))),
    "not a storage class": tup(text("storage"), number(1), text("0"), text("cpu"), number(4))
    + pickle.BINPERSID,
    "another kind of id": tup(text("module"), number(1)) + pickle.BINPERSID,
    "grad of ints": tensor(storage("IntStorage"), grad=pickle.NEWTRUE),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_view_out_of_bounds(name):
    with pytest.raises(FaculaError):
        load_bytes(archive(program(LAYOUTS[name]), d0=SIXTEEN))


def test_expanded_tensors_may_be_larger_than_their_storage():
    data = archive(program(tensor(size=(1000, 4), stride=(0, 1))), d0=SIXTEEN)
    assert tuple(load_bytes(data).shape) == (1000, 4)


# -- resources ------------------------------------------------------------------------------------


def _nested(depth: int) -> bytes:
    return pickle.EMPTY_TUPLE + pickle.TUPLE1 * depth


BOMBS = {
    # The hash of a nested tuple recurses in C without a limit.
    "deep key": pickle.EMPTY_DICT + _nested(100_000) + number(1) + pickle.SETITEM,
    "deep element": pickle.EMPTY_SET + pickle.MARK + _nested(100_000) + pickle.ADDITEMS,
    "deep item": glob("builtins", "set")
    + (pickle.EMPTY_LIST + _nested(100_000) + pickle.APPEND + pickle.TUPLE1 + pickle.REDUCE),
    # A tuple of itself twice, sixty times over: 2**60 steps to hash.
    "wide key": pickle.EMPTY_DICT
    + (pickle.EMPTY_TUPLE + (pickle.DUP + pickle.TUPLE2) * 60 + number(1) + pickle.SETITEM),
    "bytearray of a length": glob("builtins", "bytearray") + tup(number(10**13)) + pickle.REDUCE,
    "long text": pickle.BINUNICODE8 + struct.pack("<Q", 2**62),
    "long bytes": pickle.BINBYTES8 + struct.pack("<Q", 2**63 - 1),
    "long number": pickle.LONG4 + struct.pack("<I", 2**32 - 1),
    "negative number": pickle.LONG4 + struct.pack("<i", -5),
    "far memo": pickle.LONG_BINGET + struct.pack("<I", 2**32 - 1),
    "no mark": pickle.EMPTY_LIST * 100 + pickle.TUPLE,
    "empty stack": pickle.TUPLE3,
    "line without end": pickle.GLOBAL + b"a" * 5000,
    "unhashable key": pickle.EMPTY_DICT + pickle.EMPTY_LIST + number(1) + pickle.SETITEM,
    "odd items": pickle.EMPTY_DICT + pickle.MARK + number(1) + pickle.SETITEMS,
    "protocol": b"\x80\x63",
    "not text": pickle.BINUNICODE + struct.pack("<I", 1) + b"\xff",
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_bomb_goes_off(name):
    with pytest.raises(UnpicklingError):
        load_bytes(archive(program(BOMBS[name])))


def test_a_distant_memo_costs_nothing():
    pickled = number(7) + pickle.LONG_BINPUT + struct.pack("<I", 2**32 - 1)
    assert load_bytes(archive(program(pickled))) == 7


# -- the container --------------------------------------------------------------------------------


def _zip(entries, method=zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, data in entries:
            file.writestr(name, data)
    return out.getvalue()


def test_compressed_records_are_refused():
    data = _zip([("archive/data.pkl", b"\0" * 10_000_000)], zipfile.ZIP_DEFLATED)
    with pytest.raises(ArchiveError, match="compressed"):
        load_bytes(data)


def test_records_must_not_overlap():
    data = archive(program(tensor(), pickle.POP, tensor(storage(key="1"))), d0=SIXTEEN, d1=SIXTEEN)
    # The directory's entry of data/1 is made to point at data/0, name and all.
    first, second = data.rindex(b"archive/data/0"), data.rindex(b"archive/data/1")
    changed = bytearray(data)
    changed[second - 46 : second + 14] = data[first - 46 : first + 14]
    with pytest.raises(ArchiveError, match="overlaps|two records"):
        load_bytes(bytes(changed))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "nothing to read"),
        (b"hello, world", "not a file"),
        (pickle.dumps([1, 2]), "plain pickle"),
        (b"PK\x03\x04 and then nothing", "damaged or cut short"),
        (_zip([("archive/readme", b"")]), "lacks the record 'data.pkl'"),
        (_zip([("a/constants.pkl", b""), ("a/data.pkl", b"")]), "TorchScript"),
        (_zip([("a/data.pkl", b"N."), ("a/byteorder", b"middle")]), "byte order"),
        (struct.pack("<Q", 2) + b"{}", "safetensors"),
    ],
)
def test_other_files_are_told_apart(data, words):
    with pytest.raises(ArchiveError, match=words):
        load_bytes(data)


def _sample() -> bytes:
    out = io.BytesIO()
    save({"a": arange(40.0).reshape(5, 8), "b": [ones(3), "text", (1, 2.5)], "c": arange(7)}, out)
    return out.getvalue()


def test_every_truncation(tmp_path):
    data = _sample()
    for end in [*range(0, len(data), 7), len(data) - 1]:
        with pytest.raises(FaculaError):
            load_bytes(data[:end])


def _load_or_typed_error(file, **kwargs):
    """Loading may succeed, or fail as it should."""
    with contextlib.suppress(FaculaError):
        load(file, **kwargs)


def test_flipped_bytes(tmp_path):
    data, seed = _sample(), 2026
    rng = random.Random(seed)
    path = tmp_path / "flipped.pt"
    for trial in range(600):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8))):
            changed[rng.randrange(len(data))] = rng.randrange(256)
        try:
            _load_or_typed_error(io.BytesIO(changed))
            if trial % 8 == 0:
                path.write_bytes(changed)
                _load_or_typed_error(path, mmap=True)
        except Exception as error:
            pytest.fail(f"seed {seed}, trial {trial}: {error!r}")


def test_damaged_weights_do_not_load():
    data = bytearray(_sample())
    data[data.index(struct.pack("<4f", 8, 9, 10, 11))] ^= 1
    with pytest.raises(ArchiveError, match="checksum"):
        load_bytes(bytes(data))


def test_mutated_pickles():
    pieces = (*RUNS.values(), *LAYOUTS.values(), tensor(), tup(number(1), text("a")))
    seed = 7
    rng = random.Random(seed)
    for trial in range(1500):
        pickled = bytearray(b"".join(rng.choices(pieces, k=rng.randrange(1, 4))))
        for _ in range(rng.randrange(6)):
            pickled[rng.randrange(len(pickled))] = rng.randrange(256)
        data = archive(program(bytes(pickled)), d0=SIXTEEN)
        try:
            _load_or_typed_error(io.BytesIO(data))
        except Exception as error:
            pytest.fail(f"seed {seed}, trial {trial}: {error!r} from {bytes(pickled)!r}")
