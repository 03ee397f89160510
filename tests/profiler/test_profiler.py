"""The profiler: what is recorded, how it nests, and the files written."""

import doctest
import gzip
import importlib
import json
import math

import pytest

import facula
from facula import nn
from facula.autograd import profiler as older
from facula.base.errors import ArgumentError, UnsupportedError
from facula.eager import engine
from facula.profiler import (
    ProfilerAction,
    ProfilerActivity,
    profile,
    record_function,
    schedule,
    tensorboard_trace_handler,
)
from facula.profiler import roofline as roof
from facula.profiler.recorder import recording
from facula.runtime import launch


@pytest.fixture(autouse=True)
def nothing_left_on():
    yield
    assert not recording()
    assert not launch._observer


def of_kind(prof, kind):
    return [e.name for e in prof.events() if e.kind == kind]


def by_name(prof, name):
    return next(e for e in prof.key_averages() if e.key == name)


def test_every_launch_and_kernel_is_an_event():
    a, b = facula.randn(8, 16), facula.randn(16, 4)
    with profile() as prof:
        c = (a @ b).relu()
    assert c.shape == (8, 4)
    assert of_kind(prof, "op") == ["matmul", "relu"]
    assert of_kind(prof, "kernel")[0] == "matmul[f32,f32]"
    for e in prof.events():
        assert e.time_range.elapsed_us() >= 0
        if e.kind == "kernel":
            assert e.cpu_parent.kind == "op" and e in e.cpu_parent.cpu_children


def test_plans_of_before_are_seen_and_none_afterwards():
    x = facula.ones(5)
    x * x
    with profile() as prof:
        x * x
    compiled = engine.compiled_kernels
    x * x
    assert of_kind(prof, "op") == ["mul"] and engine.compiled_kernels == compiled


def test_names_say_what_was_fused():
    f = facula.compile(lambda x, y: (x + y).tanh() * y)
    x, y = facula.randn(100), facula.randn(100)
    f(x, y)
    with profile() as prof:
        f(x, y)
    assert of_kind(prof, "kernel") == ["add_tanh_mul[f32,f32]"]


def test_flops_and_bytes():
    a, b, t = facula.randn(8, 16), facula.randn(16, 4), facula.randn(1000, 10)
    index = facula.tensor([1, 2])
    with profile(with_flops=True) as prof:
        a @ b
        a.exp()
        a.sum()
        nn.functional.embedding(index, t)
        nn.functional.conv2d(facula.randn(2, 3, 8, 8), facula.randn(5, 3, 3, 3))
    found = {e.name: e for e in prof.events()}
    assert found["matmul"].flops == 2 * 8 * 16 * 4
    assert found["matmul"].bytes == 4 * (8 * 16 + 16 * 4 + 8 * 4)
    assert (found["exp"].flops, found["exp"].bytes) == (128, 1024)
    assert (found["sum"].flops, found["sum"].bytes) == (128, 512 + 4)
    # Two rows are taken of a thousand.
    assert found["take[i64,f32]"].bytes == 2 * 8 + 2 * 2 * 40
    assert found["conv2d"].flops == 2 * (2 * 5 * 6 * 6) * (3 * 3 * 3)
    assert found["exp"].limit > 0


def test_backward_and_optimizers():
    model = nn.Linear(4, 3)
    optimizer = facula.optim.SGD(model.parameters(), lr=0.1)
    with profile() as prof:
        model(facula.ones(2, 4)).sum().backward()
        optimizer.step()
    assert {"linear", "linear_backward", "sum"} <= set(of_kind(prof, "op"))
    (step,) = [e for e in prof.events() if e.kind == "range"]
    assert step.name == "Optimizer.step#SGD.step"
    assert [c.kind for c in step.cpu_children] == ["op"]


def test_ranges_nest():
    @record_function("inner")
    def inner(x):
        return x + 1

    with profile() as prof:
        with record_function("outer"):
            inner(facula.ones(3))
    events = {e.name: e for e in prof.events()}
    assert events["inner"].cpu_parent is events["outer"]
    assert events["inner"].cpu_children[0].name == "add"
    outer = events["outer"]
    inside = sum(c.cpu_time_total for c in outer.cpu_children)
    assert math.isclose(outer.self_cpu_time_total, outer.cpu_time_total - inside)
    with record_function("nobody listens"):
        pass


def test_shapes_group_apart():
    with profile(record_shapes=True) as prof:
        for n in (3, 3, 5):
            facula.ones(n) + 1
    ops = [e for e in prof.key_averages(group_by_input_shape=True) if e.key == "add"]
    assert sorted((e.input_shapes, e.count) for e in ops) == [([[3], []], 2), ([[5], []], 1)]
    assert by_name(prof, "add").count == 3
    assert "[[3], []]" in prof.key_averages(group_by_input_shape=True).table()


def test_memory():
    x = facula.ones(1000)
    with profile(profile_memory=True) as prof:
        with record_function("range"):
            y = x * 2
        with record_function("freed"):
            x * 2
    assert by_name(prof, "mul").cpu_memory_usage == 8000
    assert by_name(prof, "range").cpu_memory_usage == 4096  # with its block's rounding
    assert by_name(prof, "freed").cpu_memory_usage == 0
    assert len(prof.events().counters) == 6
    assert y.numel() == 1000
    assert "CPU Mem" in prof.key_averages().table()


