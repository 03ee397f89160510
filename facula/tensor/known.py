"""What is known of a function that runs in pieces: its ops, each after those before it."""

from __future__ import annotations

from functools import lru_cache
from weakref import ref

from facula.base import dtypes as D
from facula.eager import plans
from facula.eager.dispatch import PLAIN
from facula.eager.grad_mode import mode
from facula.eager.meta import Size
from facula.eager.standins import int_input
from facula.eager.tracing import concrete, symbol_names
from facula.ir import dims
from facula.ir.dims import Dim
from facula.tensor.lazy import Lazy, LazyMeta


class Ref:
    """In the arguments of a :class:`Known`: a tensor of the piece by number, or one given to it."""

    __slots__ = ("given", "number")

    def __init__(self, given, number):
        self.given, self.number = given, number

    @staticmethod
    @lru_cache(None)
    def to(given, number) -> Ref:
        """The one such object."""
        return Ref(given, number)


#: A Python int among constant arguments, which becomes a size where it changes.
INT = object()
#: Leaves of results: a new tensor, and the first argument.
MADE, TARGET = object(), object()


class Known:
    """An op that was recorded.

    Attributes:
        following: what identifies a next op, but for numbers -> the :class:`Known` ones.
        next: the one that came last.
        pieces: numbers of the tensors that are alive -> the Piece that ends here.
        head: the Site, (primitive, names of parameters), or "detach". ``grad``: of the mode.
        parts, values: its arguments without numbers, and these.
        kinds: number -> what is required of a tensor that is met here first; or None.
        free: positions among the values of those that may change, and whether they are sizes.
        fixed: the others.
        guards: what was asked of sizes. ``reads``: the inputs whose sizes these and the results
            depend on. ``memo``: shapes of those -> what :meth:`holds` gives.
        made: (shape, dtype, requires_grad, view) of each new tensor.
        structure, leaves: of the result.
        flags: (number, requires_grad) of older tensors, where that changes.
        changed: tensors given that are changed in place for the first time.
        drawn: how many random numbers, or None. ``news``: how many tensors are met here first.
        line: of the user's, where it was recorded.
        match: a function (run, arguments) -> values where this is the op, else None; or None.
        plain: a function (run, shapes) that makes the result, where nothing else is to be done.
    """

    __slots__ = (
        "following", "next", "pieces", "head", "grad", "parts", "values", "kinds", "free", "fixed",
        "guards", "reads", "made", "structure", "leaves", "flags", "changed", "drawn", "line",
        "memo", "match", "plain", "news",
    )  # fmt: skip

    def __init__(self):
        self.following, self.pieces, self.memo, self.next = {}, {}, {}, None

    def holds(self, run, values):
        """Shapes of what it makes for these numbers and how much is drawn, or None.

        The numbers that may change become inputs.
        """
        if not self.free:
            if values != self.values:
                return None
        else:
            if any(values[k] != self.values[k] for k in self.fixed):
                return None
            before = len(run.inputs)
            for k, size in self.free:
                if size and values[k] < 0:
                    del run.inputs[before:]
                    return None
                run.inputs.append(int_input(values[k]) if size else values[k])
        inputs = run.inputs
        key = tuple([inputs[i]._meta.shape for i in self.reads])
        try:
            found = self.memo[key]
        except KeyError:
            if len(self.memo) > 1024:
                self.memo.clear()
            symbols: dict = {}
            for i, shape in zip(self.reads, key):
                symbols.update(zip(symbol_names(i, len(shape)), shape))
            found = self.memo[key] = self._evaluated(symbols)
        if found is None and self.free:
            del inputs[before:]
        return found

    def _evaluated(self, symbols):
        if not self.guards.hold(symbols):
            return None
        drawn = self.drawn and dims.evaluate(self.drawn, symbols)
        return [Size(concrete(made[0], symbols)) for made in self.made], drawn

    def seal(self):
        """Complete it, when all else is said."""
        asked = [self.drawn, *[made[0] for made in self.made], *map(list, self.guards)]
        self.reads = sorted({int(name[1:].split("d")[0]) for name in _symbols(asked)})
        self.fixed = [k for k in range(len(self.values)) if k not in dict(self.free)]
        self.match, self.plain = _matcher(self), None
        if not (self.flags or self.changed or self.drawn is not None):
            self.plain = _giver(self)


def entered(program, number, size):
    """A number of Python's as an input: a size, or a value."""
    if size:
        symbol = Dim.symbol(symbol_names(len(program.inputs), 1)[0], number + 2)
        return program.input(D.bool_, (symbol,)).shape[0] - 2
    return program.input(D.float64 if type(number) is float else D.int64, (), weak=True)


# Arguments ---------------------------------------------------------------------------------------


def built(part, values, standin):
    """The argument that a part stands for."""
    if part is int or part is float or part is INT:
        return next(values)
    if type(part) is Ref:
        return standin(part)
    if type(part) is tuple and part:
        if part[0] is float:
            return float(part[1])
        items = [built(p, values, standin) for p in part[1:]]
        return part[0](*items) if hasattr(part[0], "_fields") else part[0](items)
    return part


def free_of(beside, parts, values):
    """The numbers that differ from those known, and whether they are sizes."""
    if beside is None:
        return ()
    kinds = list(_kinds(parts))
    free = dict(beside.free)
    for k, (a, b) in enumerate(zip(values, beside.values)):
        if a != b or k in free:
            if kinds[k] is not INT:
                free[k] = False
            elif a >= 0 and b >= 0:
                free[k] = True
            else:
                free.pop(k, None)
    return tuple(sorted(free.items()))


