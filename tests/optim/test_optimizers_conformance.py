"""Every optimizer against PyTorch's: the path of five steps, and the state dict's layout."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import facula
from facula import optim
from tests.nn.against import array, to_facula

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.conformance

DECAY = {"weight_decay": 0.1}
OPTIONS = {
    "SGD": [
        {},
        DECAY,
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True, "maximize": True},
    ],
    "ASGD": [{}, DECAY, {"t0": 2, "lambd": 0.1}, {"maximize": True}],
    "Adam": [{}, DECAY, {"amsgrad": True}, {"maximize": True}, {"decoupled_weight_decay": True}],
    "AdamW": [{}, DECAY, {"amsgrad": True, "betas": (0.5, 0.9), "eps": 1e-3}],
    "NAdam": [{}, DECAY, {"decoupled_weight_decay": True, **DECAY}, {"maximize": True}],
    "RAdam": [{}, DECAY, {"betas": (0.9, 0.5)}, {"decoupled_weight_decay": True, **DECAY}],
    "Adamax": [{}, DECAY, {"maximize": True}],
    "Adagrad": [{}, DECAY, {"lr_decay": 0.1, "initial_accumulator_value": 0.5}],
    "Adadelta": [{}, DECAY, {"rho": 0.5, "maximize": True}],
    "RMSprop": [{}, DECAY, {"centered": True}, {"momentum": 0.5}, {"momentum": 0.5, "centered": 1}],
    "Adafactor": [{}, DECAY, {"eps": (1e-5, 1e-2), "d": 2.0, "maximize": True}],
    "Rprop": [{}, {"etas": (0.3, 1.5), "step_sizes": (1e-3, 0.05)}, {"maximize": True}],
}
CASES = [(name, options) for name, sets in OPTIONS.items() for options in sets]


def weights(dtype):
    torch.manual_seed(0)
    return [
        torch.randn(3, 4, dtype=dtype),
        torch.randn(5, dtype=dtype),
        torch.randn((), dtype=dtype),
    ]


class Path:
    """Parameters that walk down a fixed quadratic; the last one gets a gradient from step 3 on."""

    def __init__(self, library, optimizer, tensors, options):
        self.params = [library.nn.Parameter(tensor) for tensor in tensors]
        groups = [{"params": self.params[:1], "lr": 0.02}, {"params": self.params[1:]}]
        self.optimizer = optimizer(groups, lr=0.05, **options)

    def step(self, i):
        self.optimizer.zero_grad()
        loss = sum(
            ((param * (j + 1) - 0.3 * i) ** 2).sum()
            for j, param in enumerate(self.params)
            if j < 2 or i >= 2
        )
        loss.backward()
        self.optimizer.step()


def both(name, options, dtype):
    tensors = weights(dtype)
    mine = Path(facula, getattr(optim, name), to_facula(tensors), dict(options))
    theirs = Path(torch, getattr(torch.optim, name), copy.deepcopy(tensors), dict(options))
    return mine, theirs


def assert_same_params(mine, theirs, tolerance):
    for ours, reference in zip(mine.params, theirs.params):
        np.testing.assert_allclose(array(ours), array(reference), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name, options", CASES, ids=[f"{n}-{o}" for n, o in CASES])
def test_path(name, options, dtype):
    mine, theirs = both(name, options, getattr(torch, dtype))
    for i in range(5):
        mine.step(i)
        theirs.step(i)
        assert_same_params(mine, theirs, 1e-5 if dtype == "float32" else 1e-6)


def plain(value):
    return array(value).tolist() if hasattr(value, "detach") else value


@pytest.mark.parametrize("name, options", CASES, ids=[f"{n}-{o}" for n, o in CASES])
def test_state_dict_layout(name, options):
    mine, theirs = both(name, options, torch.float32)
    for i in range(2):
        mine.step(i)
        theirs.step(i)
    ours, reference = mine.optimizer.state_dict(), theirs.optimizer.state_dict()
    assert ours["param_groups"] == reference["param_groups"]
    assert [list(group) for group in ours["param_groups"]] == [
        list(group) for group in reference["param_groups"]
    ]
    assert set(ours["state"]) == set(reference["state"])
    for index, entries in reference["state"].items():
        assert set(ours["state"][index]) == set(entries)
        for key, value in entries.items():
            found = ours["state"][index][key]
            assert str(found.dtype).split(".")[-1] == str(value.dtype).split(".")[-1]
            np.testing.assert_allclose(plain(found), plain(value), rtol=1e-5, atol=1e-6)
    assert repr(mine.optimizer) == repr(theirs.optimizer)


@pytest.mark.parametrize("name", OPTIONS)
def test_goes_on_from_their_state_dict(name):
    """A run begun in PyTorch goes on here as it would there."""
    options = OPTIONS[name][-1]
    mine, theirs = both(name, options, torch.float32)
    for i in range(3):
        theirs.step(i)
    state = theirs.optimizer.state_dict()
    state["state"] = {
        index: {key: to_facula(value) for key, value in entries.items()}
        for index, entries in state["state"].items()
    }
    mine.optimizer.load_state_dict(state)
    with facula.no_grad():
        for ours, reference in zip(mine.params, theirs.params):
            ours.copy_(to_facula(reference.detach()))
    for i in range(3, 5):
        mine.step(i)
        theirs.step(i)
        assert_same_params(mine, theirs, 1e-5)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
@pytest.mark.parametrize("history", [2, 100])
def test_lbfgs_path(search, history):
    def run(library, optimizer):
        x = library.nn.Parameter(library.tensor([-1.2, 1.0, 0.7], dtype=library.float64))
        steps = optimizer(
            [x],
            lr=0.05 if search is None else 1,
            max_iter=4,
            history_size=history,
            line_search_fn=search,
        )

        def closure():
            steps.zero_grad()
            # Rosenbrock's valley, in three dimensions.
            loss = (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()
            loss.backward()
            return loss

        path = []
        for _ in range(5):
            loss = steps.step(closure)
            path.append([loss.item(), *x.tolist()])
        entries = steps.state_dict()["state"][0]
        # "al" is PyTorch's room for the factors of one direction.
        return path, entries["n_iter"], entries["func_evals"], set(entries) - {"al"}

    mine, theirs = run(facula, optim.LBFGS), run(torch, torch.optim.LBFGS)
    np.testing.assert_allclose(mine[0], theirs[0], rtol=1e-6, atol=1e-8)
    assert mine[1:] == theirs[1:]
