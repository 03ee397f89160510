"""Unify: sizes that the guards say are equal become one and the same symbol.

After this pass equality of sizes is structural, which is all that later passes ask for.
"""

from __future__ import annotations

from facula.ir import dims
from facula.ir.dims import Dim
from facula.ir.program import Node, Program, Value


def substitution(guards) -> dict[str, object]:
    """Symbol -> size, from the questions of equality that were answered yes."""
    table: dict[str, object] = {}
    for (question, a, b), answer in guards.items():
        if question != "eq" or not answer:
            continue
        a, b = replace(a, table), replace(b, table)
        if dims.same(a, b):
            continue
        name, value = _solved(a, b)
        if name is not None:
            table = {k: replace(v, {name: value}) for k, v in table.items()}
            table[name] = value
    return table


def _solved(a, b):
    """A symbol and the size that it must be for ``a`` to equal ``b``; (None, None) if unclear."""
    difference = a - b
    if not isinstance(difference, Dim):
        return None, None
    for monomial, coefficient in difference.terms.items():
        if len(monomial) == 1 and isinstance(monomial[0], str) and coefficient in (1, -1):
            rest = difference - coefficient * Dim.symbol(monomial[0], 0)
            if monomial[0] not in symbols_of(rest):
                value = -rest if coefficient == 1 else rest
                return monomial[0], _with_hint(value, a, b)
    return None, None


def _with_hint(value, *sides):
    """A symbol's value, its hint taken from the side that is that symbol if one is."""
    for side in sides:
        if isinstance(value, Dim) and isinstance(side, Dim) and side.is_symbol:
            return Dim(value.terms, side.hint)
    return value


def symbols_of(d, found=None) -> set:
    """Names of all symbols in a size."""
    found = set() if found is None else found
    if isinstance(d, Dim):
        for monomial in d.terms:
            for atom in monomial:
                if isinstance(atom, str):
                    found.add(atom)
                else:
                    symbols_of(atom[1], found)
                    symbols_of(atom[2], found)
    return found


def replace(d, table):
    """A size with symbols replaced."""
    if not isinstance(d, Dim) or not table:
        return d
    total = 0
    for monomial, coefficient in d.terms.items():
        product = coefficient
        for atom in monomial:
            product = product * _atom(atom, table)
        total = total + product
    return Dim(total.terms, d.hint) if isinstance(total, Dim) else total


def _atom(atom, table):
    if isinstance(atom, str):
        return table[atom] if atom in table else Dim.symbol(atom, 0)
    kind, a, b = atom
    a, b = replace(a, table), replace(b, table)
    if kind == "max":
        return dims.maximum(a, b)
    return a // b if kind == "div" else a % b


def _params(x, table):
    if isinstance(x, Dim):
        return replace(x, table)
    if isinstance(x, tuple):
        return tuple(_params(y, table) for y in x)
    return x


def unify(program: Program) -> Program:
    """A copy of the program in terms of the fewest symbols."""
    table = substitution(program.guards)
    result = Program(program.name)
    seen: dict[int, Value] = {}

    def shaped(v, node=None):
        new = Value(v.dtype, tuple(replace(n, table) for n in v.shape), node, v.index, v.weak)
        seen[id(v)] = new
        return new

    result.inputs = [shaped(v) for v in program.inputs]
    for node in program.nodes:
        params = {k: _params(p, table) for k, p in node.params.items()}
        copy = Node(node.op, [seen[id(v)] for v in node.inputs], params, ())
        copy.outputs = tuple(shaped(v, copy) for v in node.outputs)
        result.nodes.append(copy)
    result.outputs = [seen[id(v)] for v in program.outputs]
    return result
