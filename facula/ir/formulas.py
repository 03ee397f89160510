"""Formulas: what is to be computed from sizes, as one list of instructions.

A launch at new sizes needs dozens of numbers: shapes and bytes of results, sizes and offsets for
kernels, scratch memory. Each is a polynomial (``ir.dims``) or an index expression of a kernel
(``ir.loops``). To walk over those trees at every new size costs a hundred times the arithmetic, so
they are written once as instructions, equal ones once, which ``runtime.formulas`` runs.

An instruction is (operation, a, b); its value is named by its number. ``input a`` is the integer
of the a-th name, ``const a`` is ``a``; the others take the numbers of two earlier instructions.
Division and remainder are those of Python, and 0 where the divisor is. Code is a row of words: the
numbers of instructions, guards and results, the instructions, for each guard an instruction and
the value it must have, for each result an instruction.
"""

from __future__ import annotations

import array

from facula.ir import loops as L
from facula.ir.dims import Dim

OPERATIONS = ("input", "const", "add", "sub", "mul", "div", "mod", "min", "max", "eq", "lt")
_NUMBER = {name: i for i, name in enumerate(OPERATIONS)}


class Formulas:
    """A list of instructions under construction.

    Attributes:
        names: of the inputs.
        results: instructions whose values are wanted, in order.
    """

    def __init__(self):
        self.names: list[str] = []
        self.results: list[int] = []
        self._known: dict[tuple, int] = {}
        self._place: dict[int, int] = {}
        self._guards: list[int] = []

    def want(self, e, names=None) -> int:
        """The place among the results of the value of a size or an index expression.

        Args:
            names: what the variables of an index expression stand for, instead of inputs.
        """
        return self._wanted(self._of(e, names))

    def want_product(self, factors) -> int:
        """The place of a product of sizes."""
        product = None
        for factor in map(self._of, factors):
            product = factor if product is None else self._do("mul", product, factor)
        return self._wanted(self._of(1) if product is None else product)

    def guard(self, question: str, a, b, answer: bool) -> None:
        """Demand that ``a == b`` ("eq") or ``a < b`` ("lt") has this answer."""
        self._guards += (self._do(question, self._of(a), self._of(b)), int(answer))

    def code(self) -> bytes:
        """The words, as the runtime takes them."""
        head = [len(self._known), len(self._guards) // 2, len(self.results)]
        instructions = [word for instruction in self._known for word in instruction]
        return array.array("q", head + instructions + self._guards + self.results).tobytes()

    def _wanted(self, number):
        if number not in self._place:
            self._place[number] = len(self.results)
            self.results.append(number)
        return self._place[number]

    def _do(self, operation, a, b=0) -> int:
        return self._known.setdefault((_NUMBER[operation], a, b), len(self._known))

    def _input(self, name):
        if name not in self.names:
            self.names.append(name)
        return self._do("input", self.names.index(name))

    def _of(self, e, names=None) -> int:
        if isinstance(e, int):
            return self._do("const", e)
        if isinstance(e, Dim):
            return self._sum(e.terms)
        if isinstance(e, L.Const):
            return self._do("const", e.value)
        if isinstance(e, L.Var):
            return self._input(e.name) if names is None else self._of(names[e.name])
        operation = "mod" if e.name == "rem" else e.name
        return self._do(operation, *(self._of(a, names) for a in e.args))

    def _sum(self, terms):
        total = None
        for monomial, coefficient in terms.items():
            value = None if monomial and coefficient == 1 else self._do("const", coefficient)
            for atom in monomial:
                factor = self._atom(atom)
                value = factor if value is None else self._do("mul", value, factor)
            total = value if total is None else self._do("add", total, value)
        return self._do("const", 0) if total is None else total

    def _atom(self, atom):
        if isinstance(atom, str):
            return self._input(atom)
        kind, a, b = atom
        return self._do(kind, self._of(a), self._of(b))
