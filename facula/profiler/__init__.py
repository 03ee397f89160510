"""Where the time goes: PyTorch's ``torch.profiler``.

>>> import facula
>>> from facula.profiler import profile, record_function
>>> w = facula.randn(64, 64, requires_grad=True)
>>> with profile(record_shapes=True) as prof:
...     with record_function("forward"):
...         loss = facula.relu(w @ w).sum()
...     loss.backward()
>>> [e.name for e in prof.events() if e.kind == "op"][:3]
['matmul', 'relu', 'sum']
>>> table = prof.key_averages().table(sort_by="self_cpu_time_total", row_limit=3)
>>> table.splitlines()[1].split()[:4]
['Name', 'Self', 'CPU', '%']
>>> prof.export_chrome_trace("/dev/null")
"""

from facula.profiler.profiler import (
    ProfilerAction,
    ProfilerActivity,
    profile,
    schedule,
    supported_activities,
    tensorboard_trace_handler,
)
from facula.profiler.recorder import record_function

__all__ = [
    "ProfilerAction",
    "ProfilerActivity",
    "profile",
    "record_function",
    "schedule",
    "supported_activities",
    "tensorboard_trace_handler",
]
