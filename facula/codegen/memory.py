"""Loads and stores: from an index expression to the cheapest instruction that does it.

An index is taken apart into terms. Scalar terms are added to the address one loop level after the
other, outermost first, so that each level computes its part once. What the index does from lane
to lane decides the access: nothing (a scalar), a stride of 1 or -1 (a vector), of 2 (every second
element of two vectors), else a gather.
"""

from __future__ import annotations

from facula.base.dtypes import bool_, int64
from facula.codegen.casts import like, widen
from facula.codegen.values import (
    BYTE,
    MEMORY,
    PTR,
    Value,
    constant,
    lane_numbers,
    mangle,
    memory_type,
    splat,
)
from facula.ir import loops as L

_ZERO = constant(0, int64)


class Index:
    """A flat index in parts: the sum of ``terms``, ``offset``, lane number * ``stride`` and
    ``vectors``."""

    __slots__ = ("terms", "offset", "stride", "vectors")

    def __init__(self):
        self.terms, self.offset, self.stride, self.vectors = [], 0, _ZERO, []

    def add(self, w, v: Value, scale: int):
        """Take in ``v * scale``."""
        if v.const is not None:
            self.offset += v.const * scale
        elif v.linear:
            base, offset, stride = v.linear
            self.add(w, base, scale)
            self.offset += offset * scale
            self.stride = w.add(self.stride, w.mul(stride, constant(scale, int64)))
        elif v.lanes:
            self.vectors.append(_times(w, v, scale))
        else:
            self.terms.append(w.mul(v, constant(scale, int64)))

    def add_scaled(self, w, other: Index, factor: Value):
        """Take in ``other * factor``."""
        for t in other.terms:
            self.terms.append(w.mul(t, factor))
        if other.offset:
            self.terms.append(w.mul(factor, constant(other.offset, int64)))
        self.stride = w.add(self.stride, w.mul(other.stride, factor))


def _times(w, v, scale):
    if scale == 1:
        return v
    return w.pure(f"mul {v.typed}, {like(w, scale, v).text}", int64, v.lanes, v)


def index_of(em, e, memo) -> Index:
    """The parts of an index expression."""
    index = Index()
    _flatten(em, e, 1, index, memo)
    return index


def _flatten(em, e, scale, index, memo):
    w = em.w
    kind = type(e)
    while kind is L.Var and e in em.aliases:
        e = em.aliases[e]
        kind = type(e)
    if kind is L.Const:
        index.offset += e.value * scale
        return
    if kind is L.Op and e.name in ("add", "sub", "mul"):
        a, b = e.args
        if e.name != "mul":
            _flatten(em, a, scale, index, memo)
            _flatten(em, b, scale if e.name == "add" else -scale, index, memo)
            return
        for x, y in ((a, b), (b, a)):
            if isinstance(x, L.Const):
                _flatten(em, y, scale * x.value, index, memo)
                return
        if _distribute(em, a, b, scale, index, memo):
            return
    index.add(w, em.value(e, memo), scale)


def _distribute(em, a, b, scale, index, memo):
    """``(x + y) * size`` as two terms, if x and y belong to different loops."""
    for x, y in ((a, b), (b, a)):
        x = em.aliases.get(x, x)
        along = isinstance(x, L.Var) and x is em.along
        if not along and not (isinstance(x, L.Op) and x.name in ("add", "sub", "mul")):
            continue
        factor = em.value(y, memo)
        if factor.lanes:
            continue
        inner = Index()
        _flatten(em, x, scale, inner, memo)
        depths = {t.depth for t in inner.terms}
        if inner.vectors or any(d < factor.depth for d in depths):
            continue
        if factor.const is not None or len(depths) + bool(inner.offset) > 1:
            index.add_scaled(em.w, inner, factor)
            return True
    return False


