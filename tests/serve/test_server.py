"""A real process on a real socket: it says where it is, answers, and stops cleanly."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time

import httpx
import pytest

PROGRAM = """
import sys, time
from facula.serve import ModelRegistry, serve
from tests.serve.fakes import Double

class Slow(Double):
    name = "slow"
    def infer(self, inputs):
        print("running", flush=True)
        time.sleep(1.0)
        return super().infer(inputs)

registry = ModelRegistry()
registry.add(Slow())
sys.exit(serve(registry, port=0, log_level="warning"))
"""
BODY = {
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]},
        {"name": "count", "datatype": "INT64", "shape": [], "data": [0]},
    ]
}


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_request_in_flight_finish(root, stop):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving slow at http://127.0.0.1:")
        address = line.split()[-1]
        assert httpx.get(address + "/v2/health/ready").status_code == 200
        with httpx.Client() as client:
            times = []
            for _ in range(20):
                start = time.perf_counter()
                client.get(address + "/v2/health/live")
                times.append(time.perf_counter() - start)
        # Nagle's algorithm waiting for a delayed acknowledgement would make it 40 ms.
        assert statistics.median(times) < 0.03
        answers = []
        request = threading.Thread(
            target=lambda: answers.append(
                httpx.post(address + "/v2/models/slow/infer", json=BODY, timeout=20)
            )
        )
        request.start()
        assert process.stdout.readline() == "running\n"
        process.send_signal(stop)
        request.join(20)
        assert answers and answers[0].json()["outputs"][0]["data"] == [2, 4, 6]
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
