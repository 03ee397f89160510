"""Traces in the Trace Event Format, which Perfetto and chrome://tracing read."""

from __future__ import annotations

import gzip
import json
import os

_CATEGORIES = {"range": "user_annotation", "op": "cpu_op", "kernel": "kernel"}


def write(path, events, metadata=None) -> None:
    """Write events as one JSON object; a path that ends in ``.gz`` is packed."""
    text = json.dumps(as_json(events, metadata or {}))
    path = os.fspath(path)
    opened = gzip.open(path, "wt", encoding="utf-8") if path.endswith(".gz") else open(
        path, "w", encoding="utf-8"
    )  # fmt: skip
    with opened as file:
        file.write(text)


def as_json(events, metadata) -> dict:
    """The trace as an object; times are microseconds."""
    pid = os.getpid()
    entries = [
        {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": "facula"}}
    ]
    for thread in dict.fromkeys(e.thread for e in events):
        named = {"name": f"thread {thread}"}
        entries.append({"ph": "M", "name": "thread_name", "pid": pid, "tid": thread, "args": named})
    for e in events:
        entries.append(
            {
                "ph": "X",
                "cat": _CATEGORIES[e.kind],
                "name": e.name,
                "pid": pid,
                "tid": e.thread,
                "ts": e.time_range.start,
                "dur": e.time_range.elapsed_us(),
                "args": _details(e),
            }
        )
    for when, allocated in events.counters:
        entries.append(
            {
                "ph": "C", "name": "allocated", "pid": pid, "tid": 0, "ts": when,
                "args": {"bytes": allocated},
            }
        )  # fmt: skip
    return {"schemaVersion": 1, "displayTimeUnit": "ms", **metadata, "traceEvents": entries}


def _details(e) -> dict:
    found: dict = {"External id": e.id}
    if e.input_shapes:
        found["Input Dims"] = e.input_shapes
    if e.stack:
        found["Call stack"] = ";\n".join(e.stack)
    if e.flops:
        found["FLOPs"] = e.flops
    if e.bytes:
        found["bytes"] = e.bytes
        found["GB/s"] = round(e.bytes / max(e.cpu_time_total, 1e-3) / 1e3, 3)
    if e.limit:
        found["share of the roofline"] = round(e.limit / max(e.cpu_time_total, 1e-3), 4)
    if e.cpu_memory_usage:
        found["bytes allocated"] = e.cpu_memory_usage
    return found
