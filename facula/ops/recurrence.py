"""Recurrences over a whole sequence: one primitive for all cells, which say their arithmetic once.

A cell is elementwise arithmetic for one hidden unit, given the gates of the input (p) and those of
the state (u). From it follow the kernels of both directions (``compiler.cells``), whose backward is
derived like that of any program, the steps of ``library.recurrence`` and the meaning below.
"""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import AutogradError, DtypeError, ShapeError, fail
from facula.ir import dims
from facula.ir import program as P
from facula.ir.program import Program
from facula.ops.contraction import swapped
from facula.ops.promote import expand_to, is_zero, to
from facula.ops.registry import F, Primitive

CELLS: dict[str, Cell] = {}
_REFUSAL = "the batch sizes do not add up to the rows of the input"


#: name -> the function, and its slope as a function of its value; None is the identity.
ACTIVATIONS = {
    "sigmoid": (lambda x: F.sigmoid(x), lambda y: y * (1 - y)),
    "tanh": (lambda x: F.tanh(x), lambda y: 1 - y * y),
    "relu": (lambda x: F.where(F.le(x, 0), 0, x), lambda y: to(y > 0, y.dtype)),
}


class Cell:
    """The arithmetic of a recurrent cell, on lists of values of one shape.

    Attributes:
        gates, kept, states: how many of each there are; the first state is h.
        gather: ``(p, u) -> sums``: all that backward needs to know of p and u.
        activations: of each of the sums, its name in ACTIVATIONS or None; the results are kept.
        step: ``(kept, states) -> states``.
    """

    def __init__(self, name, gates, states, gather, activations, step):
        self.name, self.gates, self.kept, self.states = name, gates, len(activations), states
        self.gather, self.activations, self.step = gather, activations, step
        CELLS[name] = self

    @property
    def sums(self) -> bool:
        """Whether only the sums of the two kinds of gates are needed."""
        return self.gather is _sums

    def keep(self, p, u):
        """What is kept, of the gates of the input and of the state."""
        return [v if a is None else ACTIVATIONS[a][0](v)
                for a, v in zip(self.activations, self.gather(p, u))]  # fmt: skip


def _sums(p, u):
    return [a + b for a, b in zip(p, u)]


def _lstm(kept, states):
    """Hochreiter and Schmidhuber (1997), with forget gates (Gers et al., 2000)."""
    i, f, g, o = kept
    cell = f * states[1] + i * g
    return o * F.tanh(cell), cell


def _gru(kept, states):
    """Cho et al. (2014), with the reset gate after the product."""
    r, z, n, u = kept
    new = F.tanh(n + r * u)
    return ((states[0] - new) * z + new,)


def _gru_gates(p, u):
    """Reset and update; of the new state both parts, as reset weighs only the second."""
    return p[0] + u[0], p[1] + u[1], p[2], u[2]


Cell("lstm", 4, 2, _sums, ("sigmoid", "sigmoid", "tanh", "sigmoid"), _lstm)
Cell("gru", 3, 1, _gru_gates, ("sigmoid", "sigmoid", None, None), _gru)
Cell("rnn_tanh", 1, 1, _sums, ("tanh",), lambda kept, states: kept)
Cell("rnn_relu", 1, 1, _sums, ("relu",), lambda kept, states: kept)


def cell_backward(pull, cell, kept, states, cotangents, more=None):
    """Cotangents of p, of u and of the states, given those of the new states (and of kept).

    ``pull(function, operands, cotangents)`` differentiates (``derivatives.reverse``).
    """
    n, k = cell.gates, cell.kept
    found = pull(lambda *v: cell.step(v[:k], v[k:]), [*kept, *states], cotangents)
    if more is not None:
        found[:k] = [a + b for a, b in zip(found, more)]
    sums = [d if a is None else d * ACTIVATIONS[a][1](y)
            for a, y, d in zip(cell.activations, kept, found)]  # fmt: skip
    # Gates are only added up: where they stand makes no difference.
    at = [expand_to(to(0, v.dtype), v.shape) for v in kept[:1] * (2 * n)]
    gates = pull(lambda *v: cell.gather(v[:n], v[n:]), at, sums)
    return gates[:n], gates[n:], found[k:]


