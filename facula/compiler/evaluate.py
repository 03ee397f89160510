"""Evaluate: the expression of one element of a value, pulled from memory through its nodes."""

from __future__ import annotations

from contextlib import contextmanager

from facula.base import dtypes as D
from facula.compiler.views import is_one, reshape_groups, resolve
from facula.ir import loops as L
from facula.ir.dims import Dim
from facula.ops.movement import contiguous_strides


class Row:
    """A value of one row that a pass computes and later passes read from scratch memory."""

    def __init__(self, buffer, aligned, position):
        self.buffer, self.aligned, self.position = buffer, aligned, position
        self.stored = False


class Scope:
    """A kernel being written: its parameters, what they are bound to, and values so far.

    Attributes:
        bindings: parameter name -> ("memory", kind, number) | ("size", Dim) | ("number", input).
        known: id of a value computed in this kernel -> its expression.
    """

    def __init__(self, name, places, numbers):
        self.k = L.Builder(name)
        self.places, self.numbers = places, numbers
        self.bindings: dict[str, tuple] = {}
        self.known: dict[int, L.Expr] = {}
        self._buffers: dict = {}
        self._sizes: dict = {}
        self._numbers: dict = {}
        self._memo: list[dict] = [{}]
        self.checks: list = []  # status - 1 -> (node, dimension) that a failed check is about
        self.pending: set[int] = set()  # roots of this kernel that no earlier pass has stored
        self.rows: dict[int, Row] = {}  # dear values that an earlier pass has kept
        self.mask = None  # where it is false, memory must not be read (padding)

    # Parameters

    def buffer(self, place, access="r") -> L.Buffer:
        """The buffer parameter of a place's memory, shifted to its offset."""
        key = (place.kind, place.number, place.offset, place.dtype)
        if key not in self._buffers:
            # Named by order, so that kernels alike but for where they read and write are one.
            name = f"b{len(self._buffers)}"
            self._buffers[key] = self.k.buffer(name, place.dtype, access)
            self.bindings[name] = (
                "memory",
                place.kind,
                place.number,
                place.offset * place.dtype.itemsize,
            )
        buffer = self._buffers[key]
        if access != buffer.access:
            buffer.access = "rw"
        return buffer

    def size(self, n) -> L.Expr:
        """A size as an index expression."""
        if not isinstance(n, Dim):
            return L.Const(n, D.int64)
        if n not in self._sizes:
            name = f"n{len(self._sizes)}"
            self._sizes[n] = self.k.size(name)
            self.bindings[name] = ("size", n)
        return self._sizes[n]

    def number(self, i, dtype) -> L.Expr:
        """A Python number given at launch."""
        if i not in self._numbers:
            name = f"a{len(self._numbers)}"
            self._numbers[i] = self.k.scalar(name, D.float64 if dtype.kind == "f" else D.int64)
            self.bindings[name] = ("number", i)
        var = self._numbers[i]
        return var if dtype is var.dtype else L.cast(var, dtype)

    def scratch(self, name, dtype, elements, per_thread=False) -> L.Buffer:
        return self.k.scratch(name, dtype, elements, per_thread)

    @contextmanager
    def fresh_values(self):
        """Values computed inside of the block are not visible after it."""
        self._memo.append({})
        try:
            yield
        finally:
            self._memo.pop()

    # Addresses

    def position(self, index, strides) -> L.Expr:
        total = L.Const(0, D.int64)
        for i, stride in zip(index, strides):
            total = total + i * self.size(stride)
        return total

    def load(self, place, index) -> L.Expr:
        return self.buffer(place).load(self.position(index, place.strides), self.mask)

    def store(self, place, index, value) -> None:
        self.k.store(
            self.buffer(place, "w"), self.position(index, place.strides), L.cast(value, place.dtype)
        )

    # Values

    def element(self, v, index) -> L.Expr:
        """The expression of ``v[index]``."""
        if id(v) in self.known:
            return self.known[id(v)]
        key = (id(v), *map(_index_key, index))
        for memo in self._memo:
            if key in memo:
                return memo[key]
        row = self.rows.get(id(v))
        if row is not None and row.stored and row.aligned(index):
            expr = row.buffer[row.position()]
        else:
            expr = self._compute(v, index)
        if not isinstance(expr, (L.Const, L.Var)):
            expr = self.k.let(expr, "v")
        if row is not None and not row.stored and row.aligned(index):
            self.k.store(row.buffer, row.position(), expr)
        self._memo[-1][key] = expr
        return expr

    def _compute(self, v, index):
        if id(v) in self.numbers:
            return self.number(self.numbers[id(v)], v.dtype)
        if not self._awaited(v):
            place = resolve(v, self.places)
            if place is not None:
                return self.load(place, index)
        node = v.node
        kind = node.op.kind
        if kind == "pointwise":
            operands = [self.element(x, index) for x in node.inputs]
            return node.op.emit(*operands, **node.params)
        if kind == "source":
            return self._source(node, index)
        if kind == "movement":
            return self._moved(node, index)
        if kind == "gather":
            return self._gathered(node, index)
        raise AssertionError(f"{node.op.name} reached without having been computed")

    def _awaited(self, v) -> bool:
        """Whether ``v``, or what it is a view of, is computed here and not in memory yet."""
        while id(v) not in self.known and id(v) not in self.pending:
            if v.node is None or v.node.op.kind != "movement" or v.node.op.view is None:
                return False
            v = v.node.inputs[0]
        return True

    def _source(self, node, index):
        name, params = node.op.name, node.params
        if name == "constant":
            return L.Const(params["value"], params["dtype"])
        if name == "size":
            return L.cast(self.size(params["n"]), params["dtype"])
        if name == "positions":
            return self.position(index, contiguous_strides(params["shape"]))
        raise AssertionError(f"source {name} has no lowering")

    def _moved(self, node, index):
        """The operand's element that a movement brings to ``index``."""
        x, params, name = node.inputs[0], node.params, node.op.name
        zero = L.Const(0, D.int64)
        if name == "expand":
            tail = index[len(index) - x.ndim :]
            return self.element(x, [zero if is_one(n) else i for n, i in zip(x.shape, tail)])
        if name == "permute":
            source = [None] * x.ndim
            for i, d in zip(index, params["order"]):
                source[d] = i
            return self.element(x, source)
        if name == "reshape":
            return self.element(x, self._reshaped(x.shape, node.outputs[0].shape, index))
        source = list(index)
        if name == "slice":
            d = params["dim"]
            source[d] = index[d] * self.size(params["step"]) + self.size(params["start"])
        elif name == "flip":
            for d in params["dims"]:
                source[d] = self.size(x.shape[d]) - 1 - index[d]
        elif name == "windows":
            d = params["dim"]
            source[d] = index[d] * self.size(params["step"]) + index[d + 1] * self.size(
                params["dilation"]
            )
            del source[d + 1]
        else:
            return self._padded(x, params, source)
        return self.element(x, source)

    def _reshaped(self, shape, out_shape, index):
        """The operand's index: dimensions that are split or joined go through a flat position."""
        result = [L.Const(0, D.int64)] * len(shape)
        for ours, theirs in reshape_groups(shape, out_shape):
            if len(ours) == len(theirs) == 1:
                result[ours[0]] = index[theirs[0]]
                continue
            strides = contiguous_strides([out_shape[d] for d in theirs])
            flat = self.k.let(self.position([index[d] for d in theirs], strides), "p")
            for d in reversed(ours[1:]):
                result[d] = flat % self.size(shape[d])
                flat = flat // self.size(shape[d])
            if ours:
                result[ours[0]] = flat
        return result

    def _padded(self, x, params, source):
        d, step = params["dim"], params["between"] + 1
        i = self.k.let(source[d] - self.size(params["before"]), "p")
        inside = (i >= 0) & (i < self.size((x.shape[d] - 1) * step + 1))
        if step != 1:
            inside = inside & L.compare("eq", i % self.size(step), 0)
            i = i // self.size(step)
        source[d] = i
        value = L.as_expr(_number(params["value"], x.dtype), x.dtype)
        return L.select(inside, self._masked(x, source, inside), value)

    def _masked(self, x, source, mask):
        """An element read from memory only where ``mask`` holds."""
        mask = self.k.let(mask, "m")
        outer, self.mask = self.mask, mask if self.mask is None else self.mask & mask
        with self.fresh_values():
            value = self.element(x, source)
        self.mask = outer
        return value

    def _gathered(self, node, index):
        """An element at a position that is data: checked, and read only if inside."""
        x, where = node.inputs
        if node.op.name == "take":
            d = node.params["dim"]
            n = where.ndim
            picks = [(d, self.element(where, index[d : d + n]))]
            source = [*index[:d], None, *index[d + n :]]
        elif node.op.name == "gather":
            d = node.params["dim"]
            picks, source = [(d, self.element(where, index))], list(index)
        else:
            count = where.shape[1]
            picks = [
                (d, self.element(where, [index[0], L.Const(d, D.int64)])) for d in range(count)
            ]
            source = [None] * count + list(index[1:])
        mask = None
        for d, at in picks:
            inside = self.k.let((at >= 0) & (at < self.size(x.shape[d])), "m")
            self.checks.append((node, d))
            allowed = inside if self.mask is None else inside | ~self.mask
            self.k.check(allowed, len(self.checks))
            mask = inside if mask is None else mask & inside
            source[d] = at
        return self._masked(x, source, mask)


def _index_key(e):
    return ("const", e.value) if isinstance(e, L.Const) else id(e)


def _number(value, dtype):
    return float(value) if dtype.kind == "f" else bool(value) if dtype.kind == "b" else int(value)
