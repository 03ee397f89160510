"""The container: PyTorch's zip archive, of stored records aligned to 64 bytes.

A file is ``archive/data.pkl`` (the object, tensors as references), ``archive/data/N`` (the bytes
of storage N) and a few words about the format. Nothing is compressed, so every record can be
mapped, and the sizes in a directory can be held against the size of the file before a byte of
memory is asked for.
"""

from __future__ import annotations

import mmap
import os
import struct
import zipfile
import zlib
from typing import NamedTuple

from facula.serialization.errors import ArchiveError

ALIGNMENT = 64
_CHUNK = 1 << 20
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_MAX32, _MAX16 = 0xFFFFFFFF, 0xFFFF
_UTF8 = 1 << 11
#: 1 January 1980: the same object gives the same bytes at any time.
_DATE = 33


class ArchiveWriter:
    """Writes records one after another into a file; it need not be seekable."""

    def __init__(self, file, root: str = "archive"):
        self._file, self._root = file, root
        self._at = 0
        self._directory: list[bytes] = []

    def _write(self, data) -> None:
        data = memoryview(data).cast("B")
        self._at += len(data)
        while len(data):
            # A raw file may take less than it is given; None is from files that do not count.
            written = self._file.write(data)
            data = data[len(data) if written is None else written :]

    def add(self, name: str, data) -> None:
        """Write one record, its bytes beginning at a multiple of 64."""
        path = f"{self._root}/{name}".encode()
        data = memoryview(data).cast("B")
        size, crc, at = len(data), zlib.crc32(data), self._at
        wide = struct.pack("<2H2Q", 1, 16, size, size) if size >= _MAX32 else b""
        short = min(size, _MAX32)
        version = 45 if wide or at >= _MAX32 else 20
        # The padding is an extra field of its own, which has a header of four bytes.
        used = at + _LOCAL.size + len(path) + len(wide) + 4
        padding = -used % ALIGNMENT
        extra = wide + struct.pack("<2sH", b"FB", padding) + b"Z" * padding
        fields = (_UTF8, 0, 0, _DATE, crc, short, short, len(path))
        self._write(_LOCAL.pack(b"PK\3\4", version, *fields, len(extra)) + path + extra)
        self._write(data)
        far = b"" if at < _MAX32 else struct.pack("<Q", at)
        extra = wide[4:] + far
        if extra:
            extra = struct.pack("<2H", 1, len(extra)) + extra
        entry = _CENTRAL.pack(
            *(b"PK\1\2", version, version, *fields, len(extra)),
            *(0, 0, 0, 0, min(at, _MAX32)),
        )
        self._directory.append(entry + path + extra)

    def close(self) -> None:
        """Write the directory; the file itself stays open."""
        at, count = self._at, len(self._directory)
        directory = b"".join(self._directory)
        self._write(directory)
        size = len(directory)
        if at >= _MAX32 or count >= _MAX16 or size >= _MAX32:
            here = self._at
            self._write(_END64.pack(b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, at))
            self._write(_LOCATOR64.pack(b"PK\6\7", 0, here, 1))
        few = min(count, _MAX16)
        self._write(_END.pack(b"PK\5\6", 0, 0, few, few, min(size, _MAX32), min(at, _MAX32), 0))


class Record(NamedTuple):
    """Where the bytes of a record lie in the file."""

    offset: int
    size: int
    crc: int