def traced(function, *groups, dtype) -> Program:
    """The program of a cell's function on lists of so many numbers: all that is pointwise."""
    program = Program("cell")
    with P.building(program):
        lists = [[program.input(dtype, ()) for _ in range(count)] for count in groups]
        results = function(*lists)
    program.outputs = [v for part in results for v in (part if isinstance(part, list) else [part])]
    return program


def _infer(p, w, bias, *rest, cell, reverse, batch_first):
    c = CELLS[cell]
    hidden, lead = w.shape[1], p.shape[:-1]
    if any(v.dtype is not p.dtype for v in (w, bias, *rest[: c.states])):
        fail(DtypeError, cell, f"input, weights and states must be of one dtype, {p.dtype.name}")
    if not (w.shape[0] == c.gates * hidden and p.shape[-1] == c.gates * hidden):
        fail(ShapeError, cell, f"weights of shape {tuple(w.shape)} and gates of shape "
             f"{tuple(p.shape)} do not fit together")  # fmt: skip
    packed = len(rest) > c.states
    rows = rest[0].shape[0] if packed else lead[0 if batch_first else 1]
    for state in rest[: c.states]:
        if not (state.shape[0] == rows and state.shape[1] == hidden):
            fail(
                ShapeError, cell, f"a state of shape {tuple(state.shape)}, expected {rows, hidden}"
            )
    finals = [(p.dtype, (rows, hidden))] * c.states
    starts = [(p.dtype, (*lead, hidden))] * c.states
    return [(p.dtype, (*lead, hidden)), *finals, (p.dtype, (*lead, c.kept * hidden)), *starts]


def _evaluate(np, program, arrays):
    known = {id(v): a for v, a in zip(program.inputs, arrays)}
    for node in program.nodes:
        result = node.op.meaning(np, *(known[id(v)] for v in node.inputs), **node.params)
        known[id(node.outputs[0])] = result
    return [known[id(v)] for v in program.outputs]


def steps_of(np, lead, sizes, rows, reverse, batch_first):
    """Per step in order of time: the positions of its rows among all rows, an array."""
    if sizes is not None:
        ends = np.cumsum(sizes)
        steps = [np.arange(end - n, end) for end, n in zip(ends, sizes)]
    elif batch_first:
        steps = [np.arange(lead[0]) * lead[1] + t for t in range(lead[1])]
    else:
        steps = [np.arange(lead[1]) + t * lead[1] for t in range(lead[0])]
    return steps[::-1] if reverse else steps


def _meaning(np, p, w, bias, *rest, cell, reverse, batch_first):
    c = CELLS[cell]
    running = [np.array(s) for s in rest[: c.states]]
    sizes = rest[c.states] if len(rest) > c.states else None
    hidden, lead = w.shape[1], p.shape[:-1]
    program = traced(
        lambda p, u, s: (lambda k: [*c.step(k, s), *k])(c.keep(p, u)),
        c.gates, c.gates, c.states, dtype=D.from_numpy(p.dtype),
    )  # fmt: skip
    p = p.reshape(-1, c.gates * hidden)
    y = np.zeros((p.shape[0], hidden), p.dtype)
    kept = np.zeros((p.shape[0], c.kept * hidden), p.dtype)
    starts = [np.zeros_like(y) for _ in running]
    for at in steps_of(np, lead, sizes, len(running[0]), reverse, batch_first):
        n = len(at)
        u = running[0][:n] @ w.T + bias
        old = [s[:n].copy() for s in running]
        found = _evaluate(
            np, program, [*np.split(p[at], c.gates, 1), *np.split(u, c.gates, 1), *old]
        )
        for i in range(c.states):
            starts[i][at], running[i][:n] = old[i], found[i]
        y[at], kept[at] = found[0], np.concatenate(found[c.states :], 1)
    back = lambda a: a.reshape(*lead, -1)  # noqa: E731
    return back(y), *running, back(kept), *map(back, starts)


