"""Captured modules: compiled in place, copied, pickled."""

from __future__ import annotations

import copy
import pickle

import pytest

import facula
from facula import nn


def through_pickle(module):
    return pickle.loads(pickle.dumps(module))


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle])
@pytest.mark.parametrize("inplace", [False, True])
def test_a_copy_of_a_captured_module_computes_with_its_own_parameters(copied, inplace):
    model = nn.Linear(3, 2)
    if inplace:
        compiled = model
        assert model.compile(fullgraph=True) is None
        assert repr(model).startswith("Linear(")
    else:
        compiled = facula.compile(model)
    x = facula.ones(3)
    before = compiled(x)
    other = copied(compiled)
    assert isinstance(other, nn.Linear)
    assert facula.equal(other(x), before)
    other.weight = nn.Parameter(facula.zeros(2, 3))
    other.bias = nn.Parameter(facula.ones(2))
    assert other(x).tolist() == [1.0, 1.0]
    assert facula.equal(compiled(x), before)


def test_a_module_compiled_in_place_is_called_captured_by_its_parent():
    parent = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    x = facula.randn(4, 2)
    expected = parent(x)
    parent[0].compile()
    assert facula.equal(parent(x), expected)
    parent(x).sum().backward()
    assert parent[0].weight.grad is not None
    with pytest.raises(TypeError):
        parent.compile(nonsense=1)
