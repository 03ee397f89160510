"""Unify: sizes that the guards say are equal become one and the same symbol.

After this pass equality of sizes is structural, which is all that later passes ask for.
"""

from __future__ import annotations

from facula.ir import dims
from facula.ir.dims import Dim
from facula.ir.program import Node, Program, Value


def substitution(guards) -> dict[str, object]:
    """Symbol -> size, from the questions of equality that were answered yes.

    Of symbols that are equal the one of the first input stays.
    """
    table: dict[str, object] = {}
    users: dict[str, set] = {}  # symbol -> those whose sizes it is part of

    def put(name, value):
        table[name] = value
        for part in value.symbols if isinstance(value, Dim) else ():
            users.setdefault(part, set()).add(name)

    equal = [(a, b) for (question, a, b), answer in guards.items() if question == "eq" and answer]
    # Multiples when what is a number is known to be one; what is known of a quotient may tell the
    # symbols in it.
    ways = (_solved, _multiple, _quotient, _solved)
    for a, b, solved in [(*pair, solved) for solved in ways for pair in equal]:
        a, b = dims.substitute(a, table, True), dims.substitute(b, table, True)
        if dims.same(a, b):
            continue
        name, value = solved(a, b)
        if name is not None:
            for user in users.pop(name, ()):
                put(user, dims.substitute(table[user], {name: value}, True))
            put(name, value)
            for part in name[1].symbols if isinstance(name, tuple) else ():
                table.setdefault(part, Dim.symbol(part, 0))
    return table


def substitution_in(guards, known: set) -> dict[str, object]:
    """Symbol -> size in terms of the symbols ``known``, where the guards say that it is one."""
    table: dict[str, object] = {}
    equal = [(a, b) for (question, a, b), answer in guards.items() if question == "eq" and answer]
    while True:
        before = len(table)
        for pair in equal:
            a, b = (dims.substitute(n, table, True) for n in pair)
            for x, y in ((a, b), (b, a)):
                new = isinstance(x, Dim) and x.is_symbol and not known.issuperset(x.symbols)
                if new and (not isinstance(y, Dim) or known.issuperset(y.symbols)):
                    table.update((name, y) for name in x.symbols)
                    break
        if len(table) == before:
            return table


def _solved(a, b):
    """A symbol and the size that it must be for ``a`` to equal ``b``; (None, None) if unclear."""
    difference = a - b
    if not isinstance(difference, Dim):
        return None, None
    single = [m[0] for m in difference.terms if len(m) == 1 and isinstance(m[0], str)]
    for name in sorted(single, key=_age, reverse=True):
        coefficient = difference.terms[name,]
        if coefficient in (1, -1):
            rest = difference - coefficient * Dim.symbol(name, 0)
            if not isinstance(rest, Dim) or name not in rest.symbols:
                return name, _with_hint(-rest if coefficient == 1 else rest, a, b)
    return None, None


def _multiple(a, b):
    """A symbol that is a multiple of a number, and the product of that and the quotient."""
    difference = a - b
    for monomial, c in difference.terms.items() if isinstance(difference, Dim) else ():
        atom = monomial[0] if len(monomial) == 1 else None
        if isinstance(atom, tuple) and atom[0] == "div" and dims.same(atom[2], abs(c)):
            product = Dim({monomial: abs(c)}, dims.hint(atom[1]))
            whole = product - difference * (1 if c > 0 else -1)
            if isinstance(whole, Dim) and whole.is_symbol:
                (name,) = whole.symbols
                return name, product
    return None, None


def _quotient(a, b):
    """A quotient and the size that it is."""
    difference = a - b
    for monomial, c in difference.terms.items() if isinstance(difference, Dim) else ():
        atom = monomial[0] if len(monomial) == 1 else None
        if isinstance(atom, tuple) and atom[0] == "div" and c in (1, -1):
            value = Dim({monomial: 1}, 0) - c * difference
            if not isinstance(value, Dim) or not any(atom in m for m in value.terms):
                return atom, value
    return None, None


def _age(name):
    """Symbols in the order of the inputs that they are sizes of."""
    return len(name), name


def _with_hint(value, *sides):
    """A symbol's value, its hint taken from the side that is that symbol if one is."""
    for side in sides:
        if isinstance(value, Dim) and isinstance(side, Dim) and side.is_symbol:
            return Dim(value.terms, side.hint)
    return value


def unify(program: Program) -> Program:
    """A copy of the program in terms of the fewest symbols."""
    table = substitution(program.guards)
    result = Program(program.name)
    seen: dict[int, Value] = {}

    def shaped(v, node=None):
        new = Value(
            v.dtype, tuple(dims.substitute(n, table, True) for n in v.shape), node, v.index, v.weak
        )
        seen[id(v)] = new
        return new

    result.inputs = [shaped(v) for v in program.inputs]
    for node in program.nodes:
        params = {k: dims.substitute(p, table, True) for k, p in node.params.items()}
        copy = Node(node.op, [seen[id(v)] for v in node.inputs], params, ())
        copy.outputs = tuple(shaped(v, copy) for v in node.outputs)
        result.nodes.append(copy)
    result.outputs = [seen[id(v)] for v in program.outputs]
    return result
