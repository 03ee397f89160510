"""Calls of captured functions that find everything as it was, and then do not."""

from __future__ import annotations

from collections import OrderedDict, deque

import pytest

import facula
import facula.nn.functional as F
from facula import nn, optim
from facula.runtime import guards

FACTOR = 2


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.drop, self.factor = nn.Linear(3, 3), nn.Dropout(0.0), 3
        self.register_buffer("shift", facula.ones(3))

    def forward(self, x):
        y = self.linear(x) * self.factor + self.shift
        return y.relu() if self.training else y


class Plain:
    def __init__(self):
        self.factor = 2


class Slotted:
    __slots__ = ("factor", "none")

    def __init__(self):
        self.factor = 2


class World:
    """What the function of this test reads, of every kind that can change."""

    def __init__(self):
        facula.manual_seed(0)
        self.net, self.items, self.named = Scaled(), [1, 2], {"a": 1.5}
        self.ordered, self.queue, self.object = OrderedDict(a=1, b=2), deque([1]), Plain()
        self.slotted = Slotted()
        self.weight = facula.full((3,), 2.0)
        net, items, named, number = self.net, self.items, self.named, 3
        ordered, queue, thing, weight = self.ordered, self.queue, self.object, self.weight
        slotted = self.slotted

        def function(x, more=1, flag=True):
            y = net(x) * sum(items) + named["a"] * more + list(ordered.values())[0] * len(queue)
            y = y * weight * FACTOR + number * thing.factor
            y = y + slotted.factor + getattr(slotted, "none", 0)
            return y if flag else -y

        def put(value):
            nonlocal number
            number = value

        self.function, self.put = function, put


def put_global(world):
    global FACTOR
    FACTOR = 5


CHANGES = {
    "a variable": lambda w: w.put(4),
    "a global": put_global,
    "a list": lambda w: w.items.append(7),
    "an item of a list": lambda w: w.items.__setitem__(0, 9),
    "a dict": lambda w: w.named.update(a=2.5),
    "an ordered dict": lambda w: w.ordered.update(a=6),
    "the order of a dict": lambda w: w.ordered.move_to_end("a"),
    "a deque": lambda w: w.queue.append(1),
    "an object": lambda w: setattr(w.object, "factor", 7),
    "a slot": lambda w: setattr(w.slotted, "factor", 3),
    "an empty slot": lambda w: setattr(w.slotted, "none", 1),
    "a module's attribute": lambda w: setattr(w.net, "factor", 7),
    "a module's mode": lambda w: w.net.eval(),
    "a module's parameter": lambda w: setattr(w.net.linear, "bias", None),
    "a module's module": lambda w: setattr(w.net, "linear", nn.Linear(3, 3)),
    "a module's hook": lambda w: w.net.register_forward_hook(lambda m, i, o: o * 2),
    "a module's function": lambda w: setattr(w.net, "forward", lambda x: x * 0),
    "whether a gradient is wanted": lambda w: w.net.linear.weight.requires_grad_(False),
    "data": lambda w: setattr(w.weight, "data", facula.full((3,), 5.0)),
    "data of another shape": lambda w: setattr(w.weight, "data", facula.full((1,), 5.0)),
    "elements": lambda w: w.weight.add_(1),
    "a buffer": lambda w: setattr(w.net, "shift", facula.zeros(3)),
}


@pytest.fixture(autouse=True)
def same_global():
    yield
    globals()["FACTOR"] = 2


def alike(world, captured, *args, **kwargs):
    expected, found = world.function(*args, **kwargs), captured(*args, **kwargs)
    assert found.tolist() == expected.tolist()
    assert found.requires_grad == expected.requires_grad


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_after_many_calls_is_seen(name):
    world = World()
    captured = facula.compile(world.function, fullgraph=True)
    x = facula.arange(6.0).reshape(2, 3)
    for _ in range(4):
        alike(world, captured, x)
    CHANGES[name](world)
    for _ in range(4):
        alike(world, captured, x)


def test_other_arguments_are_seen():
    world = World()
    captured = facula.compile(world.function, fullgraph=True)
    x = facula.arange(6.0).reshape(2, 3)
    calls = [(x,), (x, 2.5), (x, 3.5), (x, 2), (x, 3), (x, 2, False), (x, True), (x[:1],),
             (x.t().contiguous().t(),), (nn.Parameter(x),)]  # fmt: skip
    for _ in range(3):
        for args in calls:
            for _ in range(3):
                alike(world, captured, *args)
            alike(world, captured, x, more=4, flag=False)
        with facula.no_grad():
            alike(world, captured, x)
    with pytest.raises(TypeError):
        captured()


