"""State dicts: round trips, messages, versions, extra state and hooks."""

from __future__ import annotations

import re
from collections import OrderedDict

import pytest

import facula
from facula import nn


def model():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def test_keys_and_metadata():
    state = model().state_dict()
    assert list(state) == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
        "2.weight",
        "2.bias",
    ]
    assert dict(state._metadata) == {
        "": {"version": 1},
        "0": {"version": 1},
        "1": {"version": 2},
        "2": {"version": 1},
    }
    assert list(model().state_dict(prefix="net."))[0] == "net.0.weight"


def test_shares_storage_and_history():
    net = model()
    state = net.state_dict()
    assert not state["0.weight"].requires_grad
    assert net.state_dict(keep_vars=True)["0.weight"] is net[0].weight
    with facula.no_grad():
        net[0].weight.fill_(4.0)
    assert state["0.weight"].tolist() == [[4.0, 4.0]] * 3


def test_round_trip():
    source, target = model(), model()
    source(facula.randn(5, 2))
    result = target.load_state_dict(source.state_dict())
    assert repr(result) == str(result) == "<All keys matched successfully>"
    source.eval()
    target.eval()
    x = facula.randn(4, 2)
    assert source(x).tolist() == target(x).tolist()
    assert int(target[1].num_batches_tracked) == 1
    with facula.no_grad():
        source[0].weight.fill_(9.0)
    assert 9.0 not in target[0].weight.reshape(-1).tolist()


def test_missing_and_unexpected_keys():
    net = model()
    state = net.state_dict()
    state["extra"] = state.pop("0.bias")
    state["0.more"] = state["0.weight"]
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(state)
    assert str(caught.value) == (
        "Error(s) in loading state_dict for Sequential:\n"
        '\tUnexpected key(s) in state_dict: "extra", "0.more". \n'
        '\tMissing key(s) in state_dict: "0.bias". '
    ) or sorted(re.findall('"(.*?)"', str(caught.value))) == ["0.bias", "0.more", "extra"]
    result = net.load_state_dict(state, strict=False)
    assert result.missing_keys == ["0.bias"]
    assert sorted(result.unexpected_keys) == ["0.more", "extra"]
    assert "missing_keys=['0.bias']" in repr(result)


def test_size_mismatch():
    net = model()
    state = net.state_dict()
    state["0.weight"] = facula.ones(4, 2)
    for strict in (True, False):
        with pytest.raises(RuntimeError) as caught:
            net.load_state_dict(state, strict=strict)
        assert "\tsize mismatch for 0.weight: copying a param with shape " in str(caught.value)
        assert ", the shape in current model is " in str(caught.value)


def test_wrong_types():
    net = model()
    with pytest.raises(TypeError, match="Expected state_dict to be dict-like"):
        net.load_state_dict([1])
    state = net.state_dict()
    state["0.weight"] = "text"
    with pytest.raises(RuntimeError, match="expected torch.Tensor or Tensor-like object"):
        net.load_state_dict(state)


def test_assign():
    net = nn.Linear(2, 3)
    state = {"weight": facula.ones(3, 2, dtype=facula.float64), "bias": facula.zeros(3)}
    net.load_state_dict(state, assign=True)
    assert net.weight.dtype == facula.float64
    assert isinstance(net.weight, nn.Parameter)
    assert net.weight.requires_grad
    net.requires_grad_(False).load_state_dict(state, assign=True)
    assert not net.weight.requires_grad


def test_batch_norm_of_before_the_batch_count():
    net = nn.BatchNorm1d(3)
    state = OrderedDict(
        (key, value) for key, value in net.state_dict().items() if "num_batches" not in key
    )
    net.load_state_dict(state)
    state._metadata = {"": {"version": 2}}
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        net.load_state_dict(state)


class Counting(nn.Module):
    """A module with extra state."""

    def __init__(self, count=0):
        super().__init__()
        self.count = count

    def get_extra_state(self):
        return {"count": self.count}

    def set_extra_state(self, state):
        self.count = state["count"]


def test_extra_state():
    state = nn.Sequential(Counting(3)).state_dict()
    assert state["0._extra_state"] == {"count": 3}
    target = nn.Sequential(Counting())
    target.load_state_dict(state)
    assert target[0].count == 3
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "_extra_state"'):
        Counting().load_state_dict({})
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "_extra_state"'):
        nn.Identity().load_state_dict({"_extra_state": 1})


def test_hooks():
    net, seen = nn.Linear(1, 1), []
    net.register_state_dict_pre_hook(lambda module, prefix, keep: seen.append("pre"))
    net.register_state_dict_post_hook(
        lambda module, state, prefix, metadata: state.update(extra=facula.ones(1))
    )
    state = net.state_dict()
    assert list(state) == ["weight", "bias", "extra"]
    assert seen == ["pre"]

    def drop_extra(module, state, *rest):
        assert module is net
        del state["extra"]

    net.register_load_state_dict_pre_hook(drop_extra)
    net.register_load_state_dict_post_hook(lambda module, keys: seen.append(keys))
    net.load_state_dict(state)
    assert "extra" in state  # The caller's dict is left alone.
    assert seen[1] == ([], [])
    net.register_state_dict_post_hook(lambda *args: {})
    with pytest.raises(RuntimeError, match="must return None"):
        net.state_dict()