def _kinds(part):
    if part is int or part is float or part is INT:
        yield part
    elif type(part) is tuple and not (part and part[0] is float):
        for p in part:
            yield from _kinds(p)


def _symbols(x) -> set:
    if isinstance(x, Dim):
        return set(x.symbols)
    return set().union(*map(_symbols, x)) if isinstance(x, (list, tuple)) else set()


# Functions that are written for an op -------------------------------------------------------------


def _matcher(known):
    """``match`` of an op: the test whether a call is this op with these tensors.

    It says no where it cannot tell; the general way will.
    """
    if known.kinds is None:
        return None
    tests, before, values, constants, new = [], [], [], {}, []

    def constant(x):
        constants[f"c{len(constants)}"] = x
        return f"c{len(constants) - 1}"

    def visit(part, e):
        if part is int or part is INT or part is float:
            tests.append(f"type({e}) is {part.__name__ if part is not INT else 'int'}")
            values.append(e)
            if part is float:
                tests.append(f"{e}")
        elif type(part) is Ref and not part.given:
            tests.append(f"type({e}) is Lazy and {e}._meta.alias is None and "
                         f"{e}._meta.run is run and {e}._meta.number == {part.number}")  # fmt: skip
        elif type(part) is Ref:
            g = f"g{len(before)}"
            before.append(f"{g} = {e}._meta.alias if type({e}) is Lazy else {e}")
            kind = known.kinds.get(part.number)
            if kind is None or part.number in [n for _, n in new]:
                tests.append(f"numbers.get(id({g})) == {part.number}")
                if kind is not None:
                    tests[-1] = f"{g} is {next(h for h, n in new if n == part.number)}"
                return
            tests.append(f"id({g}) not in numbers and id({g}._storage) not in storages and "
                         f"{g}._meta.kind is {constant(kind[0])}")  # fmt: skip
            tests.append(f"({g}._grad_fn is None) is {kind[1]}" if kind[2] else "True")
            if kind[1] and kind[2]:
                tests.append(f"{g}._meta.shape[2:] == {constant(kind[3])}")
            tests.extend(f"{g}._storage is not {h}._storage" for h, _ in new)
            new.append((g, part.number))
        elif type(part) is tuple and part and part[0] is float:
            tests.append(f"type({e}) is float and {e} == {constant(float(part[1]))} != 0")
        elif type(part) is tuple:
            items = part[1:]
            tests.append(f"type({e}) is {constant(part[0])} and len({e}) == {len(items)}")
            for k, p in enumerate(items):
                visit(p, f"{e}[{k}]")
        elif type(part) is str:
            tests.append(f"type({e}) is str and {e} == {constant(part)}")
        else:
            tests.append(f"{e} is {constant(part)}" if type(part) in PLAIN else "False")

    for i, part in enumerate(known.parts):
        visit(part, f"args[{i}]")
    body = "".join(f"      {line}\n" for line in before)
    enter = "".join(f"    run.enter({g})\n" for g, _ in new)
    text = (
        f"def make(Lazy, mode, {', '.join(constants)}):\n"
        f"  def match(run, args):\n"
        f"    numbers, storages = run.numbers, run.storages\n"
        f"    try:\n{body}"
        f"      if not (mode.grad is {known.grad} and {' and '.join(tests) or True}):\n"
        f"        return None\n"
        f"    except (AttributeError, TypeError, IndexError):\n"
        f"      return None\n{enter}"
        f"    return [{', '.join(values)}]\n"
        f"  return match\n"
    )
    return plans.compiled(text)(Lazy, mode, *constants.values())


def _giver(known):
    """``plain`` of an op: new tensors of the piece, and the result made of them."""
    lines, names = [], iter([f"x{k}" for k in range(len(known.made))])
    for k, (_, _, grad, view) in enumerate(known.made):
        lines += [
            f"x{k} = new(Lazy)",
            f"x{k}._meta = m = new(LazyMeta)",
            f"m.shape, m.dtype, m.requires_grad = shapes[{k}], d{k}, {grad}",
            f"m.run, m.alias, m.number, m.view = run, None, len(lazies), {view}",
            f"lazies.append(ref(x{k}))",
        ]
    leaves = iter(known.leaves)

    def expression(structure):
        if structure is None:
            leaf = next(leaves)
            if leaf not in (MADE, TARGET, None):
                raise KeyError
            return next(names) if leaf is MADE else "args[0]" if leaf is TARGET else repr(leaf)
        kind, *rest = structure
        if kind not in (tuple, list):
            raise KeyError
        inside = "".join(expression(s) + ", " for s in rest)
        return f"({inside})" if kind is tuple else f"[{inside}]"

    try:
        result = expression(known.structure)
    except KeyError:
        return None
    dtypes = [f"d{k}" for k in range(len(known.made))]
    inside = "".join(f"    {line}\n" for line in lines)
    text = (
        f"def make({', '.join(['new', 'Lazy', 'LazyMeta', 'ref', *dtypes])}):\n"
        f"  def plain(run, shapes, args):\n    lazies = run.lazies\n{inside}    return {result}\n"
        f"  return plain\n"
    )
    made = [dtype for _, dtype, _, _ in known.made]
    return plans.compiled(text)(object.__new__, Lazy, LazyMeta, ref, *made)