class ArchiveReader:
    """The records of an archive, by name without the common root.

    Args:
        file: seekable, binary, at any position.
        mapped: map the file into memory instead of reading it; ``file`` must be a real one.

    Raises:
        ArchiveError: no archive, cut short, or with records that no writer of weights makes
            (compressed, encrypted, overlapping).
    """

    def __init__(self, file, mapped: bool = False):
        self._file = file
        self._length = file.seek(0, os.SEEK_END)
        self.records = self._read_directory()
        # A private mapping: what the program writes to its tensors never reaches the file.
        self._map = None
        if mapped:
            self._map = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))

    def _read_directory(self) -> dict[str, Record]:
        try:
            with zipfile.ZipFile(self._file) as archive:
                entries = sorted(archive.infolist(), key=lambda info: info.header_offset)
        except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError) as error:
            raise ArchiveError(
                f"load: the archive is damaged or cut short: {error}; "
                "hint: was the file written or copied to its end?"
            ) from error
        if not entries:
            raise ArchiveError("load: the archive is empty")
        root = entries[0].filename.partition("/")[0] + "/"
        records: dict[str, Record] = {}
        free = 0
        for info in entries:
            record = self._locate(info, free)
            free = record.offset + record.size
            name = info.filename.removeprefix(root)
            if name in records:
                raise ArchiveError(f"load: the archive has two records {info.filename!r}")
            records[name] = record
        return records

    def _locate(self, info: zipfile.ZipInfo, free: int) -> Record:
        """The place of one record, which must begin at ``free`` or later."""
        name, start = info.filename, info.header_offset
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise ArchiveError(
                f"load: record {name!r} is compressed or encrypted; hint: archives of weights are "
                "not, so this one was packed anew; unpack it with a zip tool and store it again"
            )
        if info.compress_size != info.file_size:
            raise ArchiveError(f"load: record {name!r} has two sizes")
        if start < free:
            raise ArchiveError(f"load: record {name!r} overlaps another one")
        header = self._read_at(start, _LOCAL.size, name)
        signature, *_, name_length, extra_length = _LOCAL.unpack(header)
        offset = start + _LOCAL.size + name_length + extra_length
        if signature != b"PK\3\4":
            raise ArchiveError(f"load: record {name!r} is not where the directory says")
        if offset + info.file_size > self._length:
            raise ArchiveError(f"load: record {name!r} reaches beyond the end of the file")
        return Record(offset, info.file_size, info.CRC)

    def _read_at(self, offset: int, size: int, name: str) -> bytes:
        self._file.seek(offset)
        data = self._file.read(size) if offset + size <= self._length else b""
        if len(data) != size:
            raise ArchiveError(f"load: the file ends within record {name!r}")
        return data

    def record(self, name: str) -> Record:
        record = self.records.get(name)
        if record is None:
            raise ArchiveError(f"load: the archive lacks the record {name!r}")
        return record

    def read(self, name: str) -> bytes:
        """A record's bytes, checked against their checksum."""
        record = self.record(name)
        data = bytearray(record.size)
        self.read_into(name, memoryview(data))
        return bytes(data)

    def read_into(self, name: str, memory: memoryview) -> None:
        """Fill ``memory``, which has the record's size, and check the checksum."""
        record = self.record(name)
        self._file.seek(record.offset)
        crc = 0
        for at in range(0, record.size, _CHUNK):
            # In pieces, so that the checksum finds in the cache what was just read.
            piece = memory[at : at + _CHUNK]
            if _fill(self._file, piece) != len(piece):
                raise ArchiveError(f"load: the file ends within record {name!r}")
            crc = zlib.crc32(piece, crc)
        # PyTorch writes 0 where it was told not to compute checksums.
        if record.crc not in (0, crc):
            raise ArchiveError(
                f"load: record {name!r} is damaged: checksum {crc:08x}, expected {record.crc:08x}"
            )

    def mapped(self, name: str) -> memoryview | None:
        """A record's bytes without a copy or a check; None if the file is not mapped."""
        record = self.record(name)
        if self._map is None:
            return None
        return self._map[record.offset : record.offset + record.size]


def _fill(file, memory: memoryview) -> int:
    """Read until ``memory`` is full or the file ends; the number of bytes read."""
    done = 0
    readinto = getattr(file, "readinto", None)
    while done < len(memory):
        if readinto is not None:
            count = readinto(memory[done:]) or 0
        else:
            data = file.read(len(memory) - done)
            count = len(data)
            memory[done : done + count] = data
        if count == 0:
            break
        done += count
    return done
