"""Scaled gradients, and autocast where there is nothing to cast to."""

from __future__ import annotations

import math

import pytest

import facula
from facula import amp


def parameter(value=1.0):
    p = facula.nn.Parameter(facula.tensor([value]))
    return p, facula.optim.SGD([p], lr=0.1)


def test_scaled_steps_are_those_without_a_scale():
    p, optimizer = parameter()
    scaler = amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    for _ in range(2):
        optimizer.zero_grad()
        loss = (p * p).sum()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        with pytest.raises(RuntimeError, match="already"):
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    assert p.item() == pytest.approx(0.64) and scaler.get_scale() == 2048.0


def test_an_infinity_leaves_the_step_out_and_cuts_the_scale():
    p, optimizer = parameter()
    scaler = amp.GradScaler("cpu", init_scale=8.0)
    p.grad = facula.tensor([math.inf])
    scaler.step(optimizer)
    scaler.update()
    assert p.item() == 1.0 and scaler.get_scale() == 4.0
    other = amp.GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert other.get_scale() == 4.0


def test_off_where_there_is_no_gpu():
    with pytest.warns(UserWarning, match="CUDA"):
        scaler = amp.GradScaler()
    p, optimizer = parameter()
    assert not scaler.is_enabled() and scaler.scale(p) is p and scaler.state_dict() == {}
    with pytest.warns(UserWarning, match="CUDA"), facula.autocast("cuda"):
        pass
    with pytest.raises(NotImplementedError):
        facula.autocast("cpu")
