"""A fork-join pool of native threads, in generated code.

``facula_parallel(fn, env, nchunks)`` calls ``fn(env, chunk, tid)`` once for every chunk and returns
when all are done. Threads claim chunks one after the other; the caller takes part as ``tid`` 0 and
waits for *chunks* to be done, never for a thread to wake up, so a core taken by another process
costs speed and no more. ``facula_threads`` (an i64) says how many threads take part.

One submission runs at a time. A second one, from another Python thread or from inside of a chunk,
runs all its chunks on its own caller, under the number of the thread that calls.

Workers are created by the first submission that can use them (plain threads of the system that
know nothing of Python and block all signals), spin for some 30 µs after work, then sleep in a
futex. After a fork, the child starts its own when it needs them. They end with the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from facula.base.errors import ArgumentError, ArgumentTypeError, fail
from facula.runtime import host, jit

#: The most threads that can be asked for.
MAX_THREADS = 1024
_STACK_BYTES = 8 << 20

# One 64-bit word carries the state of a submission: its generation (32 bits), the number of
# groups of chunks (16) and the next group to claim (16). Claiming is a compare-and-swap of the
# whole word: success proves that the job read before it is the one of this generation, because the
# next one is published only when all groups of this one are done. The upper half, the generation,
# is also what sleepers wait on.
_TEXT = """
%Job = type { ptr, ptr, i64, i64, i64, [88 x i8] }
@pool_word = global { i64, [120 x i8] } zeroinitializer, align 128
; fn, env, chunks, chunks a group, threads that may take part
@pool_job = internal global %Job zeroinitializer, align 128
@pool_done = internal global { i64, [120 x i8] } zeroinitializer, align 128
@pool_sleepers = internal global { i64, [120 x i8] } zeroinitializer, align 128
@pool_busy = internal global { i64, [120 x i8] } zeroinitializer, align 128
@pool_workers = internal global i64 0, align 128
@pool_stopping = internal global i64 0
@pool_identity = internal global [MAX_THREADS x i64] zeroinitializer
@pool_threads = global i64 1, align 128
; Launches that run without the GIL, and thus rely on the number of threads staying as it is.
@pool_inflight = global { i64, [120 x i8] } zeroinitializer, align 128

DECLARE_PAUSE
DECLARE_SLEEP
declare i32 @sched_yield()
declare i64 @pthread_self()
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(i64)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_destroy(ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sigfillset(ptr)
declare i64 @llvm.umin.i64(i64, i64)

; Claim groups and run them until none is left.
define internal void @drain(i64 %tid) {
entry:
  br label %look
look:
  %word = load atomic i64, ptr @pool_word acquire, align 8
  %group = and i64 %word, 65535
  %upper = lshr i64 %word, 16
  %groups = and i64 %upper, 65535
  %open = icmp ult i64 %group, %groups
  br i1 %open, label %read, label %out
read:
  %fn = load atomic ptr, ptr @pool_job monotonic, align 8
  %env = load atomic ptr, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 1) monotonic, align 8
  %n = load atomic i64, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 2) monotonic, align 8
  %per = load atomic i64, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 3) monotonic, align 8
  %most = load atomic i64, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 4) monotonic, align 8
  %member = icmp ult i64 %tid, %most
  br i1 %member, label %claim, label %out
claim:
  %next = add i64 %word, 1
  %swap = cmpxchg ptr @pool_word, i64 %word, i64 %next acq_rel monotonic
  %mine = extractvalue { i64, i1 } %swap, 1
  br i1 %mine, label %run, label %look
run:
  %first = mul i64 %group, %per
  %beyond = add i64 %first, %per
  %last = call i64 @llvm.umin.i64(i64 %beyond, i64 %n)
  br label %chunks
chunks:
  %chunk = phi i64 [ %first, %run ], [ %following, %chunks ]
  call void %fn(ptr %env, i64 %chunk, i64 %tid)
  %following = add i64 %chunk, 1
  %more = icmp ult i64 %following, %last
  br i1 %more, label %chunks, label %finished
finished:
  %count = atomicrmw add ptr @pool_done, i64 1 release
  br label %look
out:
  ret void
}

