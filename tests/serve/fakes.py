"""Models that need no engine, for tests of the server alone."""

from __future__ import annotations

import threading

import numpy as np

from facula.serve.errors import InvalidInput
from facula.serve.model import Model, TensorSpec


class Double(Model):
    """``y = 2 x`` for FP32 [-1, 3], beside an INT64 count that it adds."""

    name, platform = "double", "test"
    inputs = (TensorSpec("x", "FP32", (-1, 3)), TensorSpec("count", "INT64", ()))
    outputs = (TensorSpec("y", "FP32", (-1, 3)), TensorSpec("rows", "INT64", ()))

    def __init__(self, version: str = "1"):
        self.version = version
        self.threads: set[str] = set()
        self.closed = False

    def infer(self, inputs):
        self.threads.add(threading.current_thread().name)
        x, count = inputs["x"], inputs["count"]
        if count < 0:
            raise InvalidInput("input 'count': must not be negative")
        if count == 13:
            raise RuntimeError("the secret reason")
        if count == 17:
            x = x * np.float32(np.inf)
        return {"y": 2 * x + np.float32(count), "rows": np.int64(len(x))}

    def close(self):
        self.closed = True


class Gate(Model):
    """Answers only once the test opens the gate; says when a request has come in."""

    name, platform, version = "gate", "test", "1"
    inputs = (TensorSpec("x", "BOOL", (1,)),)
    outputs = (TensorSpec("x", "BOOL", (1,)),)

    def __init__(self):
        self.entered, self.opened = threading.Event(), threading.Event()

    def infer(self, inputs):
        self.entered.set()
        assert self.opened.wait(20)
        return dict(inputs)
