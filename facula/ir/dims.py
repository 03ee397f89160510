"""Sizes that are not known yet: integers, or polynomials over named symbols.

A :class:`Dim` remembers the value it had when it was made (its *hint*). Arithmetic is symbolic;
asking a question (``a == b``, ``a < b``, ``int(a)``) is answered by the hints, and the answer is
recorded as a *guard* of the trace in progress: what was traced is valid for all sizes for which
the questions have the same answers. Symbols never stand for 1, so asking ``symbol == 1`` needs no
guard (sizes of 1 are traced as the integer 1, because they broadcast).
"""

from __future__ import annotations

import operator
import sys
import threading
from contextlib import contextmanager

_active = threading.local()


class Dim:
    """A polynomial with integer coefficients over atoms: symbols, quotients and remainders."""

    __slots__ = ("terms", "hint", "_hash", "_text", "_symbols")

    def __init__(self, terms: dict, hint: int):
        self.terms = terms  # monomial (sorted tuple of atoms) -> coefficient
        self.hint = hint
        self._hash = self._text = self._symbols = None

    @staticmethod
    def symbol(name: str, hint: int) -> Dim:
        return Dim({(name,): 1}, hint)

    # Arithmetic

    def __add__(self, other):
        if not isinstance(other, (int, Dim)):
            return _as_number(operator.add, self, other)
        terms = dict(self.terms)
        for monomial, coefficient in _terms(other).items():
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return _made(terms, self.hint + hint(other))

    __radd__ = __add__

    def __neg__(self):
        return _made({m: -c for m, c in self.terms.items()}, -self.hint)

    def __sub__(self, other):
        if not isinstance(other, (int, Dim)):
            return _as_number(operator.sub, self, other)
        return self + -other

    def __rsub__(self, other):
        return -self + other if isinstance(other, (int, Dim)) else other - int(self)

    def __mul__(self, other):
        if not isinstance(other, (int, Dim)):
            return _as_number(operator.mul, self, other)
        if isinstance(other, int) and other == 1:
            return self
        terms: dict = {}
        for m1, c1 in self.terms.items():
            for m2, c2 in _terms(other).items():
                monomial = _joined(m1, m2)
                terms[monomial] = terms.get(monomial, 0) + c1 * c2
        return _made(terms, self.hint * hint(other))

    __rmul__ = __mul__

    def __floordiv__(self, other):
        exact = _quotient(self, other)
        if exact is not None:
            return exact
        whole, rest = _whole(self, other)
        return _atom("div", self, other) if whole is None else whole + rest // other

    def __rfloordiv__(self, other):
        return 0 if other == 0 else _atom("div", other, self)

    def __mod__(self, other):
        if _quotient(self, other) is not None:
            return 0
        whole, rest = _whole(self, other)
        return _atom("mod", self, other) if whole is None else rest % other

    def __rmod__(self, other):
        return _atom("mod", other, self)

    # Not a size any more: the trace holds for this very value only

    def __float__(self):
        return float(int(self))

    def __truediv__(self, other):
        return int(self) / (int(other) if isinstance(other, Dim) else other)

    def __rtruediv__(self, other):
        return other / int(self) if isinstance(other, (int, float)) else NotImplemented

    def __pow__(self, other):
        return int(self) ** (int(other) if isinstance(other, Dim) else other)

    def __rpow__(self, other):
        return other ** int(self) if isinstance(other, (int, float)) else NotImplemented

    # Questions

    def __eq__(self, other):
        if not isinstance(other, (int, Dim)):
            return NotImplemented
        if isinstance(other, Dim) and self.terms == other.terms:
            return True
        if isinstance(other, int) and other == 1 and self.is_symbol:
            return False
        if isinstance(other, Dim):
            difference = self - other
            if isinstance(difference, int):
                return difference == 0
        return _ask("eq", self, other)

    def __hash__(self):
        if self._hash is None:
            self._hash = hash(frozenset(self.terms.items()))
        return self._hash

    def __lt__(self, other):
        if not isinstance(other, (int, Dim)):
            return _as_number(operator.lt, self, other)
        return _ask("lt", self, other)

    def __gt__(self, other):
        if not isinstance(other, (int, Dim)):
            return _as_number(operator.gt, self, other)
        return _ask("lt", other, self)

    def __le__(self, other):
        if not isinstance(other, (int, Dim)):
            return _as_number(operator.le, self, other)
        return not _ask("lt", other, self)

    def __ge__(self, other):
        if not isinstance(other, (int, Dim)):
            return _as_number(operator.ge, self, other)
        return not _ask("lt", self, other)

    def __bool__(self):
        return not _ask("eq", self, 0)

    def __index__(self):
        """Specialise: the trace holds for this very value only."""
        _ask("eq", self, self.hint)
        return self.hint

    __int__ = __index__

    @property
    def is_symbol(self) -> bool:
        if len(self.terms) != 1:
            return False
        ((monomial, coefficient),) = self.terms.items()
        return coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], str)

    @property
    def symbols(self) -> frozenset[str]:
        """Names of all symbols in it."""
        if self._symbols is None:
            found: set = set()
            for monomial in self.terms:
                for atom in monomial:
                    if isinstance(atom, str):
                        found.add(atom)
                    else:
                        found.update(*(d.symbols for d in atom[1:] if isinstance(d, Dim)))
            self._symbols = frozenset(found)
        return self._symbols

    def __repr__(self):
        return str(int(self)) if _read_by_user(sys._getframe(1)) else self.text()

    __str__ = __repr__

    def __format__(self, spec):
        user = spec or _read_by_user(sys._getframe(1))
        return format(int(self), spec) if user else self.text()

    def text(self) -> str:
        """The polynomial, written out."""
        if self._text is None:
            parts = []
            for monomial, c in sorted(self.terms.items(), key=_term_text):
                factors = [_atom_text(a) for a in monomial]
                if c != 1 or not factors:
                    factors.insert(0, str(c))
                parts.append("*".join(factors))
            self._text = "+".join(parts).replace("+-", "-")
        return self._text