define internal ptr @worker(ptr %number) {
entry:
  %tid = ptrtoint ptr %number to i64
  br label %work
work:
  ; The generation is read before draining: what is published meanwhile is seen as a change.
  %word = load atomic i64, ptr @pool_word acquire, align 8
  %generation = lshr i64 %word, 32
  %stopping = load atomic i64, ptr @pool_stopping acquire, align 8
  %stop = icmp ne i64 %stopping, 0
  br i1 %stop, label %leave, label %busy
busy:
  call void @drain(i64 %tid)
  br label %spin
spin:
  %turn = phi i64 [ 0, %busy ], [ %turn1, %pause ]
  %seen = load atomic i64, ptr @pool_word acquire, align 8
  %now = lshr i64 %seen, 32
  %changed = icmp ne i64 %now, %generation
  br i1 %changed, label %work, label %pause
pause:
  PAUSE
  %turn1 = add i64 %turn, 1
  %again = icmp ult i64 %turn1, SPINS
  br i1 %again, label %spin, label %rest
rest:
  %s = atomicrmw add ptr @pool_sleepers, i64 1 seq_cst
  br label %sleep
sleep:
  %seen_asleep = load atomic i64, ptr @pool_word seq_cst, align 8
  %now_asleep = lshr i64 %seen_asleep, 32
  %stirred = icmp ne i64 %now_asleep, %generation
  br i1 %stirred, label %awake, label %doze
doze:
  %old = trunc i64 %generation to i32
  SLEEP
  br label %sleep
awake:
  %t = atomicrmw sub ptr @pool_sleepers, i64 1 seq_cst
  br label %work
leave:
  %left = atomicrmw add ptr @pool_done, i64 1 release
  ret ptr null
}

; Publish %groups groups as a new generation and wake who sleeps.
define internal void @publish(i64 %groups) {
entry:
  store atomic i64 0, ptr @pool_done monotonic, align 8
  %word = load atomic i64, ptr @pool_word monotonic, align 8
  %generation = lshr i64 %word, 32
  %next = add i64 %generation, 1
  %upper = shl i64 %next, 32
  %middle = shl i64 %groups, 16
  %new = or i64 %upper, %middle
  store atomic i64 %new, ptr @pool_word seq_cst, align 8
  %sleepers = load atomic i64, ptr @pool_sleepers seq_cst, align 8
  %any = icmp ne i64 %sleepers, 0
  br i1 %any, label %wake, label %out
wake:
  WAKE
  br label %out
out:
  ret void
}

; Wait until %goal groups are done; let others run when it takes long.
define internal void @join(i64 %goal) {
entry:
  br label %look
look:
  %turn = phi i64 [ 0, %entry ], [ %turn1, %pause ], [ %turn, %yield ]
  %done = load atomic i64, ptr @pool_done acquire, align 8
  %all = icmp uge i64 %done, %goal
  br i1 %all, label %out, label %wait
wait:
  %patient = icmp ult i64 %turn, SPINS
  br i1 %patient, label %pause, label %yield
pause:
  PAUSE
  %turn1 = add i64 %turn, 1
  br label %look
yield:
  %y = call i32 @sched_yield()
  br label %look
out:
  ret void
}

; Create the workers that are missing; called by the owner of @pool_busy.
define internal void @recruit(i64 %threads) noinline {
entry:
  %attributes = alloca [128 x i8], align 16
  %every = alloca [128 x i8], align 16
  %before = alloca [128 x i8], align 16
  %a = call i32 @pthread_attr_init(ptr %attributes)
  %b = call i32 @pthread_attr_setstacksize(ptr %attributes, i64 STACK_BYTES)
  %c = call i32 @sigfillset(ptr %every)
  %d = call i32 @pthread_sigmask(i32 SIG_SETMASK, ptr %every, ptr %before)
  br label %look
look:
  %have = load i64, ptr @pool_workers
  %tid = add i64 %have, 1
  %enough = icmp uge i64 %tid, %threads
  br i1 %enough, label %out, label %create
create:
  %identity = getelementptr i64, ptr @pool_identity, i64 %tid
  %number = inttoptr i64 %tid to ptr
  %error = call i32 @pthread_create(ptr %identity, ptr %attributes, ptr @worker, ptr %number)
  %failed = icmp ne i32 %error, 0
  br i1 %failed, label %out, label %created
created:
  %thread = load i64, ptr %identity
  %e = call i32 @pthread_detach(i64 %thread)
  store i64 %tid, ptr @pool_workers
  br label %look
out:
  %f = call i32 @pthread_sigmask(i32 SIG_SETMASK, ptr %before, ptr null)
  %g = call i32 @pthread_attr_destroy(ptr %attributes)
  ret void
}

