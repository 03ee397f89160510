"""Pickles and archives that nobody writes by accident."""

from __future__ import annotations

import io
import pickle
import struct

from facula.serialization import load
from facula.serialization._archive import ArchiveWriter


def archive(pickled: bytes, **records: bytes) -> bytes:
    """An archive of this pickle; ``d0=...`` is the record ``data/0``."""
    out = io.BytesIO()
    writer = ArchiveWriter(out)
    writer.add("data.pkl", pickled)
    for name, data in records.items():
        writer.add(f"data/{name[1:]}" if name[0] == "d" else name, data)
    writer.close()
    return out.getvalue()


def load_bytes(data: bytes):
    return load(io.BytesIO(data))


def text(value: str) -> bytes:
    data = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def glob(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def tup(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def storage(name="FloatStorage", key="0", location="cpu", numel=4) -> bytes:
    items = text("storage"), glob("torch", name), text(key), text(location), number(numel)
    return tup(*items) + pickle.BINPERSID


def tensor(stored=None, offset=0, size=(4,), stride=(1,), grad=pickle.NEWFALSE) -> bytes:
    dims = tup(*map(number, size)), tup(*map(number, stride))
    args = tup(stored or storage(), number(offset), *dims, grad, pickle.EMPTY_DICT)
    return glob("torch._utils", "_rebuild_tensor_v2") + args + pickle.REDUCE


def program(*pieces: bytes) -> bytes:
    return b"\x80\x02" + b"".join(pieces) + pickle.STOP
