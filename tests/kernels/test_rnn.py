"""Recurrences against their meaning, and their promise: one row, one set of bits."""

from __future__ import annotations

import numpy as np
import pytest
from running import Call, guarded

from facula.base import dtypes as D
from facula.compiler.cells import arithmetic
from facula.kernels import rnn
from facula.ops.recurrence import CELLS, recurrence_
from facula.runtime import host, threads

WIDTHS = [w for w in (16, 32, 64) if w <= host.target().vector_bytes]
#: steps, rows, hidden units
SIZES = [(3, 2, 5), (1, 1, 1), (4, 9, 17), (2, 13, 33), (2, 3, 600)]


def drawn(cell, steps, rows, hidden, d=D.float32, seed=0):
    c, rng = CELLS[cell], np.random.default_rng(seed)
    shapes = [(steps, rows, c.gates * hidden), (c.gates * hidden, hidden), (c.gates * hidden,)]
    shapes += [(rows, hidden)] * c.states
    scale = 1 / np.sqrt(hidden)
    return [(rng.standard_normal(s) * (scale if i == 1 else 1)).astype(d.numpy())
            for i, s in enumerate(shapes)]  # fmt: skip


def words(steps, rows, hidden, total, back=0, packed=False):
    t_step = 0 if packed else rows
    sizes = dict(zip(rnn.SIZES, (steps, rows, hidden, total, t_step, 1, back)))
    return {**sizes, "row_cut": max(1, rows // 2), "panel_cut": 1, "unit_cut": 16}


def forward(cell, operands, form, back=0, lengths=None):
    """y, final states, kept and the states that steps began with."""
    p, w, bias, *states = operands
    c, hidden, rows = CELLS[cell], w.shape[1], len(states[0])
    lead = p.shape[:-1]
    total, steps = int(np.prod(lead)), len(p) if lengths is None else len(lengths)
    given = {"p": p, "w": w, "bias": bias, **{f"s{i}": s for i, s in enumerate(states)}}
    given = {name: guarded(a.reshape(-1)) for name, a in given.items()}
    made = {"y": (*lead, hidden), **{f"f{i}": (rows, hidden) for i in range(c.states)}}
    if form.keeps:
        made["kept"] = (*lead, c.kept * hidden)
        made.update({f"o{i}": (*lead, hidden) for i in range(c.states)})
    for name, shape in made.items():
        given[name] = guarded(np.full(int(np.prod(shape)), np.nan, p.dtype))
    if form.packed:
        given["sizes"] = guarded(np.asarray(lengths, np.int64))
    kernel = rnn.forward(form, arithmetic(cell, form.dtype))
    sizes = words(steps, rows, hidden, total, back, form.packed)
    status = Call(kernel, {**given, **sizes}, form.vector_bytes)()
    return status, [given[name].reshape(shape) for name, shape in made.items()]


def form_of(variant="rows", vectors=2, width=WIDTHS[-1], d=D.float32, **more):
    return rnn.Form(d, variant, vectors, width, **{"packed": False, "keeps": True, **more})


@pytest.mark.parametrize("cell", CELLS)
def test_forward_is_its_meaning(cell):
    for d, digits in ((D.float32, 2e-6), (D.float64, 1e-13)):
        for sizes in SIZES:
            for back in (0, 1):
                operands = drawn(cell, *sizes, d)
                status, found = forward(cell, operands, form_of(d=d), back)
                how = {"cell": cell, "reverse": bool(back), "batch_first": False}
                want = recurrence_.meaning(np, *operands, **how)
                assert status == 0
                for a, b in zip(found, want):
                    np.testing.assert_allclose(a, b, rtol=digits * 20, atol=digits)


def test_variants_widths_threads_and_rows_have_the_same_bits(cell="gru"):
    for sizes in SIZES:
        operands = drawn(cell, *sizes)
        (_, want) = forward(cell, operands, form_of())
        count = threads.get_num_threads()
        try:
            for n in (1, 2):
                threads.set_num_threads(n)
                for variant in ("rows", "columns"):
                    for vectors, width in enumerate(WIDTHS, 1):
                        _, found = forward(cell, operands, form_of(variant, vectors, width))
                        assert [a.tobytes() for a in found] == [a.tobytes() for a in want]
        finally:
            threads.set_num_threads(count)
        p, w, bias, *states = operands
        _, alone = forward(cell, [p[:, :1], w, bias, *(s[:1] for s in states)], form_of())
        assert alone[0].tobytes() == np.ascontiguousarray(want[0][:, :1]).tobytes()


@pytest.mark.parametrize("back", [0, 1])
@pytest.mark.parametrize("variant", ["rows", "columns"])
def test_packed_rows_are_those_of_sequences_alone(variant, back):
    lengths, hidden = [5, 3, 3, 1], 7
    sizes = [4, 3, 3, 1, 1]
    p, w, bias, *states = drawn("lstm", 1, sum(sizes), hidden)
    states = [s[:4] for s in states]
    form = form_of(variant, packed=True)
    status, (y, *finals) = forward("lstm", [p[0], w, bias, *states], form, back, sizes)
    assert status == 0
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for row, length in enumerate(lengths):
        at = [starts[t] + row for t in range(length)]
        own = [p[0][at][:, None], w, bias, *(s[row : row + 1] for s in states)]
        _, (alone, *ends) = forward("lstm", own, form_of(), back)
        assert y[at].tobytes() == alone.tobytes()
        assert finals[0][row].tobytes() == ends[0].tobytes()


@pytest.mark.parametrize("back", [0, 1])
@pytest.mark.parametrize("sizes", [[4, 3, 9], [5, 2], [2, -1, 3], [4, 1]])
def test_sizes_that_do_not_fit_are_reported_and_touch_nothing_else(sizes, back):
    p, w, bias, *states = drawn("gru", 1, 9, 3)
    operands = [p[0], w, bias, *(s[:4] for s in states)]
    status, _ = forward("gru", operands, form_of(packed=True), back, sizes)
    assert status == rnn.STATUS
