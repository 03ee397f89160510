"""Files as arguments: paths and open files, and a write that happens whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets

from facula.base.errors import ArgumentTypeError, fail


def is_path(file) -> bool:
    return isinstance(file, (str, os.PathLike))


@contextlib.contextmanager
def reading(op: str, file):
    """A binary file to read from: opened here if ``file`` is a path, and then closed here."""
    if is_path(file):
        with open(file, "rb") as opened:
            yield opened
        return
    missing = [name for name in ("read", "seek", "tell") if not hasattr(file, name)]
    if missing:
        fail(
            ArgumentTypeError,
            op,
            f"expected a path or a binary file, got {type(file).__name__} without {missing[0]}()",
            "read the data into io.BytesIO first",
        )
    yield file


@contextlib.contextmanager
def replacing(path):
    """A binary file to write to that takes the place of ``path`` when the block ends well.

    Until then, and if the block fails or the machine stops, what ``path`` held stays whole.
    """
    # What a symbolic link points to is replaced, not the link.
    path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        # A device or a pipe cannot be replaced.
        with open(path, "wb") as file:
            yield file
        return
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "wb", buffering=1 << 16) as file:
            with contextlib.suppress(FileNotFoundError):
                os.chmod(temporary, os.stat(path).st_mode & 0o7777)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
