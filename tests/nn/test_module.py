"""``Module``: registration, walking, conversion, copies, repr and errors, without PyTorch."""

from __future__ import annotations

import copy
import pickle

import pytest

import facula
from facula import nn


class Net(nn.Module):
    """Two layers, a parameter, and buffers of both kinds."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.scale = nn.Parameter(facula.ones(4))
        self.register_buffer("seen", facula.zeros(2))
        self.register_buffer("scratch", facula.zeros(2), persistent=False)
        self.last = nn.Sequential(nn.ReLU(), nn.Linear(4, 2))

    def forward(self, x):
        return self.last(self.first(x) * self.scale)


def names(pairs):
    return [name for name, _ in pairs]


def test_names_in_order():
    net = Net()
    assert names(net.named_parameters()) == [
        "scale",
        "first.weight",
        "first.bias",
        "last.1.weight",
        "last.1.bias",
    ]
    assert names(net.named_parameters(recurse=False)) == ["scale"]
    assert names(net.named_parameters(prefix="net"))[0] == "net.scale"
    assert names(net.named_buffers()) == ["seen", "scratch"]
    assert names(net.named_children()) == ["first", "last"]
    assert names(net.named_modules()) == ["", "first", "last", "last.0", "last.1"]
    assert len(list(net.parameters())) == 5
    assert len(list(net.modules())) == 5


def test_shared_parameters_appear_once():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert names(net.named_parameters()) == ["0.weight", "0.bias", "1.bias"]
    assert len(names(net.named_parameters(remove_duplicate=False))) == 4
    assert len(net.state_dict()) == 4
    twice = nn.Sequential(net, net)
    assert names(twice.named_modules()) == ["", "0", "0.0", "0.1"]
    assert len(names(twice.named_modules(remove_duplicate=False))) == 7


def test_assignment_moves_names_between_kinds():
    module = nn.Module()
    module.x = nn.Parameter(facula.ones(2))
    with pytest.raises(TypeError, match="cannot assign 'int' as parameter 'x'"):
        module.x = 3
    module.x = None
    assert module.x is None
    assert names(module.named_parameters()) == []
    del module.x
    module.x = nn.ReLU()
    assert names(module.named_children()) == ["x"]
    module.x = nn.Parameter(facula.ones(2))
    assert names(module.named_children()) == []
    del module.x
    with pytest.raises(AttributeError, match="'Module' object has no attribute 'x'"):
        _ = module.x
    module.x = nn.Buffer(facula.ones(2), persistent=False)
    module.x = facula.zeros(3)
    assert tuple(module.get_buffer("x").shape) == (3,)
    assert not module.state_dict()
    with pytest.raises(TypeError, match="as buffer 'x'"):
        module.x = "text"
    module.layer = nn.ReLU()
    with pytest.raises(TypeError, match="as child module 'layer'"):
        module.layer = 1
    module.layer = None
    assert list(module.children()) == []


def test_registration_is_checked():
    module = nn.Module()
    with pytest.raises(KeyError, match="contain"):
        module.register_buffer("a.b", facula.ones(1))
    with pytest.raises(KeyError, match="empty string"):
        module.register_parameter("", None)
    with pytest.raises(KeyError, match="already exists"):
        module.register_buffer("training", facula.ones(1))
    with pytest.raises(TypeError, match="should be a string"):
        module.add_module(3, nn.ReLU())
    with pytest.raises(TypeError, match="is not a Module subclass"):
        module.add_module("a", 3)
    with pytest.raises(TypeError, match="required"):
        module.register_parameter("a", facula.ones(1))
    with pytest.raises(TypeError, match="required"):
        module.register_buffer("a", 3)


def test_assignment_before_init_is_refused():
    class Forgetful(nn.Module):
        def __init__(self, value):
            self.value = value

    for value in (nn.Parameter(facula.ones(1)), nn.ReLU(), nn.Buffer(facula.ones(1))):
        with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
            Forgetful(value)


def test_forward_is_required():
    with pytest.raises(NotImplementedError, match='missing the required "forward"'):
        nn.Module()(1)


def test_paths():
    net = Net()
    assert net.get_submodule("") is net
    assert net.get_submodule("last.1") is net.last[1]
    assert net.get_parameter("last.1.bias") is net.last[1].bias
    assert net.get_buffer("seen") is net.seen
    with pytest.raises(AttributeError, match="Net has no attribute `absent`"):
        net.get_submodule("absent.1")
    with pytest.raises(AttributeError, match="`weight` is not an nn.Module"):
        net.get_submodule("first.weight")
    with pytest.raises(AttributeError, match="`seen` is not an nn.Parameter"):
        net.get_parameter("seen")
    net.set_submodule("last.0", nn.Tanh())
    assert isinstance(net.last[0], nn.Tanh)


def test_apply_goes_from_the_leaves_up():
    order = []
    net = Net()
    assert net.apply(lambda module: order.append(type(module).__name__)) is net
    assert order == ["Linear", "ReLU", "Linear", "Sequential", "Net"]


def test_modes():
    net = Net()
    assert net.eval() is net
    assert not net.last[1].training
    net.train()
    assert net.last[1].training
    with pytest.raises(ValueError, match="boolean"):
        net.train(1)
    net.requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_zero_grad():
    net = Net()
    net(facula.ones(2, 3)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert all(not parameter.grad.any() for parameter in net.parameters())
    net.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())


def test_conversion_keeps_parameters():
    net = Net()
    net.register_buffer("count", facula.zeros(1, dtype=facula.int64))
    before = list(net.parameters())
    net(facula.ones(2, 3)).sum().backward()
    assert net.double() is net
    assert all(a is b for a, b in zip(before, net.parameters()))
    assert {parameter.dtype for parameter in net.parameters()} == {facula.float64}
    assert {parameter.grad.dtype for parameter in net.parameters()} == {facula.float64}
    assert net.seen.dtype == facula.float64
    assert net.count.dtype == facula.int64
    assert net(facula.ones(2, 3, dtype=facula.float64)).dtype == facula.float64
    for cast, dtype in [
        (lambda: net.half(), facula.float16),
        (lambda: net.bfloat16(), facula.bfloat16),
        (lambda: net.float(), facula.float32),
        (lambda: net.to(facula.float64), facula.float64),
        (lambda: net.to("cpu", facula.float32), facula.float32),
        (lambda: net.to(facula.zeros(1, dtype=facula.float64)), facula.float64),
        (lambda: net.to(device="cpu", dtype=facula.float32, non_blocking=True), facula.float32),
        (lambda: net.type(facula.float64), facula.float64),
    ]:
        assert cast() is net
        assert net.first.weight.dtype == dtype
    assert net.count.dtype == facula.float64  # By type(), which casts everything.
    with pytest.raises(TypeError, match="only accepts floating point"):
        net.to(facula.int32)
    with pytest.raises(TypeError, match="unexpected keyword"):
        net.to(colour="red")
    assert net.cpu() is net
    assert net.share_memory() is net


def test_deepcopy_is_apart():
    net = Net()
    twin = copy.deepcopy(net)
    assert names(twin.named_parameters()) == names(net.named_parameters())
    assert isinstance(twin.scale, nn.Parameter)
    with facula.no_grad():
        twin.scale.fill_(7.0)
    assert net.scale.tolist() == [1.0] * 4
    shared = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    shared[1].weight = shared[0].weight
    twin = copy.deepcopy(shared)
    assert twin[1].weight is twin[0].weight


def test_pickle():
    net = Net().eval()
    twin = pickle.loads(pickle.dumps(net))
    assert not twin.training
    assert twin.first.weight.tolist() == net.first.weight.tolist()
    assert isinstance(twin.scale, nn.Parameter)
    assert twin.scale.requires_grad
    x = facula.ones(2, 3)
    assert twin(x).tolist() == net(x).tolist()
    assert list(twin.state_dict()) == list(net.state_dict())


def test_dir_lists_everything():
    found = dir(Net())
    assert {"scale", "first", "seen", "forward", "training"} <= set(found)
    assert "0" not in dir(nn.Sequential(nn.ReLU()))


def test_repr():
    assert repr(Net()) == (
        "Net(\n"
        "  (first): Linear(in_features=3, out_features=4, bias=True)\n"
        "  (last): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): Linear(in_features=4, out_features=2, bias=True)\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Parameter(facula.ones(1))).startswith("Parameter containing:\ntensor([1.]")


def test_parameter():
    weight = nn.Parameter(facula.ones(2))
    assert weight.requires_grad
    assert weight.is_leaf
    assert isinstance(weight, facula.Tensor)
    assert not nn.Parameter(facula.ones(2), requires_grad=False).requires_grad
    assert not isinstance(weight * 2, nn.Parameter)
    data = facula.ones(2)
    shared = nn.Parameter(data)
    with facula.no_grad():
        shared.fill_(3.0)
    assert data.tolist() == [3.0, 3.0]
    assert nn.Parameter().numel() == 0
    twin = copy.deepcopy(weight)
    assert isinstance(twin, nn.Parameter)
    assert twin is not weight


def test_sequential():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert len(model[1:]) == 2
    assert names(model[1:].named_children()) == ["1", "2"]
    assert model[-1] is model[2]
    with pytest.raises(IndexError, match="index 3 is out of range"):
        model[3]
    model.append(nn.Tanh()).extend([nn.ReLU()])
    model.insert(1, nn.Sigmoid())
    assert [type(layer).__name__ for layer in model] == [
        "Linear",
        "Sigmoid",
        "ReLU",
        "Linear",
        "Tanh",
        "ReLU",
    ]
    del model[1:3]
    assert names(model.named_children()) == ["0", "1", "2", "3"]
    assert isinstance(model.pop(-1), nn.ReLU)
    model[1] = nn.Linear(3, 2)
    assert model[1].out_features == 2
    assert len(model + model) == 6
    assert len(model * 2) == 6
    named = nn.Sequential(facula_ordered(a=nn.ReLU(), b=nn.Tanh()))
    assert isinstance(named.b, nn.Tanh)


def facula_ordered(**modules):
    from collections import OrderedDict

    return OrderedDict(modules)


def test_module_list_and_dict():
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    layers.append(nn.ReLU())
    layers += [nn.Tanh()]
    assert len(layers) == 5
    assert isinstance(layers[-1], nn.Tanh)
    assert len(layers[1:4]) == 3
    layers.insert(0, nn.Identity())
    assert isinstance(layers[0], nn.Identity)
    del layers[0]
    assert len(layers + layers) == 10
    with pytest.raises(TypeError, match="should be called with an iterable"):
        layers.extend(3)

    choices = nn.ModuleDict({"a": nn.ReLU()})
    choices["b"] = nn.Tanh()
    choices.update([("c", nn.Sigmoid())])
    assert list(choices) == list(choices.keys()) == ["a", "b", "c"]
    assert "a" in choices
    assert isinstance(choices.pop("a"), nn.ReLU)
    del choices["b"]
    assert [name for name, _ in choices.items()] == ["c"]
    assert len(list(choices.values())) == len(choices) == 1
    choices.clear()
    assert len(choices) == 0


def test_parameter_list_and_dict():
    scales = nn.ParameterList([facula.ones(2), nn.Parameter(facula.ones(3))])
    scales.append(facula.zeros(1))
    scales += [facula.zeros(4)]
    assert names(scales.named_parameters()) == ["0", "1", "2", "3"]
    assert scales[-1].numel() == 4
    assert len(scales[1:3]) == 2
    scales[0] = facula.zeros(5)
    assert [value.numel() for value in scales] == [5, 3, 1, 4]

    sides = nn.ParameterDict({"left": facula.ones(2)})
    sides["right"] = nn.Parameter(facula.ones(3))
    sides["word"] = "kept"
    assert names(sides.named_parameters()) == ["left", "right"]
    assert list(sides) == ["left", "right", "word"]
    assert sides.get("absent") is None
    assert sides.pop("word") == "kept"
    assert list((sides | {"more": facula.ones(1)}).keys()) == ["left", "right", "more"]
    assert sides.popitem()[0] == "right"
    with pytest.raises(KeyError):
        sides["right"]
    assert sides.setdefault("left").numel() == 2