def test_stacks(tmp_path):
    with profile(with_stack=True) as prof:
        facula.ones(300, 300).exp()
    (op,) = [e for e in prof.events() if e.name == "exp"]
    assert "test_profiler.py" in op.stack[0] and op.stack[0].endswith("test_stacks")
    assert prof.key_averages(group_by_stack_n=1)[0].stack == op.stack[:1]
    prof.export_stacks(tmp_path / "stacks")
    assert "test_stacks " in (tmp_path / "stacks").read_text()
    with pytest.raises(ArgumentError):
        prof.export_stacks(tmp_path / "stacks", "count")


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_chrome_trace(tmp_path, name):
    with profile(record_shapes=True, profile_memory=True, with_flops=True) as prof:
        with record_function("range"):
            facula.ones(10).exp()
    prof.add_metadata("by", "a test")
    prof.add_metadata_json("numbers", "[1, 2]")
    path = tmp_path / name
    prof.export_chrome_trace(path)
    text = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()
    found = json.loads(text)
    assert found["by"] == "a test" and found["numbers"] == [1, 2]
    slices = {e["name"]: e for e in found["traceEvents"] if e["ph"] == "X"}
    assert {"range", "exp", "exp[f32]"} <= set(slices)
    outer, inner = slices["exp"], slices["exp[f32]"]
    assert outer["ts"] <= inner["ts"] and inner["args"]["bytes"] == 80
    assert inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"] + 1e-3
    assert all(e["dur"] >= 0 and e["pid"] == outer["pid"] for e in slices.values())
    assert any(e["ph"] == "C" for e in found["traceEvents"])


def test_schedule():
    plan = schedule(skip_first=1, wait=1, warmup=1, active=2, repeat=2)
    names = [plan(i).name for i in range(10)]
    cycle = ["NONE", "WARMUP", "RECORD", "RECORD_AND_SAVE"]
    assert names == ["NONE", *cycle, *cycle, "NONE"]
    with pytest.raises(ArgumentError):
        schedule(wait=0, warmup=0, active=0)


def test_steps_of_a_schedule(tmp_path):
    seen = []

    def ready(prof):
        seen.append(sorted(e.name for e in prof.events() if e.kind == "range"))

    x = facula.ones(3)
    with profile(schedule=schedule(wait=1, warmup=1, active=2), on_trace_ready=ready) as prof:
        for _ in range(8):
            x + 1
            prof.step()
    assert seen == [["ProfilerStep#2", "ProfilerStep#3"], ["ProfilerStep#6", "ProfilerStep#7"]]
    assert by_name(prof, "add").count == 2
    with profile(on_trace_ready=tensorboard_trace_handler(tmp_path)) as prof:
        x + 1
    assert len(list(tmp_path.glob("*.pt.trace.json"))) == 1
    assert plan_of(prof) is ProfilerAction.NONE


def plan_of(prof):
    return prof.current_action


def test_one_at_a_time_and_refusals():
    with profile(activities=[ProfilerActivity.CPU]):
        with pytest.raises(UnsupportedError):
            profile().start()
    with pytest.raises(UnsupportedError):
        profile(activities=["CUDA"])
    with pytest.raises(RuntimeError):
        profile().events()
    with profile() as prof:
        facula.ones(3) + 1
    with pytest.raises(ArgumentError):
        prof.key_averages().table(sort_by="colour")


def test_an_exception_ends_the_recording():
    with pytest.raises(ZeroDivisionError):
        with profile():
            raise ZeroDivisionError
    x = facula.ones(3)
    with profile() as prof:
        x + 1
    assert of_kind(prof, "op") == ["add"]


def test_results_are_the_same_while_recorded():
    x = facula.randn(50, 50)
    before = facula.softmax(x @ x, -1)
    with profile():
        during = facula.softmax(x @ x, -1)
    assert facula.equal(before, during)


def test_the_older_interface():
    x = facula.ones(4)
    with older.profile(record_shapes=True) as prof:
        x * 3
    assert [e.name for e in prof.function_events] == ["mul", "mul[f32]"]
    assert prof.total_average().count == 2 and prof.self_cpu_time_total > 0
    assert "Self CPU time total" in prof.table(sort_by="cpu_time_total", header="above")
    with older.profile(enabled=False):
        facula.ones(4) * 3
    with older.emit_nvtx(enabled=False), older.emit_itt(enabled=False):
        pass
    with pytest.raises(UnsupportedError):
        older.emit_nvtx().__enter__()


def test_roofline_is_kept():
    own = roof.peaks(1)
    assert own is roof.peaks(1) and len(own["bytes"]) == len(roof.FOOTPRINTS)
    assert own["flops"]["float32"] > own["flops"]["float64"] > 0
    assert roof.limit(10**9, 0, count=1) == 10**9 / own["flops"]["float32"]
    assert roof.limit(0, 2 * roof.FOOTPRINTS[-1], count=1) > 0


@pytest.mark.parametrize(
    "name",
    ["profiler", "profiler.profiler", "profiler.recorder", "autograd.profiler",
     "utils.benchmark.timer", "utils.benchmark.compare"],
)  # fmt: skip
def test_examples(name):
    module = importlib.import_module(f"facula.{name}")
    failed, tried = doctest.testmod(module, extraglobs={"facula": facula})
    assert tried and not failed