def address(em, buffer, index: Index, offset: int) -> Value:
    """The address of the sum of an index's scalar terms and ``offset``."""
    w = em.w
    pointer = em.pointer(buffer)
    element = MEMORY[buffer.dtype]
    levels = {}
    for t in index.terms:
        known = levels.get(t.depth)
        levels[t.depth] = t if known is None else w.add(known, t)
    for depth in sorted(levels):
        pointer = w.advance(pointer, levels[depth], element)
    return w.advance(pointer, constant(offset, int64), element)


def _spread(em, buffer, index, pointer, lanes):
    """The addresses of all lanes, from that of the scalar part."""
    w = em.w
    parts = list(index.vectors)
    if index.stride.const != 0:
        numbers = lane_numbers(int64, lanes)
        stride = widen(w, index.stride, lanes)
        parts.append(w.pure(f"mul {stride.typed}, {numbers.text}", int64, lanes, stride))
    total = parts[0]
    for p in parts[1:]:
        total = w.pure(f"add {total.typed}, {p.text}", int64, lanes, total, p)
    return w.pure(
        f"getelementptr {MEMORY[buffer.dtype]}, ptr {pointer.text}, {total.typed}",
        PTR, lanes, pointer, total,
    )  # fmt: skip


def _both(w, a, b):
    """The conjunction of two masks; None is all true."""
    if a is None or b is None:
        return b if a is None else a
    return w.pure(f"and {a.typed}, {b.text}", bool_, a.lanes, a, b)


def _condition(em, mask, memo):
    """A mask's value, None if always true."""
    if mask is None:
        return None
    v = em.value(mask, memo)
    return None if v.const else v


def any_lane(w, mask: Value) -> Value:
    """Whether a mask is true in some lane."""
    return w.call(bool_, f"llvm.vector.reduce.or.{mangle('i1', mask.lanes)}", mask, lanes=0)


def _reverse(w, v):
    return _shuffle(w, v, reversed(range(v.lanes)))


def _shuffle(w, a, order, b=None):
    """Elements of ``a`` and, counted on from its last, ``b``; None is any."""
    order = ["i32 poison" if i is None else f"i32 {i}" for i in order]
    b = b.text if b else "poison"
    text = f"shufflevector {a.typed}, {a.type} {b}, <{len(order)} x i32> <{', '.join(order)}>"
    return w.pure(text, a.dtype, len(order), a)


def _by_two(em, index, itemsize) -> bool:
    """Whether lanes are every second element, of two vectors that can be masked."""
    alone = not index.vectors and index.stride.const == 2
    return alone and em.target.masks_memory(itemsize)


