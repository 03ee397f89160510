"""An ONNX graph being written: nodes, constants, and arithmetic on symbolic sizes."""

from __future__ import annotations

import re

import numpy as np

from facula.base import dtypes as D
from facula.base.errors import fail
from facula.ir.dims import Dim
from facula.onnx.errors import OnnxError, need_onnx

#: The numbers of ``onnx.TensorProto.DataType``.
TYPES = {
    D.float32: 1, D.uint8: 2, D.int8: 3, D.int16: 5, D.int32: 6, D.int64: 7, D.bool_: 9,
    D.float16: 10, D.float64: 11, D.bfloat16: 16,
}  # fmt: skip
BY_TYPE = {number: dtype for dtype, number in TYPES.items()}


class Graph:
    """Collects nodes and initializers. Values are names; arrays are known for constants.

    Attributes:
        arrays: initializers by name, as NumPy arrays (bfloat16: as int16 of the same bits).
        dtypes: the dtype of each initializer.
    """

    def __init__(self, opset: int):
        self.opset = opset
        self.nodes: list = []
        self.arrays: dict[str, np.ndarray] = {}
        self.dtypes: dict[str, D.dtype] = {}
        self.names: dict[int, str] = {}  # id of a Program's value -> name
        self._taken: set[str] = set()
        self._constants: dict[tuple, str] = {}
        self._sizes: dict[str, str] = {}

    def fresh(self, wish: str) -> str:
        """A name that no other value has."""
        wish = re.sub(r"[^\w.\-]", "_", wish) or "value"
        name, count = wish, 0
        while name in self._taken:
            count += 1
            name = f"{wish}_{count}"
        self._taken.add(name)
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes):
        """Append a node; the name of its result, or a tuple of names."""
        names = [self.fresh(kind.lower()) for _ in range(outputs)]
        made = need_onnx().helper.make_node(
            kind, list(inputs), names, name=self.fresh(f"{kind}_node"), **attributes
        )
        self.nodes.append(made)
        return names[0] if outputs == 1 else tuple(names)

    # Constants

    def array(self, array: np.ndarray, dtype: D.dtype, wish: str = "constant") -> str:
        """An initializer."""
        name = self.fresh(wish)
        self.arrays[name], self.dtypes[name] = array, dtype
        return name

    def constant(self, value, dtype: D.dtype) -> str:
        """A small constant, each kept once: a number or nested lists of numbers."""
        key = (repr(value), dtype)
        if key not in self._constants:
            array = np.asarray(value, bfloat_or(dtype))
            self._constants[key] = self.array(bits_of(array, dtype), dtype)
        return self._constants[key]

    def vector(self, values) -> str:
        """Ints as a constant int64 vector."""
        return self.constant([int(v) for v in values], D.int64)

    # Sizes

    def size(self, n) -> str:
        """A size as an int64 vector of one element."""
        if not isinstance(n, Dim):
            return self.vector([n])
        key = str(n)
        if key not in self._sizes:
            self._sizes[key] = self._computed(n)
        return self._sizes[key]

    def know(self, symbol: Dim, name: str, dim: int) -> None:
        """The symbol is a size of the input ``name``."""
        if str(symbol) not in self._sizes:
            self._sizes[str(symbol)] = self.op("Shape", name, start=dim, end=dim + 1)

    def _computed(self, n: Dim) -> str:
        if n.is_symbol:
            fail(OnnxError, "onnx", f"the size {n} is given by no input")
        total = None
        for monomial, coefficient in n.terms.items():
            factors = [self._atom(a) for a in monomial]
            if coefficient != 1 or not factors:
                factors.append(self.vector([coefficient]))
            term = factors[0]
            for f in factors[1:]:
                term = self.op("Mul", term, f)
            total = term if total is None else self.op("Add", total, term)
        return total

    def _atom(self, atom) -> str:
        if isinstance(atom, str):
            return self.size(Dim({(atom,): 1}, 0)) if atom not in self._sizes else self._sizes[atom]
        kind, a, b = atom
        name = {"div": "Div", "mod": "Mod", "max": "Max"}[kind]
        return self.op(name, self.size(a), self.size(b))

    def sizes(self, shape) -> str:
        """Sizes as an int64 vector: a constant where all are known."""
        if all(not isinstance(n, Dim) for n in shape):
            return self.vector(shape)
        return self.op("Concat", *(self.size(n) for n in shape), axis=0)

    def scalar(self, n) -> str:
        """A size as an int64 scalar."""
        if not isinstance(n, Dim):
            return self.constant(int(n), D.int64)
        return self.op("Reshape", self.size(n), self.vector([]))

    # Small things that many mappings need

    def cast(self, x: str, dtype: D.dtype) -> str:
        return self.op("Cast", x, to=TYPES[dtype])

    def reshape(self, x: str, shape) -> str:
        """``x`` in that shape; one symbolic size is left for the runtime to infer."""
        symbolic = [i for i, n in enumerate(shape) if isinstance(n, Dim)]
        if len(symbolic) == 1 and 0 not in [n for n in shape if not isinstance(n, Dim)]:
            return self.op(
                "Reshape", x, self.vector([-1 if isinstance(n, Dim) else n for n in shape])
            )
        keep = {"allowzero": 1} if symbolic or 0 in shape else {}
        return self.op("Reshape", x, self.sizes(shape), **keep)

    def unsqueeze(self, x: str, *dims: int) -> str:
        return self.op("Unsqueeze", x, self.vector(dims))

    def squeeze(self, x: str, *dims: int) -> str:
        return self.op("Squeeze", x, self.vector(dims))

    def expand(self, x: str, v, shape) -> str:
        """``x``, the value ``v``, repeated to ``shape``; sizes that it has are left to it."""
        extra = len(shape) - v.ndim
        own = [1] * extra + [1 if str(n) == str(m) else m for n, m in zip(v.shape, shape[extra:])]
        return self.op("Expand", x, self.sizes([*shape[:extra], *own[extra:]]))

    def reduce(self, kind: str, x: str, dims, keep: bool = False) -> str:
        return self.op(kind, x, self.vector(dims), keepdims=int(keep))


def bfloat_or(dtype: D.dtype):
    """The NumPy dtype, float32 for bfloat16."""
    return np.dtype("float32" if dtype is D.bfloat16 else dtype.name)


def bits_of(array: np.ndarray, dtype: D.dtype) -> np.ndarray:
    """float32 as the upper half of its bits for bfloat16 (rounded to even); others as they are."""
    if dtype is not D.bfloat16:
        return array
    bits = array.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)).astype(
        np.uint16
    )
