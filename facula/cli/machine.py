"""What ``facula doctor`` tells of the machine, read from the operating system.

Every function here answers with what it could find and never fails: a doctor that crashes on an
odd machine is of no use on the very machines it is needed for.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from facula.runtime import host

#: The instruction sets worth a line, by the names LLVM gives them.
NOTABLE_FEATURES = (
    "sse4.2 avx f16c fma avx2 avx512f avx512bw avx512vl avx512vnni avx512bf16 avx512fp16 "
    "amx-tile neon sve sve2 fullfp16 bf16"
).split()


def read_text(path: str | Path) -> str:
    """The file's text without surrounding space, or ``""``."""
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def package_version(name: str) -> str:
    """The installed version of a distribution, or ``""``."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def cpu_model() -> str:
    for line in read_text("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.processor() or platform.machine()


def cores() -> dict[str, int | float | None]:
    """Logical cores of the machine, those this process may run on, and the cgroup's limit."""
    return {
        "machine": os.cpu_count(),
        "allowed": len(host.affinity()),
        "physical": host.physical_cores(),
        "cgroup": host.cgroup_cores(),
    }


def memory() -> dict[str, int]:
    """Bytes that this process may count on, and those free on the machine now."""
    amounts = {"usable": host.memory_limit()}
    for line in read_text("/proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        if key == "MemAvailable":
            amounts["free now"] = int(value.split()[0]) * 1024
    return amounts


def llvm() -> dict[str, object]:
    """What LLVM compiles for here; ``{"error": ...}`` where it cannot be loaded."""
    try:
        target = host.target()
        on = {f[1:] for f in target.features.split(",") if f.startswith("+")}
        return {
            "llvm": target.llvm,
            "cpu": target.cpu,
            "triple": target.triple,
            "vector_bits": 8 * target.vector_bytes,
            "features": [f for f in NOTABLE_FEATURES if f in on],
        }
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def gpu() -> str:
    """The NVIDIA driver's own account of the devices; only the driver's library is asked."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1" if sys.platform != "win32" else "nvcuda.dll")
        if cuda.cuInit(0) != 0:
            return "driver present, no usable device"
        count, version = ctypes.c_int(), ctypes.c_int()
        cuda.cuDeviceGetCount(ctypes.byref(count))
        cuda.cuDriverGetVersion(ctypes.byref(version))
        names = []
        for ordinal in range(count.value):
            device, name = ctypes.c_int(), ctypes.create_string_buffer(128)
            cuda.cuDeviceGet(ctypes.byref(device), ordinal)
            cuda.cuDeviceGetName(name, len(name), device)
            names.append(name.value.decode(errors="replace"))
        major, minor = version.value // 1000, version.value % 1000 // 10
        return f"driver for CUDA {major}.{minor}: {', '.join(names) or 'no device'}"
    except Exception:
        # A broken driver may fail in any way; for us it all means that there is none.
        return "no NVIDIA driver"


def extras(distribution: str = "facula") -> dict[str, list[str]]:
    """For each extra of the installed distribution, its packages that are not installed.

    Empty if facula runs from a source tree that was never installed.
    """
    import re

    try:
        requirements = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return {}
    missing: dict[str, list[str]] = {}
    nested: dict[str, list[str]] = {}
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if extra is None or name is None:
            continue
        lacking = missing.setdefault(extra[1], [])
        if name[0] == distribution:
            inner = re.search(r"\[([\w, -]+)\]", requirement)
            nested[extra[1]] = [e.strip() for e in inner[1].split(",")] if inner else []
        elif not package_version(name[0]):
            lacking.append(name[0])

    def whole(extra: str) -> list[str]:
        return missing.get(extra, []) + [m for e in nested.get(extra, []) for m in whole(e)]

    return {extra: sorted(set(whole(extra))) for extra in missing}