def test_keywords_and_several_results():
    def function(*args, **kwargs):
        (x, *more), y = args, kwargs.get("y")
        return (x + 1, x * 2) if y is None else (x - y, [y, more])

    captured = facula.compile(function, fullgraph=True)
    x, y = facula.ones(3), facula.full((3,), 5.0)
    for _ in range(3):
        for args, kwargs in (((x, y), {}), ((x,), {"y": y}), ((y,), {"z": x}), ((y,), {"y": x})):
            for _ in range(3):
                expected, found = function(*args, **kwargs), captured(*args, **kwargs)
                assert str(found) == str(expected) and type(found) is tuple


def test_arguments_that_come_to_share_memory():
    count = facula.zeros(4)

    def step(x, y):
        count.add_(1)
        return x + y * count

    captured = facula.compile(step, fullgraph=True)
    x, y = facula.ones(4), facula.full((4,), 2.0)
    for _ in range(4):
        captured(x, y)
    assert captured(x, x).tolist() == [6.0] * 4
    assert captured(x, count).tolist() == [1.0 + 36] * 4
    assert captured(x, y).tolist() == [15.0] * 4


def test_a_hot_step_inside_of_another_and_after_one():
    model = nn.Linear(3, 1)
    inner = facula.compile(lambda x: model(x).sum())
    x = facula.ones(2, 3)
    for _ in range(3):
        inner(x).backward()
    outer = facula.compile(lambda x: inner(x) * 2, fullgraph=True)
    assert outer(x).item() == 2 * inner(x).item() == outer(x).item()


def test_states_that_no_longer_agree():
    runs = []
    for compiled in (False, True):
        facula.manual_seed(1)
        model = nn.Linear(3, 3)
        optimizer = optim.Adam(model.parameters(), lr=0.1)

        def step(x, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), x)
            loss.backward()
            optimizer.step()
            return loss

        runs.append((model, optimizer, facula.compile(step) if compiled else step))
    x = facula.randn(4, 3)
    for k in range(9):
        assert runs[0][2](x).item() == runs[1][2](x).item()
        if k == 4:
            for model, optimizer, _ in runs:
                dict.__setitem__(optimizer.state[model.bias], "step", 1)
    assert runs[0][0].bias.tolist() == runs[1][0].bias.tolist()


def test_guards_one_by_one():
    x, y = facula.ones(3), facula.ones(4)
    p = nn.Parameter(facula.ones(3))
    (p * p).sum().backward()
    items, named, plain = [1, x], {"a": x, "b": 2}, Plain()
    cell = (lambda z: lambda: z)(x).__closure__[0]
    checks = [
        (("same", 0, x), ("same", 0, y)),
        (("type", 1, type(x)), ("type", 1, type(p))),
        (("argument", 0, "_meta", x._meta), ("argument", 0, "_meta", y._meta)),
        (("apart", 0, "_storage", 1), ("apart", 0, "_storage", 0)),
        (("others", 0, "_storage", (y._storage,)), ("others", 0, "_storage", (1, x._storage))),
        (("slot", p, "_meta", p._meta), ("slot", p, "_meta", x._meta)),
        (("unlike", p, "_grad", None), ("unlike", x, "_grad", None)),
        (("below", p, "_grad", type(x), "_meta", x._meta),
         ("below", y, "_grad", type(x), "_meta", x._meta)),
        (("cell", cell, x), ("cell", cell, guards.NOTHING)),
        (("attribute", plain, "factor", 2), ("attribute", plain, "none", 2)),
        (("attribute", plain, "none", guards.NOTHING),
         ("attribute", plain, "factor", guards.NOTHING)),
        (("item", named, "a", x), ("item", named, "c", x)),
        (("item", named, "c", guards.NOTHING), ("item", named, "b", guards.NOTHING)),
        (("list", items, (1, x)), ("list", items, (1,))),
        (("dict", named, ("a", "b", x, 2)), ("dict", named, ("a", "b", x, y))),
        (("dict", named, ("a", "b", x, 2)), ("dict", named, ("a", x))),
        (("call", lambda: True), ("call", lambda: 1 / 0)),
    ]  # fmt: skip
    for good, bad in checks:
        assert guards.guard(2, guards.Part([good]))(x, y) is True, good
        assert guards.guard(2, guards.Part([good]))(x) is False
        assert guards.guard(2, guards.Part([bad]))(x, y) is False, bad
    parts = guards.Part([good for good, _ in checks]), guards.Part([checks[0][1]])
    assert guards.guard(2, *parts)(x, y) is False and guards.guard(2, parts[0])(x, y) is True
