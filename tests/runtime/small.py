"""A tensor class and kernels written by hand, for tests that need no other layer."""

import ctypes

from facula.runtime import storage

KERNELS = r"""
declare void @facula_parallel(ptr, ptr, i64)

; words: a, b, out: eight floats each
define i64 @add(ptr %args) {
  %a = load ptr, ptr %args
  %b_at = getelementptr i64, ptr %args, i64 1
  %b = load ptr, ptr %b_at
  %out_at = getelementptr i64, ptr %args, i64 2
  %out = load ptr, ptr %out_at
  %x = load <8 x float>, ptr %a, align 4
  %y = load <8 x float>, ptr %b, align 4
  %z = fadd <8 x float> %x, %y
  store <8 x float> %z, ptr %out, align 4
  ret i64 0
}

; words: the status to return
define i64 @status(ptr %args) {
  %status = load i64, ptr %args
  ret i64 %status
}

; words: out, n, then n words that are copied to out
define i64 @copy(ptr %args) {
entry:
  %out = load ptr, ptr %args
  %n_at = getelementptr i64, ptr %args, i64 1
  %n = load i64, ptr %n_at
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %from_index = add i64 %i, 2
  %from = getelementptr i64, ptr %args, i64 %from_index
  %word = load i64, ptr %from
  %to = getelementptr i64, ptr %out, i64 %i
  store i64 %word, ptr %to
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %out_of
out_of:
  ret i64 0
}

; words: flag; runs until another thread makes the flag nonzero
define i64 @wait(ptr %args) {
entry:
  %flag = load ptr, ptr %args
  br label %look
look:
  %value = load atomic i64, ptr %flag acquire, align 8
  %set = icmp ne i64 %value, 0
  br i1 %set, label %out, label %look
out:
  ret i64 0
}

define internal void @mark(ptr %env, i64 %chunk, i64 %tid) {
  ; Every chunk adds 1 to its own element, and its thread's number in the upper half.
  %at = getelementptr i64, ptr %env, i64 %chunk
  %old = load i64, ptr %at
  %number = shl i64 %tid, 32
  %one = or i64 %number, 1
  %new = add i64 %old, %one
  store i64 %new, ptr %at
  ret void
}

; words: out, chunks
define i64 @parallel(ptr %args) {
  %out = load ptr, ptr %args
  %n_at = getelementptr i64, ptr %args, i64 1
  %n = load i64, ptr %n_at
  call void @facula_parallel(ptr @mark, ptr %out, i64 %n)
  ret i64 0
}

define internal void @outer(ptr %env, i64 %chunk, i64 %tid) {
  ; Sixteen inner chunks, in a row of their own.
  %start = mul i64 %chunk, 16
  %row = getelementptr i64, ptr %env, i64 %start
  call void @facula_parallel(ptr @mark, ptr %row, i64 16)
  ret void
}

; words: out, chunks
define i64 @nested(ptr %args) {
  %out = load ptr, ptr %args
  %n_at = getelementptr i64, ptr %args, i64 1
  %n = load i64, ptr %n_at
  call void @facula_parallel(ptr @outer, ptr %out, i64 %n)
  ret i64 0
}
"""


class Tensor:
    """As little of a tensor as the launcher knows."""

    __slots__ = ("_meta", "_ptr", "_storage", "_grad_fn", "_grad", "__weakref__")


class Derived(Tensor):
    """With a slot more and a dictionary."""

    __slots__ = ("extra", "__dict__")


def tensor(values=(), meta=None, cls=Tensor):
    """A tensor of eight floats."""
    t = cls()
    t._storage = storage.allocate(32)
    t._ptr, t._meta = t._storage.ptr, meta
    floats(t)[:] = [*values, *[0.0] * (8 - len(values))]
    return t


def floats(t):
    """The eight floats of a tensor, in place."""
    return (ctypes.c_float * 8).from_address(t._ptr)


def counts(n):
    """Zeroed words for ``n`` chunks, and their address."""
    words = (ctypes.c_int64 * n)()
    return words, ctypes.addressof(words)