def _read_by_user(frame) -> bool:
    """Whether a function that is being traced puts a size into a text, which holds its value."""
    if getattr(_active, "guards", None) is None:
        return False
    while frame is not None and frame.f_globals.get("__name__") == "facula.eager.meta":
        frame = frame.f_back  # ``Size``, which writes its sizes
    return frame is not None and not frame.f_globals.get("__name__", "").startswith("facula.")


def _term_text(term):
    return [_atom_text(a) for a in term[0]]


def _joined(m1, m2):
    """The product of two monomials: their atoms, sorted."""
    if not m1 or not m2:
        return m1 or m2
    return tuple(sorted(m1 + m2, key=_atom_text))


def _atom_text(atom):
    if isinstance(atom, str):
        return atom
    kind, a, b = atom
    if kind == "max":
        return f"max({a}, {b})"
    return f"({a} {'//' if kind == 'div' else '%'} {b})"


def _as_number(function, size, other):
    """Arithmetic of a size with a float; with anything else it is the other's."""
    return function(int(size), other) if isinstance(other, float) else NotImplemented


def hint(d) -> int:
    """The value a size had when it was traced."""
    return d.hint if isinstance(d, Dim) else d


def _terms(d):
    return d.terms if isinstance(d, Dim) else ({(): d} if d else {})


def _made(terms, value):
    terms = {m: c for m, c in terms.items() if c}
    if not terms:
        return 0
    if len(terms) == 1 and () in terms:
        return terms[()]
    return Dim(terms, value)


def _atom(kind, a, b):
    b_hint = hint(b)
    value = {
        "div": lambda: hint(a) // b_hint if b_hint else 0,
        "mod": lambda: hint(a) % b_hint if b_hint else 0,
        "max": lambda: max(hint(a), b_hint),
    }[kind]()
    return Dim({((kind, a, b),): 1}, value)


