"""Helpers to run the same thing here and in PyTorch."""

from __future__ import annotations

import numpy as np

import facula
from facula import nn


def to_facula(value, made=None):
    """PyTorch tensors, also inside tuples, as tensors of this library.

    What is one tensor there is one tensor here: ``made`` holds those that were converted.
    """
    import torch

    made = {} if made is None else made
    if isinstance(value, (tuple, list)):
        return type(value)(to_facula(entry, made) for entry in value)
    if not isinstance(value, torch.Tensor):
        return value
    if id(value) not in made:
        ours = facula.from_numpy(value.detach().numpy().copy())
        made[id(value)] = ours.requires_grad_(value.requires_grad)
    return made[id(value)]


def array(value):
    """A tensor of either library as a NumPy array."""
    return np.asarray(value.detach().numpy())


def flat(value):
    """The tensors of either library inside nested tuples and lists, None left out."""
    if value is None:
        return []
    if isinstance(value, (tuple, list)):
        return [tensor for entry in value for tensor in flat(entry)]
    return [value]


def assert_close(ours, theirs, tolerance=2e-5):
    ours, theirs = flat(ours), flat(theirs)
    assert len(ours) == len(theirs)
    for mine, reference in zip(ours, theirs):
        assert tuple(mine.shape) == tuple(reference.shape)
        np.testing.assert_allclose(array(mine), array(reference), rtol=tolerance, atol=tolerance)


def copy_weights(ours, theirs):
    """Give ``ours`` the parameters and buffers of ``theirs``, a module of PyTorch."""
    ours.load_state_dict({key: to_facula(value) for key, value in theirs.state_dict().items()})


def assert_same_layout(ours, theirs):
    mine = {key: tuple(value.shape) for key, value in ours.state_dict().items()}
    reference = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert list(mine.items()) == list(reference.items())


def assert_same_module(ours, theirs, inputs, tolerance=2e-5, gradients=True):
    """Outputs, gradients of inputs and parameters, and buffers after a call are the same.

    ``ours`` and ``theirs`` must hold the same weights; ``inputs`` are PyTorch's.
    """
    my_inputs = to_facula(inputs)
    ours.zero_grad()
    theirs.zero_grad()
    for tensor in flat(list(inputs)):
        if hasattr(tensor, "grad"):
            tensor.grad = None
    my_outputs, their_outputs = ours(*my_inputs), theirs(*inputs)
    assert_close(my_outputs, their_outputs, tolerance)
    if gradients:
        weighted_sum(my_outputs).backward()
        weighted_sum(their_outputs).backward()
        for mine, reference in zip(flat(list(my_inputs)), flat(list(inputs))):
            if hasattr(reference, "grad"):
                assert_same_gradient(mine, reference, tolerance)
        mine = dict(ours.named_parameters())
        for name, reference in theirs.named_parameters():
            assert_same_gradient(mine[name], reference, tolerance)
    for (name, mine), (their_name, reference) in zip(ours.named_buffers(), theirs.named_buffers()):
        assert name == their_name
        assert_close(mine, reference, tolerance)


def assert_same_gradient(mine, reference, tolerance):
    if reference.grad is None:
        assert mine.grad is None
    else:
        assert_close(mine.grad, reference.grad, 5 * tolerance)


def weighted_sum(outputs):
    """A scalar on which every output's every value has another influence."""
    total = 0.0
    for i, output in enumerate(flat(outputs)):
        if output.requires_grad:
            squares = (output * output).sum() * 0.3
            total = total + (i + 1) * output.sum() + squares
    return total


__all__ = [
    "array",
    "assert_close",
    "assert_same_layout",
    "assert_same_module",
    "copy_weights",
    "flat",
    "nn",
    "to_facula",
    "weighted_sum",
]
