"""What is known of a function that runs in pieces: its ops, each after those before it."""

from __future__ import annotations

from functools import lru_cache
from weakref import ref

from facula.base import dtypes as D
from facula.eager import plans
from facula.eager.dispatch import PLAIN
from facula.eager.grad_mode import mode
from facula.eager.meta import Size
from facula.eager.standins import Int, int_input
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
        free: of those that may change (position among the values, whether it is a size, the input
            that is the same number or None for one of its own).
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
        quick: a function (run, arguments) that does all of it where this is the op; or None.
    """

    __slots__ = (
        "following", "next", "pieces", "head", "grad", "parts", "values", "kinds", "free", "fixed",
        "guards", "reads", "made", "structure", "leaves", "flags", "changed", "drawn", "line",
        "memo", "match", "quick", "news",
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
            for k, size, same in self.free:
                if same is not None:
                    fits = run.inputs[same]._meta.shape[0] == values[k] + 2
                else:
                    fits = not size or values[k] >= 0
                if not fits:
                    del run.inputs[before:]
                    return None
                if same is None:
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
        free = {k for k, _, _ in self.free}
        self.fixed = [k for k in range(len(self.values)) if k not in free]
        self.match, self.quick = _written(self)


def entered(program, number, size, same):
    """A number of Python's as an input: a size, or a value."""
    if same is not None:
        return program.inputs[same].shape[0] - 2
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


def free_of(beside, parts, values, inputs):
    """The numbers that differ from those known, as :class:`Known` has them."""
    if beside is None:
        return ()
    kinds = list(_kinds(parts))
    free = {k: size for k, size, _ in beside.free}
    for k, (a, b) in enumerate(zip(values, beside.values)):
        if a != b or k in free:
            if kinds[k] is not INT:
                free[k] = False
            elif a >= 0 and b >= 0:
                free[k] = True
            else:
                free.pop(k, None)
    ints = {x._meta.shape[0] - 2: i for i, x in enumerate(inputs) if type(x) is Int}
    return tuple([(k, s, ints.get(values[k]) if s else None) for k, s in sorted(free.items())])


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


class _Tests:
    """What has to be so of the arguments of a call for it to be an op that is known.

    Attributes:
        before, tests: statements, and expressions that have to be true.
        values: expressions of the numbers. ``new``: of tensors met first, with their numbers.
        constants: by name.
    """

    def __init__(self, known):
        self.known, self.before, self.tests, self.values = known, [], [], []
        self.new, self.constants = [], {}
        for i, part in enumerate(known.parts):
            self.visit(part, f"args[{i}]")

    def constant(self, x):
        name = f"c{len(self.constants)}"
        self.constants[name] = x
        return name

    def visit(self, part, e):
        """Test an argument, or an item of one."""
        tests = self.tests
        if part is int or part is INT or part is float:
            tests.append(f"type({e}) is {'float' if part is float else 'int'}")
            if part is float:
                tests.append(e)  # zeros of both signs are constants
            if len(self.values) in self.known.fixed:
                tests[-1] += f" and {e} == {self.constant(self.known.values[len(self.values)])}"
            self.values.append(e)
        elif type(part) is Ref and part.given:
            self.given(part.number, e)
        elif type(part) is Ref:
            tests.append(f"type({e}) is Lazy and {e}._meta.alias is None and "
                         f"{e}._meta.run is run and {e}._meta.number == {part.number}")  # fmt: skip
        elif type(part) is tuple and part and part[0] is float:
            c = self.constant(float(part[1]))
            tests.append(f"type({e}) is float and {e} == {c} != 0")
        elif type(part) is tuple:
            kind, *items = part
            tests.append(f"type({e}) is {self.constant(kind)} and len({e}) == {len(items)}")
            for k, p in enumerate(items):
                self.visit(p, f"{e}[{k}]")
        elif type(part) is str:
            tests.append(f"type({e}) is str and {e} == {self.constant(part)}")
        else:
            tests.append(f"{e} is {self.constant(part)}" if type(part) in PLAIN else "False")

    def given(self, number, e):
        """Test for a tensor that is an input, met before or now."""
        g, kind = f"g{len(self.before)}", self.known.kinds.get(number)
        self.before.append(f"{g} = {e}._meta.alias if type({e}) is Lazy else {e}")
        again = [h for h, n in self.new if n == number]
        if again or kind is None:
            self.tests.append(
                f"{g} is {again[0]}" if again else f"numbers.get(id({g})) == {number}"
            )
            return
        interned, leaf, grad, sizes = kind
        self.tests.append(f"id({g}) not in numbers and id({g}._storage) not in storages and "
                          f"{g}._meta.kind is {self.constant(interned)}")  # fmt: skip
        if grad:
            self.tests.append(f"({g}._grad_fn is None) is {leaf}")
        if leaf:
            self.tests.append(f"{g}._meta.shape[2:] == {self.constant(sizes)}")
        self.tests += [f"{g}._storage is not {h}._storage" for h, _ in self.new]
        self.new.append((g, number))