def _quotient(a, b):
    """``a / b`` if the division of polynomials leaves no remainder, else None."""
    divisor = _terms(b)
    if not divisor:
        return None
    lead = max(divisor, key=_order)
    rest, result = dict(a.terms), {}
    while rest:
        top = max(rest, key=_order)
        factor = list(top)
        for atom in lead:
            if atom not in factor:
                return None
            factor.remove(atom)
        if rest[top] % divisor[lead]:
            return None
        coefficient, factor = rest[top] // divisor[lead], tuple(factor)
        result[factor] = coefficient
        for monomial, c in divisor.items():
            key = _joined(monomial, factor)
            left = rest.pop(key, 0) - c * coefficient
            if left:
                rest[key] = left
    return _made(result, a.hint // hint(b) if hint(b) else 0)


def _whole(a, n):
    """(quotient, number) if ``a`` is ``n`` times the quotient and a number, else (None, 0)."""
    rest = a.terms.get((), 0)
    if not rest or not isinstance(n, int) or n <= 0:
        return None, 0
    return _quotient(a - rest, n), rest


def _order(monomial):
    """Monomials by degree, then by name: the order in which a division proceeds."""
    return len(monomial), [_atom_text(a) for a in monomial]


def maximum(a, b):
    """The larger of two sizes, symbolic if it depends."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    if same(a, b) or isinstance(b, int) and b == 0:  # sizes are not negative
        return a
    return b if isinstance(a, int) and a == 0 else _atom("max", a, b)


def same(a, b) -> bool:
    """Whether two sizes are equal whatever the symbols stand for. Records no guard."""
    if isinstance(a, Dim) and isinstance(b, Dim):
        return a.terms == b.terms
    return not isinstance(a, Dim) and not isinstance(b, Dim) and a == b


def product(dims):
    """The product of sizes."""
    result = 1
    for d in dims:
        result = result * d
    return result


def substitute(x, table: dict, keep_hints=False):
    """A size, or params that contain sizes, with symbols replaced by the sizes of a table.

    The table may have quotients too, by their atoms, if it has the symbols in these. Hints follow
    from those of the table, or are kept: if the symbols equal what replaces them.
    """
    if isinstance(x, tuple):
        return tuple(substitute(y, table, keep_hints) for y in x)
    if not isinstance(x, Dim) or x.symbols.isdisjoint(table):
        return x
    total = 0
    for monomial, coefficient in x.terms.items():
        term = coefficient
        for atom in monomial:
            term = term * _substituted(atom, table, keep_hints)
        total = total + term
    if keep_hints and isinstance(total, Dim):
        return Dim(total.terms, x.hint)
    return total


def _substituted(atom, table, keep_hints):
    if isinstance(atom, str):
        return table[atom] if atom in table else Dim.symbol(atom, 0)
    kind, a, b = atom
    a, b = (substitute(d, table, keep_hints) for d in (a, b))
    if kind == "max":
        return maximum(a, b)
    found = a // b if kind == "div" else a % b
    return table.get(_only(found), found)


def _only(d):
    """The atom that a size is, if it is no more."""
    if isinstance(d, Dim) and len(d.terms) == 1:
        ((monomial, coefficient),) = d.terms.items()
        if coefficient == 1 and len(monomial) == 1:
            return monomial[0]
    return None


def evaluate(d, symbols: dict) -> int:
    """The value of a size for given values of its symbols."""
    if not isinstance(d, Dim):
        return d
    total = 0
    for monomial, coefficient in d.terms.items():
        for atom in monomial:
            coefficient *= symbols[atom] if isinstance(atom, str) else _atom_value(atom, symbols)
        total += coefficient
    return total


def _atom_value(atom, symbols):
    kind, a, b = atom
    a, b = evaluate(a, symbols), evaluate(b, symbols)
    if kind == "max":
        return max(a, b)
    if b == 0:
        return 0
    return a // b if kind == "div" else a % b


# Guards ------------------------------------------------------------------------------------------


def _ask(question, a, b) -> bool:
    answer = hint(a) == hint(b) if question == "eq" else hint(a) < hint(b)
    guards = getattr(_active, "guards", None)
    if guards is STRUCTURAL:
        return answer if question == "lt" else False
    if guards is not None:
        guards[question, a, b] = answer
    return answer


class Guards(dict):
    """Questions asked while tracing, each with its answer."""

    def hold(self, symbols: dict) -> bool:
        """Whether all questions have the same answers for these values of the symbols."""
        for (question, a, b), answer in self.items():
            x, y = evaluate(a, symbols), evaluate(b, symbols)
            if (x == y if question == "eq" else x < y) != answer:
                return False
        return True


#: As guards: sizes are equal only if they are so for all values of the symbols (in the compiler).
STRUCTURAL = Guards()


def structural() -> bool:
    """Whether questions are answered by structure alone: in the compiler, after tracing."""
    return getattr(_active, "guards", None) is STRUCTURAL


@contextmanager
def guarding(guards: Guards | None):
    """Record the questions asked inside of the block in ``guards``, or with None nowhere."""
    outer = getattr(_active, "guards", None)
    _active.guards = guards
    try:
        yield guards
    finally:
        _active.guards = outer
