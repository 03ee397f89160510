"""Schedule: a group of fused roots as the loop nest of one kernel.

Dimensions that are one dimension in all memory that the kernel touches are merged. Three nests:

*flat*    no reduction: outer dimensions in parallel, the innermost in vector lanes.
*rows*    the innermost dimension is reduced: kept dimensions in parallel; for each of them one
          pass over the reduced dimensions per level of reduction, in vector lanes.
*columns* the innermost dimension is kept, or windows are reduced: the innermost kept one runs in
          vector lanes, reductions run serially.

A reduction to a single element is split into blocks of a fixed size, so that its order does not
depend on the number of threads, and the blocks' results are reduced in order.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager

from facula.base import dtypes as D
from facula.compiler.combine import accumulator, exact, neutral, operator
from facula.compiler.evaluate import Row, Scope
from facula.compiler.simplify import same_shape
from facula.compiler.views import ZERO, is_one, of_windows, operand_maps, resolve, scrambles
from facula.ir import dims
from facula.ir import loops as L
from facula.ops.movement import contiguous_strides

#: Elements that one parallel chunk should have at least: about 10 µs of work.
CHUNK = 16384
#: Elements of one block of a reduction to a single element; part of the definition of its order.
BLOCK = 16384
#: Columns of one block in the "columns" nest: eight vectors of 64 bytes of float32.
COLUMNS = 128
#: A block of columns asks for so many rows ahead of so many arrays, which processors do not foresee
#: (other columns come next in memory); more would meet in one set of a cache.
AHEAD, ARRAYS = 4, 2
#: Most elements of a window that is reduced element by element, neighbours in lanes.
WINDOW = 64
#: Side of a tile where memory is read across the direction in which it is written.
TILE = 32
#: Pointwise ops that cost more than keeping their result for a later pass.
DEAR = frozenset("exp exp2 expm1 log log1p tanh erf sigmoid sin cos pow random_bits".split())


class Run:
    """Consecutive dimensions of the full shape that one loop runs over.

    ``joined``: the run before is reduced as well, so that both are one where order matters.
    """

    def __init__(self, members, size, reduced, joined=False):
        self.members, self.size, self.reduced, self.joined = members, size, reduced, joined


class Schedule:
    """Writes the kernel of one group."""

    def __init__(self, group, fusion, places, numbers, name):
        self.group, self.fusion, self.places = group, fusion, places
        self.scope = Scope(name, places, numbers)
        self.k = self.scope.k
        self.full = group.full
        self.reduced = set(group.reduced or ())
        self.levels: dict[int, int] = {}
        self.index = [L.Const(0, D.int64)] * len(self.full)
        for root in group.roots:
            self._level(root)
        self.scope.pending = set(map(id, group.roots))
        self.runs = self._merge()

    def kernel(self):
        outer = [r for r in self.runs if not r.reduced]
        inner = [r for r in self.runs if r.reduced]
        if self.group.reduced is None:
            self._flat(outer)
        elif not outer:
            self._single(inner)
        elif inner and self.runs[-1].reduced and not self._windowed(inner):
            self._rows(outer, inner)
        else:
            self._columns(outer, inner)
        return self.k.kernel()

    def _windowed(self, inner):
        """Whether what is reduced are windows of a few elements, as in pooling.

        They are for all sizes if once: how large a window is is part of the op. So the order in
        which one is reduced, serially, is fixed.
        """
        sizes = [r.size for r in inner]
        if not all(isinstance(n, int) for n in sizes) or dims.product(sizes) > WINDOW:
            return False
        return all(of_windows(r.node.inputs[0]) for r in self._reductions())

    # What is computed when

    def _is_reduction(self, v):
        return v.node is not None and v.node.op.kind == "reduce"

    def _in_group(self, v):
        return self.fusion.group_of.get(id(v)) is self.group

    def _level(self, v):
        """How many reductions of this group, one after the other, ``v`` waits for."""
        if id(v) in self.levels:
            return self.levels[id(v)]
        level = 0
        if v.node is not None and (id(v) not in self.fusion.roots or self._in_group(v)):
            level = max((self._level(x) for x in v.node.inputs), default=0)
            if self._is_reduction(v):
                level += 1
        self.levels[id(v)] = level
        return level

    def _full_roots(self):
        return [r for r in self.group.roots if self.group.holds_all(r)]

    def _kept_roots(self):
        full = set(map(id, self._full_roots()))
        return [r for r in self.group.roots if not self._is_reduction(r) and id(r) not in full]

    def _reductions(self):
        return [r for r in self.group.roots if self._is_reduction(r)]

    # Merging dimensions

    def _merge(self):
        members = [d for d, n in enumerate(self.full) if not is_one(n)]
        accesses = self._accesses()
        runs: list[Run] = []
        for d in members:
            reduced = d in self.reduced
            if runs and runs[-1].reduced == reduced and accesses is not None:
                last = runs[-1].members[-1]
                if all(_mergeable(a, last, d, self.full[d]) for a in accesses):
                    runs[-1].members.append(d)
                    runs[-1].size = runs[-1].size * self.full[d]
                    continue
            joined = reduced and bool(runs) and runs[-1].reduced
            runs.append(Run([d], self.full[d], reduced, joined))
        return runs

    def _accesses(self):
        """For every access to memory, the stride a loop dimension has in it; None: unknown."""
        found, seen = [], set()

        def access(place_strides, index_map):
            strides = {}
            for m, s in zip(index_map, place_strides):
                if m is None:
                    return False
                if m != ZERO:
                    strides[m] = s
            found.append(strides)
            return True

        def walk(v, index_map):
            if (id(v), index_map) in seen:
                return True
            seen.add((id(v), index_map))
            if id(v) in self.scope.numbers or self._in_group(v) and id(v) not in self.places:
                return True
            place = resolve(v, self.places)
            if place is not None:
                return access(place.strides, index_map)
            if v.node.op.kind == "source":
                if v.node.op.name != "positions":
                    return True
                return access(contiguous_strides(v.shape), index_map)
            if scrambles(v.node, index_map):
                return False
            return all(walk(x, m) for x, m in zip(v.node.inputs, operand_maps(v.node, index_map)))

        for root in self.group.roots:
            own = self.group.map_of(root)
            if self._is_reduction(root):
                full = tuple(ZERO if is_one(n) else d for d, n in enumerate(self.full))
                fine = walk(root.node.inputs[0], full)
            else:
                # Also where what is moved is a constant, and reads no memory (padded ones).
                fine = not scrambles(root.node, own) and all(
                    walk(x, m) for x, m in zip(root.node.inputs, operand_maps(root.node, own))
                )
            if id(root) in self.places:
                fine = fine and access(self.places[id(root)].strides, own)
            if not fine:
                return None
        return found

    # Loops

    def _set(self, run, index):
        """Let ``index`` run over a run: its last member takes it, the others stay at 0."""
        self.index[run.members[-1]] = index

    @contextmanager
    def _parallel(self, runs, work):
        """Kept runs as one parallel loop; ``work`` is the number of elements inside of it."""
        size = dims.product(r.size for r in runs)
        grain = dims.maximum(1, CHUNK // work if not (isinstance(work, int) and work == 0) else 1)
        with self.k.parallel(0, self.scope.size(size), grain=self.scope.size(grain)) as i:
            with self.scope.fresh_values():
                self._decode(runs, i)
                yield

    def _decode(self, runs, i):
        for run in reversed(runs[1:]):
            n = self.scope.size(run.size)
            self._set(run, self.k.let(i % n, "q"))
            i = self.k.let(i // n, "q")
        if runs:
            self._set(runs[0], i)

    @contextmanager
    def _vector(self, run, lo=0, hi=None):
        hi = self.scope.size(run.size) if hi is None else hi
        with self.k.vector(lo, hi) as j:
            with self.scope.fresh_values():
                self._set(run, j)
                yield

    @contextmanager
    def _serial(self, runs):
        with ExitStack() as stack:
            for run in runs:
                few = isinstance(run.size, int) and run.size <= 4
                loop = self.k.unroll if few else self.k.serial
                i = stack.enter_context(loop(0, self.scope.size(run.size)))
                stack.enter_context(self.scope.fresh_values())
                self._set(run, i)
            yield

    @contextmanager
    def _blocks(self, run, length):
        """A run in parallel blocks of ``length``: yields the bounds of one block."""
        n = self.scope.size(run.size)
        with self.k.parallel(0, L.idiv_ceil(n, length)) as b:
            with self.scope.fresh_values():
                lo = self.k.let(b * length, "lo")
                yield b, lo, self.k.let(L.minimum(lo + length, n), "hi")

    # Storing

    def _index_of(self, root):
        zero = L.Const(0, D.int64)
        return [zero if m == ZERO else self.index[m] for m in self.group.map_of(root)]

    def _store_full(self, level, final):
        """Store the full roots that are complete once ``level`` reductions are."""
        levels = self.levels
        roots = [
            r for r in self._full_roots()
            if levels[id(r)] == level or final and levels[id(r)] > level
        ]  # fmt: skip
        # All are computed first: storing one may overwrite what another reads.
        for root, value in [(r, self.scope.element(r, self.index)) for r in roots]:
            self.scope.store(self.places[id(root)], self.index, value)

    def _finish(self, level, locals_):
        """After a pass: reduced values become known, kept roots are computed, both stored."""
        self.scope.pending -= {id(r) for r in self._full_roots() if self.levels[id(r)] < level}
        for root, local in locals_:
            value = self.k.let(L.cast(L.as_expr(local), root.dtype), "s")
            self.scope.known[id(root)] = value
            if id(root) in self.places:
                self.scope.store(self.places[id(root)], self._index_of(root), value)
        # Those that wait for no reduction of this group are computed after the first pass.
        kept = [r for r in self._kept_roots() if max(self.levels[id(r)], 1) == level]
        for root in kept:
            self.scope.known[id(root)] = self.scope.element(root, self._index_of(root))
        for root in kept:
            if id(root) in self.places:
                value = self.scope.known[id(root)]
                self.scope.store(self.places[id(root)], self._index_of(root), value)
        self._compute_constant_values(level)

    def _compute_constant_values(self, level):
        """Compute, ahead of the next pass, what of it is the same for all reduced positions.

        The pass then finds them: a division a row instead of one a vector.
        """
        found, seen = [], set()

        def walk(v, index_map):
            if (id(v), index_map) in seen or v.node is None or self._is_reduction(v):
                return
            seen.add((id(v), index_map))
            constant = None not in index_map and not self.reduced & set(index_map)
            if constant and v.node.op.kind == "pointwise":
                if self.levels.get(id(v)) == level and id(v) not in self.scope.known:
                    found.append((v, index_map))
            elif id(v) not in self.fusion.roots or self._in_group(v):
                for x, m in zip(v.node.inputs, operand_maps(v.node, index_map)):
                    walk(x, m)

        everywhere = tuple(ZERO if is_one(n) else d for d, n in enumerate(self.full))
        for root in self._full_roots():
            walk(root, everywhere)
        for root in self._reductions():
            walk(root.node.inputs[0], everywhere)
        zero = L.Const(0, D.int64)
        for v, index_map in found:
            self.scope.element(v, [zero if m == ZERO else self.index[m] for m in index_map])

    def _due(self, level):
        return [r for r in self._reductions() if self.levels[id(r)] == level]

    def _declare(self, roots):
        return [(r, self.k.local(accumulator(r.dtype), neutral(r), name="acc")) for r in roots]

    def _accumulate(self, locals_):
        for root, local in locals_:
            value = self.scope.element(root.node.inputs[0], self.index)
            self.k.reduce(local, operator(root), L.cast(value, local.dtype))

    def _passes(self):
        last = max((self.levels[id(r)] for r in self._reductions()), default=0)
        stores_after = any(self.levels[id(r)] >= last for r in self._full_roots())
        return range(1, last + 1 + stores_after)

    # The nests

    def _flat(self, runs):
        turned = self._turned(runs)
        if turned is not None:
            self._tiles(runs, turned)
        elif not runs:
            self._store_full(0, True)
        elif len(runs) == 1:
            with self._blocks(runs[0], CHUNK // 2) as (_, lo, hi), self._vector(runs[0], lo, hi):
                self._store_full(0, True)
        else:
            with self._parallel(runs[:-1], runs[-1].size), self._vector(runs[-1]):
                self._store_full(0, True)

    def _turned(self, runs):
        """A run, not the last, along which some memory is contiguous that the last one strides."""
        if len(runs) < 2:
            return None
        last = runs[-1].members[-1]
        for strides in self._accesses() or ():
            if dims.hint(strides.get(last, 1)) not in (0, 1):
                for run in runs[:-1]:
                    if dims.same(strides.get(run.members[-1], 0), 1):
                        return run
        return None

    def _tiles(self, runs, turned):
        """The flat nest in tiles of two runs, so that both directions stay in the cache."""
        last, others = runs[-1], [r for r in runs[:-1] if r is not turned]
        n, m = self.scope.size(turned.size), self.scope.size(last.size)
        blocks = Run(turned.members, (turned.size + (TILE - 1)) // TILE, False)
        with self._parallel([*others, blocks], last.size * TILE):
            lo = self.k.let(self.index[turned.members[-1]] * TILE, "lo")
            hi = self.k.let(L.minimum(lo + TILE, n), "hi")
            with self.k.serial(0, L.idiv_ceil(m, 2 * TILE)) as b:
                with self.scope.fresh_values():
                    left = self.k.let(b * (2 * TILE), "lo")
                    right = self.k.let(L.minimum(left + 2 * TILE, m), "hi")
                    with self.k.serial(lo, hi) as i, self.scope.fresh_values():
                        self._set(turned, i)
                        with self._vector(last, left, right):
                            self._store_full(0, True)

    def _pass(self, level, inner, locals_, final, ask=()):
        at = max(i for i, run in enumerate(inner) if not run.joined)
        row = inner[at:]
        with self._serial(inner[:at]):
            size = self.scope.size(dims.product(r.size for r in row))
            self._along(row, level, locals_, final, (L.Const(0, D.int64), size, size), ask)

    def _along(self, row, level, locals_, final, bounds, ask=()):
        """A pass over elements ``lo`` to ``hi``, at most ``most``, of runs reduced as one."""
        lo, hi, most = bounds
        if len(row) > 1 and not all(exact(root) for root, _ in locals_):
            self._gathered(row, level, locals_, final, lo, hi, most)
            return
        with self._rows_of(row, lo, hi):
            self._ask(ask, self.runs[0])
            self._accumulate(locals_)
            self._store_full(level - 1, final)

    @contextmanager
    def _rows_of(self, row, lo, hi):
        """Loops over elements ``lo`` to ``hi`` of some runs, the last run in lanes."""
        *outer, last = row
        if not outer:
            with self._vector(last, lo, hi):
                yield
            return
        n = self.scope.size(last.size)
        with self.k.serial(lo // n, L.idiv_ceil(hi, n)) as r, self.scope.fresh_values():
            self._decode(outer, r)
            first = self.k.let(L.maximum(lo - r * n, 0), "lo")
            with self._vector(last, first, self.k.let(L.minimum(hi - r * n, n), "hi")):
                yield

    def _gathered(self, row, level, locals_, final, lo, hi, most):
        """A pass whose elements do not lie in their order: they are put into it first.

        The order of a reduction follows from its shape, whatever the strides of what is read.
        """
        rows = [
            self.scope.scratch(f"flat{level}_{i}", local.dtype, most, per_thread=True)
            for i, (_, local) in enumerate(locals_)
        ]
        with self._rows_of(row, lo, hi):
            at = self._linear(row) - lo
            for buffer, (root, local) in zip(rows, locals_):
                value = self.scope.element(root.node.inputs[0], self.index)
                self.k.store(buffer, at, L.cast(value, local.dtype))
            self._store_full(level - 1, final)
        with self.k.vector(0, hi - lo) as j:
            for buffer, (root, local) in zip(rows, locals_):
                self.k.reduce(local, operator(root), buffer[j])

    def _rows(self, outer, inner):
        first_pass = self._keep_dear_values(inner)
        asking = len(outer) == len(inner) == 1 and len(self._passes()) > 1

        def one(level, locals_, final):
            ask = self._lines_ahead(level, inner[0]) if asking else []
            self._pass(level, inner, locals_, final, ask)
            for key, p in first_pass.items():
                self.scope.rows[key].stored = p <= level

        with self._parallel(outer, dims.product(r.size for r in inner)):
            self._all_passes(one)

    def _lines_ahead(self, level, column):
        """What to prefetch along with a pass, as (value, how many rows ahead; 0 if written).

        Processors foresee addresses within a page of memory only, and a row is often a page. So
        what the first pass will read of the next row is asked for while the second computes, and
        the lines that the last pass will write in the pass before it.
        """
        wanted = []
        if level == 2:
            wanted += [(v, 1) for v in self._read_along(column)]
        if level == len(self._passes()) - 1:
            wanted += [
                (r, 0)
                for r in self._full_roots()
                if self.levels[id(r)] >= level
                and dims.same(self.places[id(r)].strides[column.members[-1]], 1)
            ]
        return wanted

    def _ask(self, wanted, row):
        for v, ahead in wanted:
            index, place = list(self.index), self.places[id(v)]
            if ahead:
                index[row.members[-1]] = index[row.members[-1]] + ahead
            buffer = self.scope.buffer(place, "r" if ahead else "w")
            self.k.prefetch(buffer, self.scope.position(index, place.strides))

    def _read_along(self, run):
        """Memory of the full shape that the first pass reads, contiguous along a run."""
        found = {}
        for root in self._due(1):
            for v, index_map in self.fusion.reads_of(root, self.group):
                place = self.places.get(id(v))
                if place is not None and index_map == tuple(
                    ZERO if is_one(n) else d for d, n in enumerate(self.full)
                ):
                    if dims.same(place.strides[run.members[-1]], 1):
                        found[id(v)] = v
        return found.values()

    def _keep_dear_values(self, inner):
        """Give values that are dear and needed by several passes a row of scratch memory."""
        passes: dict[int, set] = {}
        values = {}

        def walk(v, level):
            if v.node is None or id(v) in self.fusion.roots or level in passes.get(id(v), ()):
                return
            if v.node.op.name in DEAR and same_shape(v.shape, self.full):
                passes.setdefault(id(v), set()).add(level)
                values[id(v)] = v
            for x in v.node.inputs:
                walk(x, level)

        for root in self._reductions():
            walk(root.node.inputs[0], self.levels[id(root)])
        for root in self._full_roots():
            for x in root.node.inputs:
                walk(x, self.levels[id(root)] + 1)
        first = {key: min(p) for key, p in passes.items() if len(p) > 1}
        size = self.scope.size(dims.product(r.size for r in inner))
        for i, key in enumerate(first):
            buffer = self.scope.scratch(f"row{i}", values[key].dtype, size, per_thread=True)
            self.scope.rows[key] = Row(buffer, self._is_here, lambda: self._linear(inner))
        return first

    def _is_here(self, index):
        """Whether an index is the one that the loops stand at."""
        return all(
            a is b or isinstance(a, L.Const) and isinstance(b, L.Const) and a.value == b.value
            for a, b in zip(index, self.index)
        )

    def _all_passes(self, one):
        passes = self._passes()
        for level in passes:
            locals_ = self._declare(self._due(level))
            if locals_ or any(self.levels[id(r)] == level - 1 for r in self._full_roots()):
                one(level, locals_, level == passes[-1])
            self._finish(level, locals_)

    def _columns(self, outer, inner):
        *others, column = outer
        inner_work = dims.product(r.size for r in inner)

        def one(level, locals_, final):
            with self._serial(inner):
                self._accumulate(locals_)
                self._store_full(level - 1, final)

        n = self.scope.size(column.size)
        blocks = Run(column.members, (column.size + (COLUMNS - 1)) // COLUMNS, False)
        roots = self._reductions()
        simple = inner and len(self._passes()) == 1 and len(roots) <= 2
        with self._parallel([*others, blocks], inner_work * COLUMNS):
            lo = self.k.let(self.index[column.members[-1]] * COLUMNS, "lo")
            hi = self.k.let(L.minimum(lo + COLUMNS, n), "hi")
            if simple and max(r.dtype.itemsize for r in roots) <= 4:
                with self.k.if_((hi - lo).eq(COLUMNS)), self.scope.fresh_values():
                    self._whole_block(column, lo, inner, roots)
                self.scope.known.clear()
                self.scope.pending = set(map(id, self.group.roots))
                with self.k.else_(), self.scope.fresh_values(), self._vector(column, lo, hi):
                    self._all_passes(one)
            else:
                with self._vector(column, lo, hi):
                    self._all_passes(one)

    def _whole_block(self, column, lo, inner, roots):
        """A block of columns row by row, its sums in registers: same order, fewer misses."""
        tiles = [
            (r, self.k.local(accumulator(r.dtype), neutral(r), (COLUMNS,), "acc")) for r in roots
        ]
        ahead = [(v, AHEAD) for v in self._read_along(column)]
        with self._serial(inner), self.k.vector(0, COLUMNS) as j, self.scope.fresh_values():
            self._set(column, lo + j)
            if len(ahead) <= ARRAYS and not self._full_roots():
                self._ask(ahead, inner[-1])
            for root, tile in tiles:
                value = L.cast(self.scope.element(root.node.inputs[0], self.index), tile.dtype)
                self.k.assign(tile, j, L.binary(operator(root), tile[j], value))
            self._store_full(0, True)
        with self.k.vector(0, COLUMNS) as j, self.scope.fresh_values():
            self._set(column, lo + j)
            self._finish(1, [(root, tile[j]) for root, tile in tiles])

    def _single(self, inner):
        """Everything to one element: parallel blocks of fixed size, then their results."""
        passes = self._passes()
        for level in passes:
            roots, final = self._due(level), level == passes[-1]
            if not inner:
                locals_ = self._declare(roots)
                self._accumulate(locals_)
                self._store_full(level - 1, final)
            else:
                locals_ = self._blockwise(level, roots, inner, final)
            self._finish(level, locals_)

    def _blockwise(self, level, roots, inner, final):
        whole = Run((), dims.product(r.size for r in inner), True)
        count = L.idiv_ceil(self.scope.size(whole.size), BLOCK)
        parts = [
            self.scope.scratch(f"part{level}_{i}", accumulator(r.dtype), count)
            for i, r in enumerate(roots)
        ]
        with self._blocks(whole, BLOCK) as (number, lo, hi):
            locals_ = self._declare(roots)
            self._along(inner, level, locals_, final, (lo, hi, BLOCK))
            for part, (_, local) in zip(parts, locals_):
                self.k.store(part, number, local.get())
        totals = self._declare(roots)
        for part, (root, local) in zip(parts, totals):
            with self.k.vector(0, count) as j:
                self.k.reduce(local, operator(root), part[j])
        return totals

    def _linear(self, runs):
        position = L.Const(0, D.int64)
        for run in runs:
            position = position * self.scope.size(run.size) + self.index[run.members[-1]]
        return position


def _mergeable(strides, a, b, size):
    """Whether an access sees dimensions ``a``, ``b`` (of that size) as one."""
    if (a in strides) != (b in strides):
        return False
    return a not in strides or dims.same(strides[a], strides[b] * size)
