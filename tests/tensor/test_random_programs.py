"""Random programs of ops, views and changes in place, with PyTorch as the oracle.

A failure names the seed and prints the program. Programs that PyTorch refuses are skipped: what
its autograd forbids (a saved tensor changed in place) may be allowed here, never the other way
round.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

import facula

pytestmark = pytest.mark.conformance

SHAPES = ((3, 4), (4,), (3, 1), (2, 3, 2))
UNARY = ("exp", "tanh", "sigmoid", "sin", "neg", "square")
IN_PLACE = ("tanh_", "sigmoid_", "sin_", "neg_")
#: What is refused in both libraries, in their words; the step is left out.
MISFITS = ("shape", "must match", "expanded", "number of sizes")


class Run:
    """One program in one library; ``log`` is the program as text."""

    def __init__(self, lib, seed):
        self.lib, self.random, self.log = lib, random.Random(seed), []
        values = np.random.default_rng(seed)
        count = self.random.randint(2, 4)
        arrays = [values.uniform(-1, 1, self.random.choice(SHAPES)) for _ in range(count)]
        self.leaves = [lib.from_numpy(a).requires_grad_(i != 1) for i, a in enumerate(arrays)]
        self.tensors = list(self.leaves)

    def pick(self):
        i = self.random.randrange(len(self.tensors))
        return self.tensors[i], f"t{i}"

    def keep(self, x, text):
        self.log.append(f"t{len(self.tensors)} = {text}")
        self.tensors.append(x)

    def step(self):
        kind = self.random.choice(
            (
                "unary",
                "binary",
                "number",
                "view",
                "view",
                "reduce",
                "cat",
                "detach",
                "change",
                "change",
            )
        )
        try:
            getattr(self, kind)()
        except RuntimeError as error:
            if not any(words in str(error) for words in MISFITS):
                raise

    def unary(self):
        (x, name), op = self.pick(), self.random.choice(UNARY)
        self.keep(getattr(x * 0.5, op)(), f"({name} * 0.5).{op}()")

    def binary(self):
        (x, a), (y, b), op = self.pick(), self.pick(), self.random.choice("+-*")
        if x.numel() * y.numel() <= 1000:
            z = x + y if op == "+" else x - y if op == "-" else x * y
            self.keep(z, f"{a} {op} {b}")

    def number(self):
        (x, name), k = self.pick(), self.random.uniform(-2, 2)
        self.keep(x * k + 0.5, f"{name} * {k} + 0.5")

    def reduce(self):
        (x, name), u = self.pick(), self.random.random()
        if x.ndim:
            dim = int(u * x.ndim)
            self.keep(x.sum(dim, keepdim=True), f"{name}.sum({dim}, keepdim=True)")

    def cat(self):
        x, name = self.pick()
        if x.ndim and x.numel() < 50:
            self.keep(self.lib.cat([x, x * 2.0], 0), f"cat([{name}, {name} * 2.0], 0)")

    def detach(self):
        x, name = self.pick()
        self.keep(x.detach().clone(), f"{name}.detach().clone()")

    def view(self):
        (x, name), u = self.pick(), self.random.random()
        n = x.shape[0] if x.ndim else 1
        texts = (
            "x.transpose(0, -1)", f"x.narrow(0, {int(u * n)}, 1)", "x[-1]", "x.reshape(-1)",
            f"x[..., {int(u * (x.shape[-1] if x.ndim else 1))}:]", "x[::2]",
        )  # fmt: skip
        text = self.random.choice(texts)
        if x.ndim:
            self.keep(eval(text, {"x": x}), text.replace("x", name, 1))  # noqa: S307

    def change(self):
        (x, a), (y, b), k = self.pick(), self.pick(), self.random.uniform(0.5, 1.5)
        call = self.random.choice((*IN_PLACE, "mul_", "fill_", "add_", "copy_", "sub_"))
        roots = (x, x._base)
        if any(p is r for p in self.leaves for r in roots):
            return
        if call in IN_PLACE:
            arguments, text = (), ""
        elif call in ("mul_", "fill_"):
            arguments, text = (k,), str(k)
        else:
            arguments, text = (y,), b
        getattr(x, call)(*arguments)
        self.log.append(f"{a}.{call}({text})")

    def results(self, steps):
        for _ in range(steps):
            self.step()
        loss = sum((t * (0.3 + 0.1 * i)).sum() for i, t in enumerate(self.tensors))
        leaves = [p for p in self.leaves if p.requires_grad]
        grads = self.lib.autograd.grad(loss, leaves, create_graph=True)
        again = sum((g * g).sum() for g in grads)
        if again.requires_grad:
            again.backward()
        found = [*self.tensors, *grads, *(p.grad for p in leaves)]
        return [None if x is None else x.detach().numpy().copy() for x in found]


def run(lib, seed):
    program = Run(lib, seed)
    return program, program.results(program.random.randint(3, 10))


@pytest.mark.parametrize("block", range(8))
def test_values_and_both_derivatives_agree(block):
    torch = pytest.importorskip("torch")
    compared = 0
    for seed in range(40 * block, 40 * block + 40):
        try:
            _, expected = run(torch, seed)
        except RuntimeError:
            continue
        program = Run(facula, seed)
        try:
            found = program.results(program.random.randint(3, 10))
            assert len(found) == len(expected)
            for a, b in zip(found, expected):
                zero = a is None or b is None
                assert not zero or not np.any(a if b is None else b)
                if not zero:
                    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
        except Exception as error:
            error.add_note(f"seed {seed}\n" + "\n".join(program.log))
            raise
        compared += 1
    assert compared > 20