define internal i1 @try_lock() alwaysinline {
  %swap = cmpxchg ptr @pool_busy, i64 0, i64 1 acquire monotonic
  %got = extractvalue { i64, i1 } %swap, 1
  ret i1 %got
}

; The number under which the calling thread runs: its own for a worker, 0 for all others.
define internal i64 @own_number() {
entry:
  %self = call i64 @pthread_self()
  %workers = load atomic i64, ptr @pool_workers monotonic, align 8
  br label %look
look:
  %tid = phi i64 [ %workers, %entry ], [ %before, %next ]
  %end = icmp eq i64 %tid, 0
  br i1 %end, label %out, label %compare
compare:
  %at = getelementptr i64, ptr @pool_identity, i64 %tid
  %identity = load atomic i64, ptr %at monotonic, align 8
  %same = icmp eq i64 %identity, %self
  br i1 %same, label %out, label %next
next:
  %before = sub i64 %tid, 1
  br label %look
out:
  ret i64 %tid
}

define void @pool_parallel(ptr %fn, ptr %env, i64 %n) {
entry:
  %threads = load atomic i64, ptr @pool_threads monotonic, align 8
  %few_threads = icmp ule i64 %threads, 1
  %few_chunks = icmp sle i64 %n, 1
  %few = or i1 %few_threads, %few_chunks
  br i1 %few, label %alone, label %lock
lock:
  %got = call i1 @try_lock()
  br i1 %got, label %hire, label %alone
hire:
  %workers = load i64, ptr @pool_workers
  %whole = add i64 %workers, 1
  %short = icmp ult i64 %whole, %threads
  br i1 %short, label %missing, label %submit
missing:
  call void @recruit(i64 %threads)
  br label %submit
submit:
  ; More chunks than a word can count are claimed in groups.
  %over = add i64 %n, 65534
  %per = udiv i64 %over, 65535
  %rest = sub i64 %per, 1
  %padded = add i64 %n, %rest
  %groups = udiv i64 %padded, %per
  store atomic ptr %fn, ptr @pool_job monotonic, align 8
  store atomic ptr %env, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 1) monotonic, align 8
  store atomic i64 %n, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 2) monotonic, align 8
  store atomic i64 %per, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 3) monotonic, align 8
  store atomic i64 %threads, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 4) monotonic, align 8
  call void @publish(i64 %groups)
  call void @drain(i64 0)
  call void @join(i64 %groups)
  store atomic i64 0, ptr @pool_busy release, align 8
  ret void
alone:
  %busy = load atomic i64, ptr @pool_busy monotonic, align 8
  %idle = icmp eq i64 %busy, 0
  br i1 %idle, label %start, label %nested
nested:
  %own = call i64 @own_number()
  br label %start
start:
  %tid = phi i64 [ 0, %alone ], [ %own, %nested ]
  br label %test
test:
  %chunk = phi i64 [ 0, %start ], [ %following, %run ]
  %more = icmp slt i64 %chunk, %n
  br i1 %more, label %run, label %out
run:
  call void %fn(ptr %env, i64 %chunk, i64 %tid)
  %following = add i64 %chunk, 1
  br label %test
out:
  ret void
}

; Change the number of threads, when nothing runs. The workers end; new ones come when needed.
define void @pool_resize(i64 %threads) {
entry:
  br label %look
look:
  %inflight = load atomic i64, ptr @pool_inflight acquire, align 8
  %quiet = icmp eq i64 %inflight, 0
  br i1 %quiet, label %lock, label %wait
wait:
  %y = call i32 @sched_yield()
  br label %look
lock:
  %got = call i1 @try_lock()
  br i1 %got, label %stop, label %wait
stop:
  %workers = load i64, ptr @pool_workers
  store atomic i64 1, ptr @pool_stopping release, align 8
  call void @publish(i64 0)
  call void @join(i64 %workers)
  store atomic i64 0, ptr @pool_stopping release, align 8
  store i64 0, ptr @pool_workers
  store atomic i64 %threads, ptr @pool_threads monotonic, align 8
  store atomic i64 0, ptr @pool_busy release, align 8
  ret void
}

