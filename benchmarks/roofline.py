"""Where our kernels stand against the limits of the machine, kernel by kernel."""

from __future__ import annotations

from benchmarks.measure import Settings, Worker

#: What is profiled: the cases of kernels.py whose kernels show the most.
NAMES = (
    "matmul 1024 NN", "matmul 1024 NT", "matmul 1024 TN", "matmul 1024 TT", "matmul 128 NN",
    "matmul, one row: 1 x 1024 x 1024", "matmul, batches: 64 x 128 x 64 x 128",
    "conv 3x3, 8x64x56x56", "conv 1x1, 8x256x28x28", "conv 3x3, 8x64x56x56, and backward",
    "softmax 1024x1024", "layer_norm 1024x1024", "gelu 1024x1024", "exp 1024x1024",
    "sum 1024x1024", "copy of the transpose 1024x1024", "cumsum 1024x1024",
    "attention, length 1024", "attention, length 1024, and backward",
    "AdamW step, 50 parameters of 256x256",
)  # fmt: skip


def run(settings: Settings, threads: int, only=()) -> dict:
    """``{"peaks": ..., "kernels": [...]}``, for all threads."""
    names = [n for n in NAMES if not only or any(w in n for w in only)]
    with Worker("facula:eager") as worker:
        names = names[:2] if settings.quick else names
        return worker.ask("call", name="roofline.profiled", names=names, threads=threads)


def profiled(names, threads) -> dict:
    """Run cases under the profiler, in this process: their slowest kernels' best figures."""
    import facula
    from benchmarks.kernels import CASES
    from benchmarks.worker import Library
    from facula.profiler import profile, roofline

    facula.set_num_threads(threads)
    peaks, found = roofline.peaks(threads), []
    for name in names:
        run = CASES[name](Library("facula:eager"))
        for _ in range(5):
            run()
        best: dict = {}
        with profile(with_flops=True) as prof:
            for _ in range(20):
                run()
        for e in prof.events():
            if e.kind == "kernel":
                kept = best.get(e.name)
                if kept is None or e.cpu_time_total < kept.cpu_time_total:
                    best[e.name] = e
        whole = sum(e.cpu_time_total for e in best.values())
        for e in best.values():
            if e.cpu_time_total > 0.1 * whole:
                found.append(
                    {
                        "case": name, "kernel": e.name, "us": e.cpu_time_total, "flops": e.flops,
                        "bytes": e.bytes, "share": e.limit / e.cpu_time_total,
                    }
                )  # fmt: skip
    return {"peaks": peaks, "footprints": list(roofline.FOOTPRINTS), "kernels": found}
