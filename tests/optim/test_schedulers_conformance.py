"""Every learning-rate scheduler against PyTorch's: the rates, and momenta, of thirty steps."""

from __future__ import annotations

import re
import warnings

import pytest

import facula
from facula import optim

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.conformance


def case(name, *args, optimizer="SGD", **kwargs):
    label = f"{name}{args}{kwargs}" if args or kwargs else name
    # Addresses of functions differ from process to process.
    label = re.sub(r"<function <lambda> at 0x\w+>", "lambda", label)
    return pytest.param(name, args, kwargs, optimizer, id=label.replace(" ", ""))


CASES = [
    case("LambdaLR", lambda step: 0.9**step),
    case("LambdaLR", [lambda step: 0.9**step, lambda step: 1 / (1 + step)]),
    case("MultiplicativeLR", lambda step: 0.95),
    case("StepLR", 4, gamma=0.5),
    case("MultiStepLR", [3, 8, 8, 20], gamma=0.3),
    case("ConstantLR", factor=0.4, total_iters=6),
    case("LinearLR", start_factor=0.2, end_factor=0.8, total_iters=7),
    case("ExponentialLR", 0.9),
    case("PolynomialLR", total_iters=12, power=2.0),
    case("CosineAnnealingLR", 7, eta_min=0.01),
    case("CosineAnnealingWarmRestarts", 4),
    case("CosineAnnealingWarmRestarts", 3, T_mult=2, eta_min=0.01),
    case("CyclicLR", 0.01, 0.1, step_size_up=4, step_size_down=6),
    case("CyclicLR", [0.01, 0.02], [0.1, 0.2], step_size_up=3, mode="triangular2"),
    case("CyclicLR", 0.01, 0.1, step_size_up=3, mode="exp_range", gamma=0.97, optimizer="Adam"),
    case("CyclicLR", 0.01, 0.1, step_size_up=3, scale_fn=lambda x: 0.5**x, cycle_momentum=False),
    case("OneCycleLR", 0.3, total_steps=30),
    case("OneCycleLR", [0.3, 0.1], epochs=6, steps_per_epoch=5, anneal_strategy="linear"),
    case("OneCycleLR", 0.3, total_steps=30, three_phase=True, pct_start=0.2, optimizer="Adam"),
]


def made(library, optimizer):
    params = [library.nn.Parameter(library.ones(2)) for _ in range(2)]
    groups = [{"params": params[:1]}, {"params": params[1:], "lr": 0.2}]
    options = {"momentum": 0.9} if optimizer == "SGD" else {}
    return getattr(library.optim, optimizer)(groups, lr=0.5, **options)


def rates(optimizer):
    keys = ("lr", "momentum", "betas")
    return [[group[key] for key in keys if key in group] for group in optimizer.param_groups]


def walk(library, name, args, kwargs, optimizer, n=30):
    optimizer = made(library, optimizer)
    scheduler = getattr(library.optim.lr_scheduler, name)(optimizer, *args, **kwargs)
    path = [rates(optimizer)]
    for _ in range(n):
        optimizer.step()
        scheduler.step()
        path.append(rates(optimizer))
    assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
    return path


def assert_same_path(mine, theirs):
    for ours, reference in zip(mine, theirs):
        for my_group, their_group in zip(ours, reference):
            for my_value, their_value in zip(my_group, their_group):
                assert my_value == pytest.approx(their_value, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name, args, kwargs, optimizer", CASES)
def test_path(name, args, kwargs, optimizer):
    mine = walk(facula, name, args, kwargs, optimizer)
    assert_same_path(mine, walk(torch, name, args, kwargs, optimizer))


@pytest.mark.parametrize("name, args, kwargs, optimizer", CASES)
def test_state_dict_names_and_resuming(name, args, kwargs, optimizer):
    """A scheduler that loads another's state goes on as that one would."""
    path = walk(facula, name, args, kwargs, optimizer, n=10)
    first, second = made(facula, optimizer), made(facula, optimizer)
    make = getattr(optim.lr_scheduler, name)
    scheduler, other = make(first, *args, **kwargs), make(second, *args, **kwargs)
    for _ in range(6):
        first.step()
        scheduler.step()
    state = scheduler.state_dict()
    reference = getattr(torch.optim.lr_scheduler, name)(made(torch, optimizer), *args, **kwargs)
    missing = {"base_lrs", "last_epoch", "_step_count", "_last_lr"} - set(state)
    assert not missing & set(reference.state_dict())
    second.load_state_dict(first.state_dict())
    other.load_state_dict(state)
    for i in range(7, 11):
        second.step()
        other.step()
        assert_same_path([rates(second)], [path[i]])


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 1},
        {"patience": 0, "mode": "max", "cooldown": 2},
        {"patience": 1, "threshold_mode": "abs", "threshold": 0.5, "min_lr": [0.1, 0.01]},
    ],
    ids=str,
)
def test_plateau(options):
    def path(library):
        optimizer = made(library, "SGD")
        scheduler = library.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, **options)
        found = []
        for loss in (3.0, 2.9, 2.9, 2.8, 3.1, 3.2, 1.0, 1.0, 1.0, 1.0, 5.0, 5.0):
            optimizer.step()
            scheduler.step(loss)
            found.append(rates(optimizer))
        return found

    assert path(facula) == path(torch)


def combined(kind):
    def path(library):
        optimizer = made(library, "SGD")
        schedules = library.optim.lr_scheduler
        parts = [
            schedules.LinearLR(optimizer, start_factor=0.1, total_iters=5),
            schedules.ExponentialLR(optimizer, gamma=0.9),
        ]
        if kind == "SequentialLR":
            scheduler = schedules.SequentialLR(optimizer, parts, milestones=[5])
        else:
            scheduler = schedules.ChainedScheduler(parts, optimizer=optimizer)
        found = [rates(optimizer)]
        for _ in range(12):
            optimizer.step()
            scheduler.step()
            found.append(rates(optimizer))
        return found

    return path


@pytest.mark.parametrize("kind", ["SequentialLR", "ChainedScheduler"])
def test_combined(kind):
    with warnings.catch_warnings():
        # PyTorch's own SequentialLR passes step(0), which it has deprecated.
        warnings.simplefilter("ignore", UserWarning)
        assert_same_path(combined(kind)(facula), combined(kind)(torch))
