"""From LLVM text to the addresses of running machine code.

A module's text has no triple and no data layout: they are put before it here. The object is taken
from the disk cache or compiled, and linked into the process. Nothing is optimised unless asked:
generated code says its vectors itself, and LLVM's passes cost more than they bring.

Each text is its own library, so that any two may use the same names. A text may declare what the
runtime provides (:func:`provide`), what CPython exports (``PyLong_AsVoidPtr``, also data such as
``_Py_NoneStruct``), and functions of the C library.

Any thread may call; one compiles at a time. Code is never unloaded: addresses stay good for the
life of the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pkgutil
import re
import string
import threading
from collections.abc import Callable, Sequence

from facula.base.errors import CompileError
from facula.runtime import cache, host

_lock = threading.RLock()
_providers: dict[str, Callable[[], int]] = {}
_loaded: dict[str, dict[str, int]] = {}
_machines: dict[str, object] = {}
_DECLARED = re.compile(r"^\s*(?:declare\b[^@\n]*@([\w.$]+)|@([\w.$]+)\s*=\s*external\b)", re.M)
#: What LLVM's own lowering may call although the text does not declare it: on all processors,
#: and on those that cannot convert half-precision floats.
_IMPLICIT = ("memcpy", "memset", "memmove")
_HALVES = ("__extendhfsf2", "__truncsfhf2")

_SWITCHES = ("-disable-lsr", "-disable-cgp")
_SWITCHES_KNOWN_TO = range(20, 23)


def provide(name: str, address: Callable[[], int]) -> None:
    """Make a symbol known to all texts loaded later; ``address`` is called when one declares it."""
    _providers[name] = address


def load(text: str, names: Sequence[str], optimize: int = 0) -> dict[str, int]:
    """The addresses of functions (or globals) that a module defines.

    Args:
        text: LLVM IR without target triple and data layout.
        names: what to look up.
        optimize: level of LLVM's mid-level passes, 0 (none) to 3.

    Raises:
        CompileError: LLVM refuses the text (the message shows the line), or a symbol is missing.

    >>> code = "define i64 @three() {\\n  ret i64 3\\n}"
    >>> ctypes.CFUNCTYPE(ctypes.c_int64)(load(code, ["three"])["three"])()
    3
    """
    with _lock:
        key = cache.key(text, host.target(), optimize)
        known = _loaded.setdefault(key, {})
        missing = [n for n in names if n not in known]
        if missing:
            known.update(_link_cached(key, text, missing, optimize))
        return {n: known[n] for n in names}


def begin(text: str, names: Sequence[str], submit: Callable) -> Callable[[], dict[str, int]]:
    """Start to :func:`load`; the result finishes it and returns the addresses.

    What has to be compiled is handed to ``submit``, of an executor.
    """
    key = cache.key(text, host.target(), 0)
    if _loaded.get(key) or cache.get(key) is not None:
        return lambda: load(text, names)
    try:
        compiling = submit(compile_object, text)
    except RuntimeError:  # The interpreter is ending, and starts no thread any more.
        return lambda: load(text, names)

    def finish():
        built = compiling.result()
        with _lock:
            _loaded[key] = _link(built, text, names)
            cache.put(key, built)
            return _loaded[key]

    return finish


def source(name: str, words: dict[str, object]) -> str:
    """The text of a file of this folder, with every ``$NAME`` replaced by ``words["NAME"]``."""
    text = pkgutil.get_data(__package__, name)
    return string.Template(text.decode()).substitute(words)


def compile_object(text: str, optimize: int = 0) -> bytes:
    """The object file of a module, without looking at the cache."""
    with _lock:
        module = _parse(text, optimize)
        with _quick_lowering():
            return _machines["code"].emit_object(module)


def assembly(text: str, optimize: int = 0) -> str:
    """The assembly listing of a module."""
    with _lock:
        module = _parse(text, optimize)
        with _quick_lowering():
            return _machines["code"].emit_assembly(module)


def immortal(thing):
    """Keep an object alive beyond the end of the interpreter, and return it.

    For what native code points to: threads may still run while modules are being torn down.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing


def once(make: Callable):
    """A function that calls ``make`` the first time, once however many threads ask, and then
    always returns that result."""
    made = []

    def get():
        if not made:
            with _lock:
                if not made:
                    made.append(make())
        return made[0]

    return get


