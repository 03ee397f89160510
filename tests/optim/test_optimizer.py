"""``Optimizer``: groups, errors, closures, hooks, copies and state dicts, without PyTorch."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import facula
from facula import nn, optim
from facula.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

EVERY = [
    optim.SGD,
    optim.ASGD,
    optim.Adam,
    optim.AdamW,
    optim.NAdam,
    optim.RAdam,
    optim.Adamax,
    optim.Adagrad,
    optim.Adadelta,
    optim.RMSprop,
    optim.Rprop,
]


def weight(*values):
    return nn.Parameter(facula.tensor(list(values) or [1.0, -2.0]))


def step(optimizer, *params):
    optimizer.zero_grad()
    sum((param * param).sum() for param in params).backward()
    optimizer.step()


@pytest.mark.parametrize("optimizer", EVERY)
def test_goes_down(optimizer):
    w = weight()
    steps = optimizer([w], lr=0.05)
    for _ in range(10):
        step(steps, w)
    assert (w * w).sum().item() < 5.0
    assert w.requires_grad and w.is_leaf


@pytest.mark.parametrize("optimizer", EVERY)
def test_parameters_without_gradient_are_left_alone(optimizer):
    w, still = weight(), weight()
    steps = optimizer([w, still])
    step(steps, w)
    assert still.tolist() == [1.0, -2.0]


@pytest.mark.parametrize("optimizer", EVERY)
def test_state_dict_round_trip(optimizer):
    """A run that stops, saves, loads and goes on makes the same steps."""
    first, second = weight(), weight()
    one, other = optimizer([first], lr=0.1), optimizer([second], lr=0.7)
    for _ in range(3):
        step(one, first)
    other.load_state_dict(one.state_dict())
    with facula.no_grad():
        second.copy_(first)
    for _ in range(3):
        step(one, first)
        step(other, second)
    assert first.tolist() == second.tolist()
    assert other.param_groups[0]["lr"] == 0.1


def test_step_is_a_number_here_and_a_tensor_there():
    w = weight()
    adam = optim.Adam([w])
    step(adam, w)
    assert adam.state[w]["step"] == 1
    saved = adam.state_dict()["state"][0]["step"]
    assert saved.dtype == facula.float32
    assert tuple(saved.shape) == ()
    assert saved.item() == 1.0


def test_groups():
    a, b, c = weight(), weight(), weight()
    sgd = optim.SGD([{"params": [a], "lr": 0.5}, {"params": b}], lr=0.1)
    sgd.add_param_group({"params": [c], "momentum": 0.9})
    assert [group["lr"] for group in sgd.param_groups] == [0.5, 0.1, 0.1]
    assert [group["momentum"] for group in sgd.param_groups] == [0, 0, 0.9]
    assert sgd.state_dict()["param_groups"][2]["params"] == [2]
    with pytest.raises(ValueError, match="more than one parameter group"):
        sgd.add_param_group({"params": [a]})
    with pytest.raises(TypeError, match="must be a dict"):
        sgd.add_param_group([a])


def test_named_parameters():
    layer = nn.Linear(2, 2)
    adam = optim.Adam(layer.named_parameters())
    assert adam.param_groups[0]["param_names"] == ["weight", "bias"]
    assert adam.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]
    with pytest.raises(ValueError, match="with/without names"):
        optim.Adam([("weight", weight()), weight()])


def test_parameters_are_checked():
    w = weight()
    with pytest.raises(TypeError, match="should be an iterable of Tensors or dicts"):
        optim.SGD(w)
    with pytest.raises(ValueError, match="empty parameter list"):
        optim.SGD([])
    with pytest.raises(TypeError, match="ordered collections"):
        optim.SGD([{"params": {w}}])
    with pytest.raises(TypeError, match="can only optimize Tensors"):
        optim.SGD([3])
    with pytest.raises(ValueError, match="non-leaf"):
        optim.SGD([w * 2])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optim.SGD([w, w])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda w: optim.SGD([w], lr=-1), "Invalid learning rate: -1"),
        (lambda w: optim.SGD([w], momentum=-1), "Invalid momentum value: -1"),
        (lambda w: optim.SGD([w], nesterov=True), "Nesterov momentum requires"),
        (lambda w: optim.Adam([w], eps=-1), "Invalid epsilon value: -1"),
        (lambda w: optim.Adam([w], betas=(1.0, 0.5)), "Invalid beta parameter at index 0: 1.0"),
        (lambda w: optim.AdamW([w], weight_decay=-1), "Invalid weight_decay value: -1"),
        (lambda w: optim.Adadelta([w], rho=2), "Invalid rho value: 2"),
        (lambda w: optim.Rprop([w], etas=(2, 3)), "Invalid eta values: 2, 3"),
    ],
)
def test_options_are_checked(make, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        make(weight())


def test_differentiable_is_refused_and_not_ignored():
    with pytest.raises(NotImplementedError, match="hint"):
        optim.Adam([weight()], differentiable=True)


def test_closure():
    w = weight()
    sgd = optim.SGD([w], lr=0.25)

    def closure():
        sgd.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    with facula.no_grad():
        assert sgd.step(closure).item() == 5.0
    assert w.tolist() == [0.5, -1.0]


def test_zero_grad():
    w = weight()
    sgd = optim.SGD([w])
    (w * w).sum().backward()
    sgd.zero_grad(set_to_none=False)
    assert w.grad.tolist() == [0.0, 0.0]
    sgd.zero_grad()
    assert w.grad is None


def test_step_hooks():
    w, seen = weight(), []
    sgd = optim.SGD([w])
    other = register_optimizer_step_pre_hook(lambda *a: seen.append("every before"))
    after = register_optimizer_step_post_hook(lambda *a: seen.append("every after"))
    sgd.register_step_pre_hook(lambda optimizer, args, kwargs: seen.append("before"))
    handle = sgd.register_step_post_hook(lambda optimizer, args, kwargs: seen.append("after"))
    try:
        step(sgd, w)
    finally:
        other.remove()
        after.remove()
    assert seen == ["every before", "before", "after", "every after"]
    handle.remove()
    step(sgd, w)
    assert seen[4:] == ["before"]


def test_hooks_of_an_optimizer_with_a_step_of_its_own():
    class Own(optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

        def step(self, closure=None):
            seen.append("step")

    seen = []
    own = Own([weight()])
    own.register_step_pre_hook(lambda *a: seen.append("before"))
    own.step()
    assert seen == ["before", "step"]


def test_state_dict_hooks():
    w = weight()
    adam = optim.Adam([w])
    step(adam, w)
    adam.register_state_dict_pre_hook(lambda optimizer: None)
    adam.register_state_dict_post_hook(lambda optimizer, state: {**state, "note": 1})
    state = adam.state_dict()
    assert state["note"] == 1
    seen = []
    adam.register_load_state_dict_pre_hook(lambda optimizer, state: seen.append(state["note"]))
    adam.register_load_state_dict_post_hook(lambda optimizer: seen.append("after"))
    adam.load_state_dict(state)
    assert seen == [1, "after"]


def test_loading_is_checked():
    one, two = optim.SGD([weight()]), optim.SGD([weight(), weight()])
    with pytest.raises(ValueError, match="doesn't match the size"):
        one.load_state_dict(two.state_dict())
    two.add_param_group({"params": [weight()]})
    with pytest.raises(ValueError, match="different number of parameter groups"):
        one.load_state_dict(two.state_dict())


def test_loaded_state_is_a_copy():
    first, second = weight(), weight()
    one, other = optim.Adam([first]), optim.Adam([second])
    step(one, first)
    other.load_state_dict(one.state_dict())
    step(one, first)
    assert one.state[first]["exp_avg"].tolist() != other.state[second]["exp_avg"].tolist()


def test_copies_and_pickles():
    w = weight()
    adam = optim.Adam([w], lr=0.1)
    step(adam, w)
    twin_w, twin = copy.deepcopy((w, adam))
    assert twin.param_groups[0]["params"][0] is twin_w
    step(adam, w)
    step(twin, twin_w)
    assert twin_w.tolist() == w.tolist()
    loaded = pickle.loads(pickle.dumps(adam))
    assert loaded.state_dict()["param_groups"] == adam.state_dict()["param_groups"]
    param = loaded.param_groups[0]["params"][0]
    step(loaded, param)
    step(adam, w)
    assert param.tolist() == w.tolist()


def test_repr():
    sgd = optim.SGD([weight()], lr=0.5)
    assert repr(sgd).startswith("SGD (\nParameter Group 0\n    dampening: 0\n")
    assert repr(sgd).endswith("    weight_decay: 0\n)")


def test_averaged_model():
    model = nn.Linear(1, 1, bias=False)
    averaged = optim.swa_utils.AveragedModel(model)
    moving = optim.swa_utils.AveragedModel(model, avg_fn=optim.swa_utils.get_ema_avg_fn(0.5))
    for value in (1.0, 2.0, 6.0):
        nn.init.constant_(model.weight, value)
        averaged.update_parameters(model)
        moving.update_parameters(model)
    assert averaged.module.weight.item() == 3.0
    assert moving.module.weight.item() == 3.75
    assert averaged(facula.ones(1)).item() == 3.0
    assert list(averaged.state_dict()) == ["n_averaged", "module.weight"]


def test_update_bn():
    model = nn.Sequential(nn.BatchNorm1d(1)).eval()
    batches = [(facula.tensor([[1.0], [3.0]]), None), (facula.tensor([[5.0], [7.0]]), None)]
    optim.swa_utils.update_bn(batches, model)
    assert model[0].running_mean.tolist() == [4.0]
    assert model[0].momentum == 0.1
    assert not model.training


def test_scheduler_before_optimizer_warns():
    w = weight()
    sgd = optim.SGD([w])
    scheduler = optim.lr_scheduler.StepLR(sgd, 1)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        scheduler.step()


def test_scheduler_errors():
    w = weight()
    sgd = optim.SGD([w])
    schedules = optim.lr_scheduler
    with pytest.raises(KeyError, match="initial_lr"):
        schedules.StepLR(sgd, 1, last_epoch=3)
    with pytest.raises(ValueError, match="Expected 1 lr_lambdas, but got 2"):
        schedules.LambdaLR(sgd, [lambda e: 1, lambda e: 1])
    with pytest.raises(ValueError, match="Factor should be < 1.0"):
        schedules.ReduceLROnPlateau(sgd, factor=2)
    with pytest.raises(ValueError, match="either total_steps OR"):
        schedules.OneCycleLR(sgd, 0.1)
    with pytest.raises(ValueError, match="at least one scheduler"):
        schedules.ChainedScheduler([])
    with pytest.raises(ValueError, match="belong to the same optimizer"):
        other = schedules.StepLR(optim.SGD([weight()]), 1)
        schedules.ChainedScheduler([schedules.StepLR(sgd, 1), other])
    cycle = schedules.OneCycleLR(optim.SGD([w], momentum=0.9), 0.1, total_steps=2)
    with pytest.raises(ValueError, match="Tried to step 3 times"):
        for _ in range(3):
            cycle.optimizer.step()
            cycle.step()


def test_muon_and_averages_against_pytorch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    start, slope = torch.randn(6, 4), torch.randn(6, 4)
    ours = nn.Parameter(facula.tensor(start.numpy().copy()))
    theirs = torch.nn.Parameter(start.clone())
    pairs = [(ours, optim.Muon([ours], lr=0.02)), (theirs, torch.optim.Muon([theirs], lr=0.02))]
    for _ in range(3):
        for (param, optimizer), grad in zip(pairs, (facula.tensor(slope.numpy()), slope)):
            param.grad = grad
            optimizer.step()
    # The iteration is in bfloat16, whose sums PyTorch rounds otherwise.
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), atol=1e-2)
    with pytest.raises(ValueError):
        optim.Muon([nn.Parameter(facula.zeros(3))])


@pytest.mark.parametrize("how", ["cos", "linear"])
def test_rates_for_averaging(how):
    swa = pytest.importorskip("torch.optim.swa_utils")
    torch = pytest.importorskip("torch")
    paths = []
    for library, kind in ((facula, optim.swa_utils.SWALR), (torch, swa.SWALR)):
        optimizer = library.optim.SGD([library.nn.Parameter(library.zeros(2))], lr=0.4)
        scheduler = kind(optimizer, 0.05, 3, how)
        path = []
        for _ in range(5):
            path.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        paths.append(path)
    np.testing.assert_allclose(paths[0], paths[1], rtol=1e-12)


def test_several_averages_at_once():
    model = nn.Linear(2, 1, bias=False)
    swa = optim.swa_utils
    one = swa.AveragedModel(model, avg_fn=swa.get_ema_avg_fn(0.5))
    many = swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(0.5))
    for _ in range(3):
        with facula.no_grad():
            model.weight.add_(1.0)
        one.update_parameters(model)
        many.update_parameters(model)
    assert one.module.weight.tolist() == many.module.weight.tolist()
