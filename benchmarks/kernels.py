"""Single operations: products, convolutions, rows, attention, scans, an optimiser's step."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.measure import Settings, Worker, compare

CASES: dict[str, Callable] = {}
SPECS = ("facula:eager", "torch:eager")
QUICK = ("matmul 512 NN", "conv 3x3, 16x64x32x32", "softmax 1024x1024", "a + b, 8 numbers")


def case(name: str):
    def add(build):
        CASES[name] = build
        return build

    return add


def run(settings: Settings, threads: int, only=()) -> dict:
    """All cases on one thread and on all: ``{name: {threads: {spec: figures}}}``."""
    names = [n for n in CASES if not only or any(w in n for w in only)]
    names = [n for n in names if not settings.quick or n in QUICK]
    short = Settings(settings.rounds, min(settings.seconds, 0.1), settings.quick)
    found: dict = {}
    with Worker(SPECS[0]) as ours, Worker(SPECS[1]) as theirs:
        workers = dict(zip(SPECS, (ours, theirs)))
        for name in names:
            counts = sorted({1, threads})
            found[name] = {n: compare("kernels", name, workers, short, n) for n in counts}
    return found


def on(name: str, *shapes, gradient=False):
    """A function of tensors of those shapes; with ``gradient`` its backward pass is timed too."""

    def add(fn):
        def build(lib):
            torch = lib.torch
            xs = [torch.randn(*shape, requires_grad=gradient) for shape in shapes]
            if not gradient:
                return lambda: fn(torch, *xs)
            cotangent = torch.randn_like(fn(torch, *xs).detach())

            def both():
                return torch.autograd.grad(fn(torch, *xs), xs, cotangent)

            return both

        CASES[name] = build
        return fn

    return add


on("a + b, 8 numbers", (8,), (8,))(lambda torch, a, b: a + b)


def _products():
    forms = {
        "NN": lambda torch, a, b: a @ b,
        "NT": lambda torch, a, b: a @ b.t(),
        "TN": lambda torch, a, b: a.t() @ b,
        "TT": lambda torch, a, b: a.t() @ b.t(),
    }
    for n in (128, 512, 1024, 2048):
        for form, fn in forms.items():
            on(f"matmul {n} {form}", (n, n), (n, n))(fn)
    on("matmul, one row: 1 x 1024 x 1024", (1, 1024), (1024, 1024))(forms["NT"])
    on("matmul, few columns: 4096 x 64 x 10", (4096, 64), (10, 64))(forms["NT"])
    on("matmul, batches: 64 x 128 x 64 x 128", (64, 128, 64), (64, 64, 128))(forms["NN"])


_products()


def _convolutions():
    shapes = (
        ("3x3", (16, 64, 32, 32), (64, 64, 3, 3), {"padding": 1}),
        ("3x3", (8, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
        ("3x3", (8, 256, 14, 14), (256, 256, 3, 3), {"padding": 1}),
        ("3x3 stride 2", (8, 64, 56, 56), (128, 64, 3, 3), {"padding": 1, "stride": 2}),
        ("1x1", (8, 256, 28, 28), (128, 256, 1, 1), {}),
        ("7x7 stride 2", (4, 3, 224, 224), (64, 3, 7, 7), {"padding": 3, "stride": 2}),
        ("depthwise 3x3", (8, 128, 28, 28), (128, 1, 3, 3), {"padding": 1, "groups": 128}),
    )
    for what, x, w, how in shapes:

        def fn(torch, x, w, how=how):
            return torch.nn.functional.conv2d(x, w, **how)

        size = "x".join(map(str, x))
        on(f"conv {what}, {size}", x, w)(fn)
        on(f"conv {what}, {size}, and backward", x, w, gradient=True)(fn)


_convolutions()


def _rows():
    def norm(torch, x):
        return torch.nn.functional.layer_norm(x, (x.shape[-1],))

    functions = {
        "softmax": lambda torch, x: torch.softmax(x, dim=-1),
        "layer_norm": norm,
        "gelu": lambda torch, x: torch.nn.functional.gelu(x),
    }
    for name, fn in functions.items():
        on(f"{name} 1024x1024", (1024, 1024))(fn)
        on(f"{name} 1024x1024, and backward", (1024, 1024), gradient=True)(fn)
    on("exp 1024x1024", (1024, 1024))(lambda torch, x: torch.exp(x))
    on("sum 1024x1024", (1024, 1024))(lambda torch, x: x.sum())
    on("sum of columns 1024x1024", (1024, 1024))(lambda torch, x: x.sum(0))
    on("copy of the transpose 1024x1024", (1024, 1024))(lambda torch, x: x.t().contiguous())
    on("cumsum 1024x1024", (1024, 1024))(lambda torch, x: torch.cumsum(x, -1))
    on("sort 1024x1024", (1024, 1024))(lambda torch, x: torch.sort(x, dim=-1))
    on("topk 10 of 1024, 1024 rows", (1024, 1024))(lambda torch, x: torch.topk(x, 10))
    on("sort 1,000,000", (1_000_000,))(lambda torch, x: torch.sort(x))


_rows()


def _attention():
    for causal in (False, True):
        for length in (128, 1024):

            def fn(torch, q, k, v, causal=causal):
                F = torch.nn.functional
                return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

            shape = (2, 8, length, 64)
            word = "causal attention" if causal else "attention"
            on(f"{word}, length {length}", shape, shape, shape)(fn)
            on(f"{word}, length {length}, and backward", shape, shape, shape, gradient=True)(fn)


_attention()


@case("lstm, 32 x 64 steps, 128 units")
def lstm(lib):
    torch = lib.torch
    layer, x = torch.nn.LSTM(64, 128, batch_first=True), torch.randn(32, 64, 64)

    def forward():
        with torch.no_grad():
            return layer(x)

    return forward


def _steps():
    for kind, options in (("SGD", {"lr": 0.1, "momentum": 0.9}), ("Adam", {}), ("AdamW", {})):

        def build(lib, kind=kind, options=options):
            torch = lib.torch
            parameters = [torch.nn.Parameter(torch.randn(256, 256)) for _ in range(50)]
            for p in parameters:
                p.grad = torch.randn(256, 256)
            optimizer = getattr(torch.optim, kind)(parameters, **options)
            return optimizer.step

        case(f"{kind} step, 50 parameters of 256x256")(build)


_steps()


@case("embedding, 4096 of 50,000 rows of 64, and backward")
def embedding(lib):
    torch = lib.torch
    table = torch.randn(50_000, 64, requires_grad=True)
    index, g = torch.randint(0, 50_000, (4096,)), torch.randn(4096, 64)
    F = torch.nn.functional
    return lambda: torch.autograd.grad(F.embedding(index, table), table, g)


def _by_index():
    """Reads and writes at positions that are data."""

    def build(make):
        def case_of(lib):
            torch = lib.torch
            return make(torch, torch.nn.functional)

        return case_of

    def index_add(torch, F):
        x, src = torch.zeros(10_000, 64), torch.randn(50_000, 64)
        index = torch.randint(0, 10_000, (50_000,))
        return lambda: x.index_add_(0, index, src)

    def scatter_add(torch, F):
        x, src, index = (
            torch.zeros(4096, 64),
            torch.randn(4096, 64),
            torch.randint(0, 64, (4096, 64)),
        )
        return lambda: x.scatter_add_(1, index, src)

    def nonzero(torch, F):
        x = torch.rand(1_000_000) < 0.3
        return lambda: torch.nonzero(x)

    def unique(torch, F):
        x = torch.randint(0, 100_000, (1_000_000,))
        return lambda: torch.unique(x)

    def bags(torch, F):
        table, index = torch.randn(50_000, 64), torch.randint(0, 50_000, (4096,))
        starts = torch.arange(0, 4096, 8)
        return lambda: F.embedding_bag(index, table, starts, mode="sum")

    for name, make in (
        ("index_add, 50,000 rows of 64 into 10,000", index_add),
        ("scatter_add 4096x64", scatter_add),
        ("nonzero of 1,000,000", nonzero),
        ("unique of 1,000,000", unique),
        ("embedding_bag, 512 bags of 8 rows of 64", bags),
    ):
        CASES[name] = build(make)
    on("cummax 1024x1024", (1024, 1024))(lambda torch, x: torch.cummax(x, -1))
    on("topk 100 of 1,000,000", (1_000_000,))(lambda torch, x: torch.topk(x, 100))


_by_index()