; In the child of a fork: there are no workers and nobody submits.
define void @pool_reset() {
  store i64 0, ptr @pool_workers
  store i64 0, ptr @pool_sleepers
  store i64 0, ptr @pool_stopping
  store i64 0, ptr @pool_inflight
  %word = load i64, ptr @pool_word
  %generation = and i64 %word, -4294967296
  store i64 %generation, ptr @pool_word
  store i64 0, ptr @pool_busy
  ret void
}
"""

_PAUSES = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
}
_PAUSES["arm64"] = _PAUSES["aarch64"]
#: Numbers of Linux's futex system call.
_FUTEX = {"x86_64": 202, "aarch64": 98}
#: Rounds of spinning, for about 30 µs: a pause takes some 40 to 140 cycles on x86, fewer on ARM.
_SPINS = {"x86_64": 800, "aarch64": 8000, "arm64": 8000}


def _text() -> str:
    """The native code, for this system."""
    arch = host.target().arch
    declare_pause, pause = _PAUSES.get(arch, ("", ""))
    futex = _FUTEX.get(arch) if sys.platform == "linux" else None
    if futex:
        # The operations are FUTEX_WAIT and FUTEX_WAKE of this process alone (128); the address is
        # the generation, the upper half of the word on little-endian machines.
        call = f"call i64 (i64, ...) @syscall(i64 {futex}, ptr getelementptr (i8, ptr @pool_word, "
        declare_sleep = "declare i64 @syscall(i64, ...)"
        sleep = f"%z = {call}i64 4), i64 128, i32 %old, ptr null)"
        wake = f"%z = {call}i64 4), i64 129, i32 2147483647)"
    else:
        declare_sleep = "declare i32 @usleep(i32)"
        sleep, wake = "%z = call i32 @usleep(i32 100)", ""
    text = _TEXT
    for word, value in (
        ("DECLARE_PAUSE", declare_pause),
        ("DECLARE_SLEEP", declare_sleep),
        ("PAUSE", pause),
        ("SLEEP", sleep),
        ("WAKE", wake),
        ("SPINS", _SPINS.get(arch, 2000)),
        ("STACK_BYTES", _STACK_BYTES),
        ("SIG_SETMASK", int(signal.SIG_SETMASK)),
        ("MAX_THREADS", MAX_THREADS),
    ):
        text = text.replace(word, str(value))
    return text


class _Native:
    """The loaded code and the cell that holds the number of threads."""

    def __init__(self):
        names = [f"pool_{n}" for n in ("parallel", "resize", "reset", "threads", "inflight")]
        self.at = jit.load(_text(), names, optimize=2)
        self.threads = ctypes.c_int64.from_address(self.at["pool_threads"])
        self.threads.value = _wanted()
        self.resize = ctypes.PYFUNCTYPE(None, ctypes.c_int64)(self.at["pool_resize"])
        self.reset = ctypes.PYFUNCTYPE(None)(self.at["pool_reset"])
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.reset)


_native = jit.once(_Native)
_state: dict[str, int] = {}

jit.provide("facula_parallel", lambda: _native().at["pool_parallel"])
jit.provide("facula_threads", lambda: _native().at["pool_threads"])
jit.provide("facula_inflight", lambda: _native().at["pool_inflight"])


def get_num_threads() -> int:
    """How many threads one kernel may use.

    Unless :func:`set_num_threads` was called: ``FACULA_NUM_THREADS``, else ``OMP_NUM_THREADS``,
    else the physical cores that this process may use, within its control group's quota.
    """
    return _wanted()


def set_num_threads(threads: int) -> None:
    """Set how many threads one kernel may use; waits for the kernels that run now.

    Raises:
        ArgumentTypeError: no int.
        ArgumentError: not between 1 and 1024.
    """
    if isinstance(threads, bool) or not isinstance(threads, int):
        got = type(threads).__name__
        fail(ArgumentTypeError, "set_num_threads", f"expected an int, got {got}")
    if not 1 <= threads <= MAX_THREADS:
        fail(ArgumentError, "set_num_threads", f"expected 1 to {MAX_THREADS}, got {threads}")
    _native().resize(threads)
    _state["threads"] = threads


def _wanted() -> int:
    if "threads" not in _state:
        named = [os.environ.get(f"{name}_NUM_THREADS", "") for name in ("FACULA", "OMP")]
        numbers = [int(n) for n in named if n.isdigit() and int(n) > 0]
        _state["threads"] = min(numbers[0] if numbers else host.usable_cores(), MAX_THREADS)
    return _state["threads"]
