"""Functions made of random steps, captured and eager, to the bit, for changing sizes and numbers.

A step is an op, a change in place, a view, a change through a view, a draw of random numbers, a
block without gradients, or, where the function may be cut, a question about elements. Many of the
functions train a parameter.
"""

from __future__ import annotations

import random
import warnings

import pytest

import facula
from facula import nn

UNARY = ["tanh()", "relu()", "exp().clamp(max=5)", "neg()", "sigmoid()", "mul(k)", "add(0.5)"]
CHANGES = ["add_(1)", "mul_(0.5)", "add_(k)", "tanh_()"]
PLACES = ["0", "-1", "1:", "0, 1:", "[0, 1]", ":, 0", "k % 2"]
#: (size, number) of each call.
CALLS = [(3, 1), (3, 1), (3, 2), (5, 3), (5, 4), (2, 6)]


class Writer:
    """Writes a function as source."""

    def __init__(self, seed, cuts):
        self.rng, self.cuts = random.Random(seed), cuts
        self.lines, self.names = [], ["x", "y"]

    def source(self):
        steps = [self.unary, self.binary, self.change, self.store, self.view, self.product,
                 self.draw, self.state, self.turned, self.apart, self.join]  # fmt: skip
        for _ in range(self.rng.randint(5, 14)):
            self.rng.choice([*steps, *[self.cut] * (2 * self.cuts)])(self.one(), self.one())
        last = self.names[-1]
        self.lines.append(f"loss = {last}.pow(2).mean() + P.sum() * 0.1")
        if self.rng.random() < 0.7:
            self.train()
        results = ", ".join(f"{name}.detach() * 1" for name in [*self.names[-3:], "loss"])
        number = ", loss.item()" if self.cuts and self.rng.random() < 0.3 else ""
        self.lines.append(f"return [{results}{number}]")
        return "def fn(x, y, k):\n" + "".join(f"    {line}\n" for line in self.lines)

    def one(self):
        return self.rng.choice(self.names)

    def define(self, what, before=""):
        name = f"v{len(self.lines)}"
        self.lines.append(f"{before}{name} = {what}")
        self.names.append(name)
        return name

    def unary(self, a, b):
        self.define(f"{a}.{self.rng.choice(UNARY)}")

    def binary(self, a, b):
        self.define(f"{a} {self.rng.choice('+-*')} {b}")

    def change(self, a, b):
        self.lines.append(f"{a}.{self.rng.choice(CHANGES)}")

    def store(self, a, b):
        value = self.rng.choice(["1.5", "k", "0"])
        self.lines.append(f"{a}[{self.rng.choice(PLACES)}] = {value}")

    def view(self, a, b):
        self.lines.append(f"part = {a}[{self.rng.choice(['1:', '::2', ':2'])}]")
        self.lines.append(self.rng.choice(["part.mul_(2)", "part = part.sum(0)"]))

    def product(self, a, b):
        # A piece of a cut function is one node: what it keeps may not change before backward.
        kept = f"{a}.clone()" if self.cuts else a
        self.define(f"({kept} @ P.T) @ P")

    def draw(self, a, b):
        self.define(f"{a} * facula.rand({a}.shape)")

    def state(self, a, b):
        self.lines.append(f"S.add_({a}.detach().sum(0))")

    def turned(self, a, b):
        self.define(f"{a}.t().contiguous().t()")

    def apart(self, a, b):
        self.define(f"{a} * 2", "with facula.no_grad(): ")

    def join(self, a, b):
        self.define(f"facula.cat([{a}, {b}])[:{a}.shape[0]]")

    def cut(self, a, b):
        self.define(
            self.rng.choice([
                f"{a} * 2 if {a}.sum() > 1 else {a} - 1",
                f"{a} * {b}.max().item()",
                f"{a} + float({b}.mean())",
                f"{a} if k % 2 else {a} + 1",
            ])
        )  # fmt: skip

    def train(self):
        self.lines.append("O.zero_grad(); loss.backward()")
        if self.rng.random() < 0.4:
            self.lines.append("nn.utils.clip_grad_norm_([P], 0.5)")
        condition = "if loss.item() < 1e6: " if self.cuts and self.rng.random() < 0.4 else ""
        self.lines.append(f"{condition}O.step()")


def calls(source, wrap):
    """All that each call gives and leaves."""
    facula.manual_seed(3)
    p, state = nn.Parameter(facula.randn(3, 4) * 0.5), facula.zeros(4)
    space = {"facula": facula, "nn": nn, "P": p, "S": state}
    space["O"] = facula.optim.Adam([p], lr=0.05)
    exec(source, space)
    fn, found = wrap(space["fn"]), []
    for rows, k in CALLS:
        x, y = facula.randn(rows, 4), facula.randn(rows, 4)
        try:
            result = fn(x, y, k)
        except Exception as error:
            result = [type(error)]
        grad = None if p.grad is None else p.grad.clone()
        found.append([*result, x, y, p.detach().clone(), state.clone(), grad])
    return found


def same(a, b, cuts):
    if isinstance(a, facula.Tensor):
        a, b = a.nan_to_num(7.0), b.nan_to_num(7.0)
        # What pieces bring to one gradient is added up in each of them first.
        equal = facula.allclose if cuts else facula.equal
        return a.shape == b.shape and equal(a, b)
    return a != a or (abs(a - b) <= 1e-5 * abs(b) if type(a) is float else a == b)


@pytest.mark.parametrize("cuts", [False, True], ids=["whole", "cut"])
@pytest.mark.parametrize("seed", range(8))
def test_captured_is_eager(seed, cuts):
    source = Writer(seed, cuts).source()
    expected = calls(source, lambda fn: fn)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it runs in pieces
        found = calls(source, facula.compile)
    for number, (a, b) in enumerate(zip(expected, found)):
        if isinstance(a[0], type):
            break  # Of what is kept for backward and changed, captures have kept the value.
        assert len(a) == len(b) and all(same(x, y, cuts) for x, y in zip(a, b)), (
            f"call {number} of\n{source}"
        )
