"""What this machine offers: the instruction set to compile for, cores, caches, memory.

:func:`target` says what LLVM compiles for and is the first thing to import llvmlite; everything
else asks the operating system and costs nothing.
"""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from facula.base.errors import ArgumentError, fail

#: Processors that ``FACULA_CPU`` may name in place of the host's own, and their vectors' bytes.
GENERIC_CPUS = {"x86-64": 16, "x86-64-v2": 16, "x86-64-v3": 32, "x86-64-v4": 64}


@dataclass(frozen=True)
class Target:
    """What code is generated for.

    Attributes:
        triple: LLVM's name of architecture, vendor, system, such as ``x86_64-unknown-linux-gnu``.
        cpu: LLVM's name of the processor.
        features: instruction sets, in LLVM's form ``+avx2,-avx512f``; empty for a generic CPU.
        vector_bytes: width of the widest vector register worth using: 16, 32 or 64.
        llvm: version of LLVM, such as ``22.1.0``.
    """

    triple: str
    cpu: str
    features: str
    vector_bytes: int
    llvm: str

    @property
    def arch(self) -> str:
        """The architecture alone: ``x86_64``, ``aarch64``, ``arm64``, ..."""
        return self.triple.partition("-")[0]

    @property
    def converts_halves(self) -> bool:
        """Whether the processor converts between float16 and float32 (F16C on x86) itself."""
        return self.arch != "x86_64" or self.vector_bytes > 16


@functools.cache
def target() -> Target:
    """The target of this process: the host, or the generic CPU that ``FACULA_CPU`` names.

    Raises:
        ArgumentError: ``FACULA_CPU`` names no CPU of :data:`GENERIC_CPUS`.
    """
    import llvmlite.binding as llvm

    triple = llvm.get_process_triple()
    version = ".".join(map(str, llvm.llvm_version_info))
    generic = os.environ.get("FACULA_CPU")
    if generic:
        if generic not in GENERIC_CPUS or not triple.startswith("x86_64"):
            known = ", ".join(GENERIC_CPUS)
            fail(ArgumentError, "FACULA_CPU", f"expected one of {known} on x86-64, got {generic!r}")
        return Target(triple, generic, "", GENERIC_CPUS[generic], version)
    features = dict(llvm.get_host_cpu_features())
    return Target(
        triple,
        llvm.get_host_cpu_name(),
        ",".join(("+" if on else "-") + name for name, on in sorted(features.items())),
        _vector_bytes(features),
        version,
    )


def _vector_bytes(features: dict[str, bool]) -> int:
    # 64-byte vectors need the byte, double-word and short-vector extensions too: the first
    # processors with AVX-512 lack them, and would fall back to slow sequences.
    if all(features.get(f) for f in ("avx512f", "avx512bw", "avx512dq", "avx512vl")):
        return 64
    return 32 if features.get("avx2") and features.get("fma") else 16


def affinity() -> set[int]:
    """The logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def physical_cores() -> int:
    """Physical cores among those allowed: two hardware threads of one core count once."""
    allowed = affinity()
    cores = set()
    for cpu in allowed:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        package, core = _text(topology / "physical_package_id"), _text(topology / "core_id")
        if not core:
            return len(allowed)
        cores.add((package, core))
    return len(cores)


def cgroup_cores() -> float | None:
    """Cores that the control group grants (quota over period), or None for no limit."""
    grants = []
    for folder in _cgroup_folders("cpu"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if not period:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period) > 0 and int(quota) > 0:
            grants.append(int(quota) / int(period))
    return min(grants, default=None)


def usable_cores() -> int:
    """How many threads it makes sense to run: allowed physical cores within the group's quota."""
    granted = cgroup_cores()
    cores = physical_cores()
    return max(1, min(cores, cores if granted is None else int(granted + 0.5)))


def memory_limit() -> int:
    """Bytes of memory that this process may count on: the machine's, or the group's if smaller."""
    limits = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for folder in _cgroup_folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _text(folder / name)
            if limit.isdigit():
                limits.append(int(limit))
    return min(limits, default=4 << 30)


@functools.cache
def cache_sizes() -> dict[str, int]:
    """Bytes of the first core's caches, by name: ``{"L1d": 49152, "L2": 2097152, ...}``.

    Empty where the system does not tell.
    """
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind = {"Data": "d", "Instruction": "i"}.get(_text(index / "type"), "")
        size = _text(index / "size")
        if size.endswith("K") and size[:-1].isdigit():
            sizes[f"L{_text(index / 'level')}{kind}"] = int(size[:-1]) * 1024
    return sizes


def _cgroup_folders(controller: str) -> list[Path]:
    """Folders of this process's control group, from its own up to the root.

    Inside a container the group's own path is often not mounted; the root then is the group.
    """
    root = Path("/sys/fs/cgroup")
    if sys.platform != "linux":
        return []
    folders = [root, root / controller]
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        base = root / controller if controller in controllers.split(",") else root
        own = base / path.strip("/")
        while own != root and root in own.parents:
            folders.append(own)
            own = own.parent
    return folders


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