def _gradient_in_steps(pull, gy, *rest, cell, reverse, batch_first, more=()):
    """The gradient in ordinary ops, for as many steps as there are.

    ``more`` are cotangents of what was kept and of the states that steps began with.
    """
    c, size = CELLS[cell], gy.shape[-1]
    n, dim = c.states, 1 if batch_first else 0
    running, kept, starts, w = rest[:n], rest[n], rest[n + 1 :][:n], rest[2 * n + 1]
    if len(rest) > 2 * n + 2:
        fail(AutogradError, cell, "the derivative of the derivative of packed sequences is not "
             "implemented", "pad them, or loop over a cell")  # fmt: skip
    steps, found = range(int(gy.shape[dim])), {}

    def parts(x):
        return [F.narrow(x, -1, i * size, size) for i in range(c.kept)]

    for t in steps if reverse else steps[::-1]:
        own, more_kept, *more_starts = (F.select(v, dim, t) for v in (gy, *(more or (gy,))))
        old = [F.select(s, dim, t) for s in starts]
        extra = parts(more_kept) if more else None
        cotangents = [running[0] + own, *running[1:]]
        dp, du, ds = cell_backward(pull, c, parts(F.select(kept, dim, t)), old, cotangents, extra)
        found[t] = F.cat(dp, -1), F.cat(du, -1)
        dh = F.matmul(found[t][1], w)
        running = [dh if ds[0] is None else ds[0] + dh, *ds[1:]]
        running = [a + b for a, b in zip(running, more_starts)] if more else running
    dp, du = (F.stack([found[t][i] for t in steps], dim) for i in range(2))
    return dp, *running, *([] if c.sums else [du])


def _gradient(g, y, *operands, cell, **how):
    if not all(map(is_zero, g[1 + CELLS[cell].states :])):
        return None  # Part of a second derivative.
    return _cotangents(recurrence_gradient_, (), g, y, *operands, cell=cell, **how)


def _pulled(pull, g, y, *operands, cell, **how):
    def gradient(*values, **params):
        return _gradient_in_steps(pull, *values, **params)

    more = g[1 + CELLS[cell].states :]
    return _cotangents(gradient, {"more": more}, g, y, *operands, cell=cell, **how)


def _cotangents(gradient, more, g, y, p, w, bias, *rest, cell, **how):
    n = CELLS[cell].states
    sizes = rest[n:]
    outputs = gradient(*g[: 1 + n], *y[1 + n :], w, *sizes, cell=cell, **how, **dict(more))
    dp, du = outputs[0], outputs[-1 if len(outputs) > 1 + n else 0]
    rows, starts = F.reshape(du, (-1, w.shape[0])), F.reshape(y[2 + n], (-1, w.shape[1]))
    dw = F.matmul(swapped(rows), starts)
    db = F.sum(du, tuple(range(du.ndim - 1)))
    return dp, dw, db, *outputs[1 : 1 + n], *(None for _ in sizes)


def _gradient_pulled(pull, g, y, *operands, **how):
    return pull(lambda *xs: _gradient_in_steps(pull, *xs, **how), operands, g)


def _flops(gates, h):
    """Of the products of the states with the weights."""
    return 2 * dims.product((*gates.shape, h))


#: p [t, n, gates * h], or [n, t, ...] with ``batch_first``, or [rows of all steps, ...] with sizes
#: [t]; w [gates * h, h], bias [gates * h], initial states [n, h] -> hidden states like p, final
#: states; then, for backward, what the cell keeps and the states that the steps began with.
recurrence_ = Primitive(
    "recurrence",
    "opaque",
    _infer,
    _meaning,
    _gradient,
    pulled=_pulled,
    spare=True,
    refusal=_REFUSAL,
    flops=lambda y, p, w, *rest, **how: _flops(p, w.shape[1]),
)


def _gradient_infer(gy, *rest, cell, reverse, batch_first):
    c = CELLS[cell]
    finals, kept = rest[: c.states], rest[c.states]
    d = gy.dtype
    gates = (d, (*kept.shape[:-1], c.gates * gy.shape[-1]))
    more = [] if c.sums else [gates]
    return [gates, *((d, g.shape) for g in finals), *more]


#: Cotangents of hidden and of final states, kept, states steps began with, w and sizes, -> those of
#: p and of the initial states, then, unless they are p's, those of the gates of the state.
recurrence_gradient_ = Primitive(
    "recurrence_gradient",
    "opaque",
    _gradient_infer,
    None,
    pulled=_gradient_pulled,
    refusal=_REFUSAL,
    flops=lambda y, gy, *rest, **how: _flops(y, gy.shape[-1]),
)