def _link_cached(key: str, text: str, names: Sequence[str], optimize: int) -> dict[str, int]:
    stored = cache.get(key)
    if stored is not None:
        try:
            return _link(stored, text, names)
        except CompileError:
            # Whole by its checksum yet of no use: made by something else that calls itself us.
            cache.remove(key)
    built = compile_object(text, optimize)
    addresses = _link(built, text, names)
    cache.put(key, built)
    return addresses


def _link(built: bytes, text: str, names: Sequence[str]) -> dict[str, int]:
    import llvmlite.binding as llvm

    _start()
    library = llvm.JITLibraryBuilder().add_object_img(built).add_current_process()
    declared = {a or b for a, b in _DECLARED.findall(text)}
    helpers = _HALVES if "half" in text and not host.target().converts_halves else ()
    for name in declared.union(_IMPLICIT, helpers).difference(names):
        address = _address(name)
        if address:
            library.import_symbol(name, address)
    for name in names:
        library.export_symbol(name)
    _machines["links"] += 1
    try:
        linked = library.link(_machines["jit"], f"facula{_machines['links']}")
    except RuntimeError as error:
        unknown = sorted(n for n in declared if not n.startswith("llvm.") and not _address(n))
        hint = f"; hint: nobody provides {', '.join(unknown)}" if unknown else ""
        raise CompileError(f"jit: linking {', '.join(names)} failed: {error}{hint}") from None
    immortal(linked)
    return {name: linked[name] for name in names}


def _address(name: str) -> int:
    """Address of a symbol that the text itself does not define; 0 if nobody has it."""
    if name.startswith("llvm."):
        return 0
    if name in _providers:
        return _providers[name]()
    if name in _HALVES:
        return load(source("halves.ll", {}), _HALVES)[name]
    for library in (ctypes.pythonapi, _machines["libc"]):
        try:
            return ctypes.addressof(ctypes.c_char.in_dll(library, name))
        except ValueError:
            continue
    return 0


def _start() -> None:
    """Bring LLVM up, once."""
    if "jit" in _machines:
        return
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    goal = host.target()

    def machine():
        description = llvm.Target.from_triple(goal.triple)
        return description.create_target_machine(
            cpu=goal.cpu, features=goal.features, opt=2, reloc="pic", codemodel="default"
        )

    _machines["code"] = immortal(machine())
    # Both on one line, so that line numbers in LLVM's messages count from the text.
    _machines["head"] = (
        f'target triple = "{goal.triple}" target datalayout = "{_machines["code"].target_data}" '
    )
    _machines["libc"] = immortal(ctypes.CDLL(None if os.name == "posix" else "msvcrt"))
    _machines["links"] = 0
    _machines["jit"] = immortal(llvm.create_lljit_compiler(machine(), suppress_errors=True))


def _parse(text: str, optimize: int):
    import llvmlite.binding as llvm

    _start()
    try:
        module = llvm.parse_assembly(_machines["head"] + text, llvm.create_context())
    except RuntimeError as error:
        raise CompileError(_located(str(error), text)) from None
    try:
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"jit: LLVM's verifier refuses the module: {error}") from None
    if optimize:
        tuning = llvm.create_pipeline_tuning_options(speed_level=optimize)
        passes = llvm.create_pass_builder(_machines["code"], tuning)
        passes.getModulePassManager().run(module, passes)
    return module


@contextlib.contextmanager
def _quick_lowering():
    """Without the passes of LLVM's back end that reshape loops and addresses.

    They take half of the time of a matrix product's kernel and gain nothing on loops that are
    written the way they shall run. The switches hold for the whole process, others who use LLVM
    included, so they are on for the time of one module only.
    """
    import llvmlite.binding as llvm

    # LLVM ends the process at a switch it does not know: name them to versions that were tried.
    switches = _SWITCHES if llvm.llvm_version_info[0] in _SWITCHES_KNOWN_TO else ()
    for switch in switches:
        llvm.set_option("", switch)
    try:
        yield
    finally:
        for switch in switches:
            llvm.set_option("", f"{switch}=false")


def _located(message: str, text: str) -> str:
    """LLVM's message with the line it speaks of and the one before."""
    place = re.search(r"<string>:(\d+):(\d+): error: (.*)", message)
    if place is None:
        return f"jit: LLVM refuses the text: {message}"
    number, lines = int(place[1]), text.splitlines()
    shown = "\n".join(
        f"{n:6} | {lines[n - 1]}" for n in (number - 1, number) if 1 <= n <= len(lines)
    )
    return f"jit: LLVM refuses line {number}: {place[3]}\n{shown}"


if hasattr(os, "register_at_fork"):
    # No thread may be inside of LLVM while the process forks: the child would find it locked.
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )
