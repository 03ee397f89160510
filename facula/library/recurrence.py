"""Recurrent layers and cells: whole sequences as one primitive, single steps as ordinary ops."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import ShapeError, fail
from facula.ir.program import Value
from facula.ops.promote import to
from facula.ops.recurrence import CELLS, recurrence_
from facula.ops.registry import F, Tensors, composite, op


def _gates(count, x, size):
    """The ``count`` gates side by side in ``x``, each as wide as the hidden state.

    That they are is asked as a question of equal sizes; widths of equal parts of something would
    be expressions that the compiler cannot compare.
    """
    if not x.shape[-1] == count * size:
        fail(
            ShapeError,
            "rnn_cell",
            f"weights give {x.shape[-1]} values, expected {count} times the hidden size {size}",
        )
    return _parts(x, count=count, size=size) if count > 1 else (x,)


def _part_by_part(x, *, count, size):
    return tuple(F.narrow(x, -1, i * size, size) for i in range(count))


#: Equal parts of the last dimension. Their gradients are joined, where those of slices would each
#: be padded with zeros and added up.
_parts = composite(
    "parts", _part_by_part, lambda g, y, x, *, count, size: (F.cat(list(g), -1),)
)  # fmt: skip


def _step(name, projected, states, w_hh, b_hh):
    """One step of a cell whose input is multiplied by its weights already."""
    cell, size = CELLS[name], w_hh.shape[1]
    u = F.linear(states[0], w_hh, b_hh)
    return cell.step(
        cell.keep(_gates(cell.gates, projected, size), _gates(cell.gates, u, size)), states
    )


def _sequence_samples(make):
    def sample(gates, states, lead, *sizes, i=4, h=5, **how):
        weights = make(gates * h, i), make(gates * h, h), make(gates * h), make(gates * h)
        rows = 2 if len(lead) == 1 else lead[0 if how.get("batch_first") else 1]
        return ((make(*lead, i), [make(rows, h)] * states, *weights, *sizes), how)

    lengths = make(3, dtype=D.int64, low=2, high=3)
    return [
        sample(4, 2, (3, 2), cell="lstm"),
        sample(3, 1, (2, 3), cell="gru", batch_first=True, reverse=True),
        sample(1, 1, (2, 1), cell="rnn_tanh", h=19),
        sample(4, 2, (6,), lengths, cell="lstm", reverse=True),
        sample(3, 1, (6,), lengths, cell="gru"),
    ]


@op(spaces=(), samples=_sequence_samples)
def recurrent(
    input: Value,
    hx: Tensors,
    w_ih: Value,
    w_hh: Value,
    b_ih: Value = None,
    b_hh: Value = None,
    batch_sizes: Value = None,
    cell="lstm",
    reverse=False,
    batch_first=False,
):
    """A layer of a cell in one direction, over whole sequences: (hidden states, *final states).

    Args:
        input: ``[t, n, i]``, ``[n, t, i]`` if ``batch_first``, or with ``batch_sizes`` [t] rows
            step after step, as a ``PackedSequence`` has them.
        hx: the initial states, ``[n, h]`` each.
        cell: "lstm", "gru", "rnn_tanh" or "rnn_relu".
        reverse: whether time runs backwards.
    """
    if not input.ndim == (3 if batch_sizes is None else 2):
        fail(ShapeError, cell, f"an input of {input.ndim} dimensions")
    narrow = input.dtype if input.dtype in (D.float16, D.bfloat16) else None
    if b_ih is not None and b_hh is not None and CELLS[cell].sums:
        # One pass fewer over all gates.
        b_ih, b_hh = None, b_ih + b_hh
    p = F.linear(input, w_ih, b_ih)
    if b_hh is None:
        b_hh = F.zeros_of((w_hh.shape[0],), w_hh.dtype)
    operands = [p, w_hh, b_hh, *hx]
    if narrow:
        # States are not rounded between steps.
        operands = [to(v, D.float32) for v in operands]
    if batch_sizes is not None:
        operands.append(batch_sizes)
    found = recurrence_(*operands, cell=cell, reverse=bool(reverse), batch_first=bool(batch_first))
    results = found[: 1 + CELLS[cell].states]
    return tuple(to(v, narrow) for v in results) if narrow else results


def _cell_samples(gates):
    def samples(make):
        return [
            (
                (
                    make(3, 4),
                    make(3, 5),
                    make(gates * 5, 4),
                    make(gates * 5, 5),
                    make(gates * 5),
                    make(gates * 5),
                ),
                {},
            )
        ]

    return samples


@op(
    spaces=("torch",),
    samples=lambda make: [
        ((make(3, 4), (make(3, 5), make(3, 5)), make(20, 4), make(20, 5), make(20), make(20)), {})
    ],
)
def lstm_cell(
    input: Value, hx: Tensors, w_ih: Value, w_hh: Value, b_ih: Value = None, b_hh: Value = None
):
    """One step of an LSTM: (hidden, cell), gates in the order input, forget, cell, output."""
    return _step("lstm", F.linear(input, w_ih, b_ih), tuple(hx), w_hh, b_hh)


@op(spaces=("torch",), samples=_cell_samples(3))
def gru_cell(
    input: Value, hx: Value, w_ih: Value, w_hh: Value, b_ih: Value = None, b_hh: Value = None
):
    """One step of a GRU, gates in the order reset, update, new."""
    return _step("gru", F.linear(input, w_ih, b_ih), (hx,), w_hh, b_hh)[0]


@op(spaces=("torch",), samples=_cell_samples(1))
def rnn_tanh_cell(
    input: Value, hx: Value, w_ih: Value, w_hh: Value, b_ih: Value = None, b_hh: Value = None
):
    """``tanh(w_ih x + b_ih + w_hh h + b_hh)``."""
    return _step("rnn_tanh", F.linear(input, w_ih, b_ih), (hx,), w_hh, b_hh)[0]


@op(spaces=("torch",), samples=_cell_samples(1))
def rnn_relu_cell(
    input: Value, hx: Value, w_ih: Value, w_hh: Value, b_ih: Value = None, b_hh: Value = None
):
    """``relu(w_ih x + b_ih + w_hh h + b_hh)``."""
    return _step("rnn_relu", F.linear(input, w_ih, b_ih), (hx,), w_hh, b_hh)[0]
