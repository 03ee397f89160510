"""What captured functions keep of what they compute of parameters: never stale, the same bits."""

from __future__ import annotations

import numpy as np
import pytest

import facula
import facula.nn.functional as F
from facula import nn, optim
from facula.base import config
from facula.eager.constants import Constants


class Net(nn.Module):
    """Products packed and not, a constant subexpression, a mask, batch norm."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(64, 96), nn.Linear(96, 80)
        self.first = nn.Parameter(facula.randn(80, 64))
        self.second = nn.Parameter(facula.randn(64, 72))
        self.norm = nn.BatchNorm1d(72)
        self.register_buffer("scale", facula.rand(72))

    def forward(self, x):
        y = self.down(F.gelu(self.up(x)))
        return self.norm(y @ (self.first @ self.second)) * self.scale.exp()


@pytest.fixture
def net():
    return Net().eval()


@pytest.fixture
def made(monkeypatch):
    """The numbers of constants that were computed, by call."""
    found = []
    plain = Constants.renew

    def renew(self, symbols):
        values = plain(self, symbols)
        found.append(0 if values is None else len(values))
        return values

    monkeypatch.setattr(Constants, "renew", renew)
    return found


def same(f, net, rows=5):
    x = facula.randn(rows, 64)
    with facula.no_grad():
        assert facula.equal(f(x), net(x))


def test_constants_are_computed_once_and_serve_all_sizes(net, made):
    f = facula.compile(net)
    for rows in (5, 16, 17, 40, 300, 5, 1):
        same(f, net, rows)
    # Two packed weights, a packed product of parameters, the norm's scale and shift, exp.
    assert made == [6, 6]  # rows = 1 is another capture


def replace_data(net):
    net.up.weight.data = facula.randn(96, 64)


def step(net):
    optimizer = optim.SGD(net.parameters(), 0.1)
    net(facula.randn(5, 64)).sum().backward()
    optimizer.step()


def captured_step(net):
    optimizer = optim.Adam(net.parameters(), 0.1)

    @facula.compile
    def train(x):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()

    train(facula.randn(5, 64))
    optimizer.zero_grad()


def in_place(net):
    with facula.no_grad():
        net.second[3, 4] = 100.0


def through_view(net):
    with facula.no_grad():
        net.up.weight.view(-1)[7:9].fill_(50.0)


def load(net):
    net.load_state_dict(Net().state_dict())


def assign(net):
    net.load_state_dict(Net().state_dict(), assign=True)


def parameter(net):
    net.down.weight = nn.Parameter(facula.randn(80, 96))


def buffer(net):
    net.scale.mul_(3)


def statistics(net):
    net.train()(facula.randn(9, 64))
    net.eval()


def twice_the_same_memory(net):
    """Old memory that comes back with other elements, its version again 0."""
    for _ in range(3):
        net.up.weight.data = net.up.weight.data * 2
    net.up.weight.data = net.up.weight.data * 2


def as_array(net):
    net.up.weight.detach().numpy()[2] = 9


CHANGES = [
    replace_data, step, captured_step, in_place, through_view, load, assign, parameter, buffer,
    statistics, twice_the_same_memory, as_array,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("calls", [1, 3])
def test_a_change_is_seen(net, change, calls):
    f = facula.compile(net)
    for _ in range(calls):
        same(f, net)
    for _ in range(2):
        change(net)
        for _ in range(calls):
            same(f, net)


def test_what_changes_at_every_call_is_not_kept(net, made):
    f = facula.compile(net)
    for _ in range(5):
        same(f, net)
        in_place(net)
    assert made == [6, 0, 0, 0, 0]
    same(f, net), same(f, net), same(f, net)
    assert made[5:] == [0, 6]


def test_memory_shown_to_others_is_not_relied_on(net, made):
    f = facula.compile(net)
    same(f, net)
    view = net.up.weight.detach().numpy()
    part = view[1:3]
    for value in (1, 2):
        part[:] = value
        same(f, net)
    assert made == [6, 0]
    del view
    part[:] = 3
    same(f, net)
    del part
    same(f, net), same(f, net)
    assert made == [6, 0, 6]


def test_memory_of_others_is_not_relied_on(made):
    array = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
    w = facula.from_numpy(array)
    f = facula.compile(lambda x: x @ w)
    x = facula.randn(5, 64)
    for value in (1, 2, 3):
        array[0] = value
        assert facula.equal(f(x), x @ w)
    assert made == [0]


def test_nothing_is_kept_where_gradients_are(net, made):
    f = facula.compile(net)
    f(facula.randn(5, 64)).sum().backward()
    assert made == []
    x = facula.randn(5, 64, requires_grad=True)
    frozen = facula.compile(net.requires_grad_(False))
    frozen(x).sum().backward()
    assert made == []


def test_a_limit_of_bytes(net, made, monkeypatch):
    monkeypatch.setattr(config, "KEPT", 0)
    same(facula.compile(net), net)
    assert made == []
    monkeypatch.setattr(config, "KEPT", 64 * 96 * 4 + 1000)
    same(facula.compile(net), net)
    assert made == [4]  # one packed weight, and three of 72 elements
    with pytest.raises(TypeError, match="kept"):
        facula.backends.cpu.kept = 0.5


def test_a_cache_that_is_written_is_no_constant():
    cache, w = facula.zeros(8, 64), facula.randn(64, 64)

    @facula.compile
    def f(x):
        cache[:1] = x @ w
        return cache @ w

    with facula.no_grad():
        for _ in range(3):
            x = facula.randn(1, 64)
            got = f(x)
            want = cache.clone()
            want[:1] = x @ w
            assert facula.equal(got, want @ w)


@pytest.mark.parametrize("dtype", [facula.float64, facula.float16, facula.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 8, 15, 33, 70])
@pytest.mark.parametrize("inner", [64, 700])
def test_packed_products_have_the_same_bits(dtype, rows, inner):
    w, lying = (facula.randn(*size).to(dtype) for size in ((70, inner), (inner, 70)))
    f = facula.compile(lambda x: (F.linear(x, w), x @ lying, (x.mT.contiguous().mT @ lying).relu()))
    x = facula.randn(rows, inner).to(dtype)
    wanted = F.linear(x, w), x @ lying, (x @ lying).relu()
    assert all(facula.equal(a, b) for a, b in zip(f(x), wanted))


def test_an_output_that_is_a_constant_is_the_users_own(net):
    f = facula.compile(lambda x: (net.first @ net.second, x + 1))
    x = facula.ones(3)
    with facula.no_grad():
        y, _ = f(x)
        y.zero_()
        assert facula.equal(f(x)[0], net.first @ net.second)