def _halves(em, active):
    """For both of two vectors, the mask of every second element, of those that are active."""
    w, lanes = em.w, em.lanes
    if active is None:
        items = ", ".join(f"i1 {word}" for word in ("true", "false") * (lanes // 2))
        return [Value(f"<{items}>", bool_, lanes, 0)] * 2
    if em.target.vector_bytes < 64 or lanes > 32:
        zeros = Value("zeroinitializer", bool_, lanes, 0)
        orders = [
            [lanes if i % 2 else first + i // 2 for i in range(lanes)] for first in (0, lanes // 2)
        ]
        return [_shuffle(w, active, order, zeros) for order in orders]
    # Masks are numbers: there is an instruction that spreads their bits.
    bits = w.pure(f"bitcast {active.typed} to i{lanes}", int64, 0, active)
    size = max(32, 2 * lanes)
    full = w.pure(f"zext i{lanes} {bits.text} to i{size}", int64, 0, bits)
    name = f"llvm.x86.bmi.pdep.{size}"
    w.module.declare(name, f"i{size}", f"i{size}, i{size}")
    every = int("5" * (lanes // 2), 16)
    spread = w.pure(f"call i{size} @{name}(i{size} {full.text}, i{size} {every})", int64, 0, full)
    both = w.pure(f"bitcast i{size} {spread.text} to <{size} x i1>", bool_, size, spread)
    return [_shuffle(w, both, range(first, first + lanes)) for first in (0, lanes)]


def _load_by_two(em, buffer, index, active):
    w, lanes = em.w, em.lanes
    parts = []
    for i, mask in enumerate(_halves(em, active)):
        pointer = address(em, buffer, index, index.offset + i * lanes)
        if active is None and i == 0:  # All of it lies between the first and the last element.
            text = f"load {memory_type(buffer.dtype, lanes)}, ptr {pointer.text}"
            text = f"{text}, align {buffer.dtype.itemsize}"
            parts.append(_from_memory(w, text, buffer, lanes, pointer))
        else:
            parts.append(_masked(w, "load", buffer, lanes, pointer, mask))
    return _shuffle(w, parts[0], range(0, 2 * lanes, 2), parts[1])


def _store_by_two(em, buffer, index, v, active):
    w, lanes = em.w, em.lanes
    for i, mask in enumerate(_halves(em, active)):
        pointer = address(em, buffer, index, index.offset + i * lanes)
        order = [None if j % 2 else (i * lanes + j) // 2 for j in range(lanes)]
        _masked_store(w, "store", buffer.dtype, _shuffle(w, v, order), pointer, mask)


def _from_memory(w, text, buffer, lanes, *operands):
    """Read, and turn bytes into i1 if the buffer is of bools."""
    d = buffer.dtype
    if d is not bool_:
        return w.read(text, d, lanes, buffer, *operands)
    return _to_bool(w, w.read(text, BYTE, lanes, buffer, *operands))


def _to_bool(w, raw):
    return w.pure(f"icmp ne {raw.typed}, {like(w, 0, raw).text}", bool_, raw.lanes, raw)


# Loads


def load(em, e, memo) -> Value:
    """The value of a Load."""
    w = em.w
    mask = _condition(em, e.mask, memo)
    if mask is not None and mask.const is False:
        return em.value(e.other, memo)
    index = index_of(em, e.index, memo)
    if index.vectors or index.stride.const != 0:
        return _load_vector(em, e, index, mask, memo)
    pointer = address(em, e.buffer, index, index.offset)
    if mask is None:
        return _load_scalar(em, e.buffer, pointer)
    wanted = mask if not mask.lanes else any_lane(w, mask)
    # A masked-off load reads zeros that are always there instead of taking a branch.
    safe = w.choose(wanted, pointer, em.module.zeros())
    v, other = _load_scalar(em, e.buffer, safe), em.value(e.other, memo)
    lanes = max(v.lanes, other.lanes, mask.lanes)
    return w.choose(*(widen(w, x, lanes) for x in (mask, v, other)))


def _load_scalar(em, buffer, pointer):
    d = buffer.dtype
    return _from_memory(
        em.w, f"load {MEMORY[d]}, ptr {pointer.text}, align {d.itemsize}", buffer, 0, pointer
    )


def _load_vector(em, e, index, mask, memo):
    w, lanes, d = em.w, em.lanes, e.buffer.dtype
    if mask is not None:
        mask = widen(w, mask, lanes)
    active = _both(w, mask, em.mask)
    stride = index.stride.const
    t = memory_type(d, lanes)
    if not index.vectors and stride in (1, -1):
        offset = index.offset if stride == 1 else index.offset - (lanes - 1)
        pointer = address(em, e.buffer, index, offset)
        if active is None:
            text = f"load {t}, ptr {pointer.text}, align {d.itemsize}"
            v = _from_memory(w, text, e.buffer, lanes, pointer)
            w.loads[v.text] = e.buffer, pointer, w.versions.get(e.buffer, 0)
        elif _copies(em, d, mask, stride):
            v = _load_part(em, e.buffer, pointer)
        else:
            m = active if stride == 1 else _reverse(w, active)
            v = _masked(w, "load", e.buffer, lanes, pointer, m)
        v = v if stride == 1 else _reverse(w, v)
    elif _by_two(em, index, d.itemsize):
        v = _load_by_two(em, e.buffer, index, active)
    else:
        pointer = address(em, e.buffer, index, index.offset)
        pointers = _spread(em, e.buffer, index, pointer, lanes)
        if em.target.gathers(d.itemsize):
            active = active or splat(constant(True, bool_), lanes)
            v = _masked(w, "gather", e.buffer, lanes, pointers, active)
        else:
            v = _load_each(em, e.buffer, pointers, active)
    if mask is None:
        return v
    other = em.value(e.other, memo)
    if other.const == 0 and str(other.const)[0] != "-":
        return v  # Masked-off lanes were given zeros.
    return w.choose(mask, v, widen(w, other, lanes))


def loaded(em, v: Value):
    """(buffer, address) of what a vector was loaded from, if that still stands there, or None."""
    buffer, pointer, version = em.w.loads.get(v.text, (None, None, 0))
    same = buffer is not None and em.w.versions.get(buffer, 0) == version
    return (buffer, pointer) if same else None


def short(em, buffer, pointer, first, lanes) -> Value:
    """A vector of ``lanes``, from the element ``first`` behind an address."""
    d = buffer.dtype
    pointer = em.w.advance(pointer, constant(first, int64), MEMORY[d])
    text = f"load {memory_type(d, lanes)}, ptr {pointer.text}, align {d.itemsize}"
    return _from_memory(em.w, text, buffer, lanes, pointer)


def _load_each(em, buffer, pointers, active):
    """A gather of single loads; lanes that do not count read zeros."""
    w, d, lanes = em.w, buffer.dtype, pointers.lanes
    if active is not None:
        zeros = widen(w, em.module.zeros(), lanes)
        pointers = w.choose(active, pointers, zeros)
    element = BYTE if d is bool_ else d
    v = Value("poison", element, lanes, 0)
    for lane in range(lanes):
        p = w.pure(f"extractelement {pointers.typed}, i64 {lane}", PTR, 0, pointers)
        text = f"load {MEMORY[d]}, ptr {p.text}, align {d.itemsize}"
        x = w.read(text, element, 0, buffer, p)
        v = w.pure(f"insertelement {v.typed}, {x.typed}, i64 {lane}", element, lanes, v, x)
    return v if d is not bool_ else _to_bool(w, v)


def _copies(em, d, mask, stride):
    """Whether the first elements of a vector are copied: there is no instruction for a mask."""
    alone = mask is None and stride == 1 and em.left is not None
    return alone and not em.target.masks_memory(d.itemsize)


def _copy(em, d, to, source):
    w = em.w
    size = w.mul(em.left, constant(d.itemsize, int64))
    w.module.declare("llvm.memcpy.p0.p0.i64", "void", "ptr, ptr, i64, i1")
    w.line(
        f"call void @llvm.memcpy.p0.p0.i64(ptr {to.text}, ptr {source.text}, {size.typed}, i1 0)"
    )


def _load_part(em, buffer, pointer):
    """The ``em.left`` first elements of a vector, through a vector on the stack."""
    w, d, lanes = em.w, buffer.dtype, em.lanes
    t, stack = memory_type(d, lanes), em.stack()
    w.line(f"store {t} zeroinitializer, ptr {stack.text}, align 64")
    _copy(em, d, stack, pointer)
    v = w.here(f"load {t}, ptr {stack.text}, align 64", BYTE if d is bool_ else d, lanes)
    return v if d is not bool_ else _to_bool(w, v)


def _store_part(em, d, v, pointer):
    stack = em.stack()
    em.w.line(f"store {v.typed}, ptr {stack.text}, align 64")
    _copy(em, d, pointer, stack)


def _masked(w, how, buffer, lanes, pointers, mask):
    """A masked load or gather, zero where the mask is false."""
    d = buffer.dtype
    t, kind = memory_type(d, lanes), mangle(MEMORY[d], lanes)
    at = "p0" if how == "load" else mangle("ptr", lanes)
    name = f"llvm.masked.{how}.{kind}.{at}"
    w.module.declare(name, t, f"{pointers.type}, i32, {mask.type}, {t}")
    text = (
        f"call {t} @{name}({pointers.typed}, i32 {d.itemsize}, {mask.typed}, {t} zeroinitializer)"
    )
    return _from_memory(w, text, buffer, lanes, pointers, mask)


# Stores


def store(em, s, memo):
    """Write a Store."""
    w = em.w
    mask = _condition(em, s.mask, memo)
    if mask is not None and mask.const is False:
        return
    d = s.buffer.dtype
    v = em.vector(em.evaluate(s.value, memo))
    index = index_of(em, s.index, memo)
    uniform = not index.vectors and index.stride.const == 0
    if uniform and not v.lanes and (mask is None or not mask.lanes):
        pointer = address(em, s.buffer, index, index.offset)
        text = f"store {_to_memory(w, v).typed}, ptr {pointer.text}, align {d.itemsize}"
        if mask is None:
            w.line(text)
        else:
            w.branch(mask, lambda: (w.line(text), ())[1])
    else:
        _store_vector(em, s.buffer, index, v, mask)
    w.wrote(s.buffer)


def _to_memory(w, v):
    if v.dtype is not bool_:
        return v
    return w.pure(f"zext {v.typed} to {memory_type(bool_, v.lanes)}", BYTE, v.lanes, v)


def _store_vector(em, buffer, index, v, mask):
    w, lanes, d = em.w, em.lanes, buffer.dtype
    v = _to_memory(w, widen(w, v, lanes))
    if mask is not None:
        mask = widen(w, mask, lanes)
    active = _both(w, mask, em.mask)
    stride = index.stride.const
    if not index.vectors and stride in (1, -1):
        offset = index.offset if stride == 1 else index.offset - (lanes - 1)
        pointer = address(em, buffer, index, offset)
        v = v if stride == 1 else _reverse(w, v)
        if active is None:
            w.line(f"store {v.typed}, ptr {pointer.text}, align {d.itemsize}")
            return
        if _copies(em, d, mask, stride):
            _store_part(em, d, v, pointer)
            return
        active = active if stride == 1 else _reverse(w, active)
        _masked_store(w, "store", d, v, pointer, active)
        return
    if _by_two(em, index, d.itemsize):
        _store_by_two(em, buffer, index, v, active)
        return
    pointer = address(em, buffer, index, index.offset)
    if index.vectors or stride != 0:
        pointers = _spread(em, buffer, index, pointer, lanes)
    else:
        pointers = widen(w, pointer, lanes)
    active = active or splat(constant(True, bool_), lanes)
    _masked_store(w, "scatter", d, v, pointers, active)


def _masked_store(w, how, d, v, pointers, mask):
    at = "p0" if how == "store" else mangle("ptr", v.lanes)
    name = f"llvm.masked.{how}.{mangle(MEMORY[d], v.lanes)}.{at}"
    w.module.declare(name, "void", f"{v.type}, {pointers.type}, i32, {mask.type}")
    w.line(f"call void @{name}({v.typed}, {pointers.typed}, i32 {d.itemsize}, {mask.typed})")


def prefetch(em, s, memo):
    """Ask for a line of memory that will be read or written soon; of lanes, for the first's."""
    index = index_of(em, s.index, memo)
    if index.vectors:
        raise ValueError("loops: a prefetch of lanes that are not side by side")
    pointer = address(em, s.buffer, index, index.offset)
    write = int("w" in s.buffer.access)
    em.module.declare("llvm.prefetch.p0", "void", "ptr, i32, i32, i32")
    em.w.line(f"call void @llvm.prefetch.p0({pointer.typed}, i32 {write}, i32 3, i32 1)")