def _written(known):
    """``match`` and ``quick`` of an op.

    They say no where they cannot tell; the general way will.
    """
    if known.kinds is None:
        return None, None
    t = _Tests(known)
    body = [
        "numbers, storages, where = run.numbers, run.storages, run.where",
        "inputs, met = run.inputs, run.met",
        "try:",
        *[f"  {line}" for line in t.before],
        f"  if not (mode.grad is {known.grad} and {' and '.join(t.tests) or True}):",
        "    return None",
        "except (AttributeError, TypeError, IndexError):",
        "  return None",
    ]
    for g, number in t.new:
        body += [
            f"numbers[id({g})] = storages[id({g}._storage)] = {number}",
            f"where.append(len(inputs)); inputs.append({g}); met.append(({g}, True))",
        ]
    constants = {"Lazy": Lazy, "mode": mode, **t.constants}
    values = f"[{', '.join(t.values)}]"
    match = _function("match", [*body, f"return {values}"], constants)
    given = _giving(known)
    if given is None:
        return match, None
    if known.free:
        body += [f"values = {values}", "found = known.holds(run, values)"]
    else:
        reads = "".join([f"inputs[{i}]._meta.shape, " for i in known.reads])
        body += ["values = known.values", f"found = memo.get(({reads}))"]
    body += [
        "if found is None:",
        f"  run.leave(len(met) - {len(t.new)})",
        "  return None",
        "shapes, lazies = found[0], run.lazies",
        "run.path.append((known, values))",
        "run.at = known",
        *given,
    ]
    made = {f"d{k}": dtype for k, (_, dtype, _, _) in enumerate(known.made)}
    more = {"known": known, "memo": known.memo, "new": object.__new__, "ref": ref}
    return match, _function("quick", body, {**constants, **made, **more, "LazyMeta": LazyMeta})


def _function(name, body, constants):
    inside = "".join([f"    {line}\n" for line in body])
    head = f"def make({', '.join(constants)}):\n  def {name}(run, args):\n"
    return plans.compiled(f"{head}{inside}  return {name}\n")(*constants.values())


def _giving(known):
    """Statements that make new tensors of the piece and give the result, if there is no more."""
    if known.flags or known.changed or known.drawn is not None:
        return None
    lines = []
    for k, (_, _, grad, view) in enumerate(known.made):
        lines += [
            f"x{k} = new(Lazy)",
            f"x{k}._meta = m = new(LazyMeta)",
            f"m.shape, m.dtype, m.requires_grad = shapes[{k}], d{k}, {grad}",
            f"m.run, m.alias, m.number, m.view = run, None, len(lazies), {view}",
            f"lazies.append(ref(x{k}))",
        ]
    names, leaves = iter([f"x{k}" for k in range(len(known.made))]), iter(known.leaves)
    words = {id(TARGET): lambda: "args[0]", id(MADE): lambda: next(names), id(None): lambda: "None"}

    def expression(structure):
        if structure is None:
            return words[id(next(leaves))]()
        kind, *rest = structure
        inside = "".join(expression(s) + ", " for s in rest)
        return {tuple: f"({inside})", list: f"[{inside}]"}[kind]

    try:
        return [*lines, f"return {expression(known.structure)}"]
    except KeyError:
        return None
