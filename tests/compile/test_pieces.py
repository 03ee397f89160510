"""Functions that ask for elements in the middle: pieces are captured, Python runs at each call."""

import threading
import warnings

import pytest

import facula
import facula.nn.functional as F
from facula import nn
from facula.tensor import compile as captures


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Pieces, whether that is quicker or not."""
    monkeypatch.setattr(captures, "TRIALS", 0)


def compiled(fn):
    """The function in pieces; what it is told on the way does not matter here."""
    made = facula.compile(fn)

    def call(*args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return made(*args, **kwargs)

    call.captured = made.captured
    return call


def same(a, b):
    if isinstance(a, facula.Tensor):
        assert type(b) is facula.Tensor and a.dtype is b.dtype
        assert a.shape == b.shape and a.stride() == b.stride()
        assert a.requires_grad == b.requires_grad and a.is_leaf == b.is_leaf
        return repr(a.tolist()) == repr(b.tolist())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def ask(x):
    """A branch on an element."""
    y = (x * 2 + 1).relu()
    return (y * 3 if y.sum().item() > 4 else y - 1).tanh()


def walk(x):
    """A loop that ends where the elements say so, a list of what was seen, prints."""
    seen = []
    while x.norm() < 10:
        x = x * 1.5 + 0.1
        seen.append(f"{x.sum():.3f} {x.shape[0]} {x[0, 0].item()}")
    return x, seen


def select(x):
    """Shapes that depend on elements."""
    y = x * 2
    return y[y > 0] + 1, (y > 0).nonzero().sum(0), y.unique()


def shared(x):
    """Memory shared over a cut."""
    y = x * 2
    row = y[0]
    turned = y.t()
    if y.sum() > -100:
        row += 1
    turned[0] = 5
    return y, row, turned.sum()


def changed(x):
    """An argument changed in place, before and after a cut."""
    view = x.view(-1)
    x.mul_(2)
    a = view.sum().item()
    view[1:3] = a
    x += 1
    return x + view.reshape(x.shape)


def made(x):
    """Tensors made on the way."""
    y = facula.zeros(x.shape[0]) + x.sum(1)
    if y[0] > 1e9:
        return y
    z = facula.tensor([[1.0, 2.0]]) * x.new_ones(x.shape[1], 2)
    return facula.cat([x @ z, facula.arange(2.0).expand(x.shape[0], 2)]), y.numpy().copy().tolist()


def numbers(x):
    """Numbers of Python's from elements, used again."""
    low, high = x.min().item(), x.max().item()
    n = int(x.abs().sum()) % 3 + 1
    y = (x - low) / (high - low + 1)
    return y[:n] * n, y.view(-1)[n:].cumsum(0) ** n * low


def spread(x):
    """An assignment to a row of which all elements are one in memory."""
    y = x[0].unsqueeze(0).expand(2, 4)
    y[1] = 7.0 if x.sum().item() > 1e9 else 1.5
    return y, x


FUNCTIONS = [spread, ask, walk, select, shared, changed, made, numbers]


@pytest.mark.parametrize("fn", FUNCTIONS, ids=lambda f: f.__name__)
def test_a_cut_function_does_what_it_does_uncut(fn):
    g = compiled(fn)
    for k in range(8):
        x = facula.randn(3 + k % 3, 4)
        a, b = x.clone(), x.clone()
        assert same(fn(a), g(b)) and same(a, b), k
    assert g.captured.pieces.count > 0


@pytest.mark.parametrize("fn", [ask, changed, numbers], ids=lambda f: f.__name__)
def test_what_was_recorded_is_found_again(fn):
    g = compiled(fn)
    for k in range(12):
        count = g.captured.pieces and g.captured.pieces.count
        g(facula.arange(12.0).reshape(3, 4) + 1 + k)
    assert g.captured.pieces.count == count


def network():
    facula.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(),
        nn.Linear(4 * 36, 5),
    )  # fmt: skip


def training(log):
    model = network()
    optimizer = facula.optim.Adam(model.parameters(), lr=0.01)
    scheduler = facula.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)

    def step(x, y):
        optimizer.zero_grad()
        out = model(x)
        loss = F.cross_entropy(out, y)
        log.append(loss.item())
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        if norm.isfinite():
            optimizer.step()
            scheduler.step()
        log.append(float(norm))
        return out

    return model, step


def test_training_with_cuts():
    logs = [], []
    (plain, step), (other, cut) = map(training, logs)
    cut = compiled(cut)
    for k in range(6):
        x, y = facula.randn(4 + k % 2, 1, 8, 8), facula.arange(4 + k % 2) % 5
        facula.manual_seed(k)
        a = step(x, y)
        state = facula.get_rng_state()
        facula.manual_seed(k)
        assert same(a, cut(x, y)) and same(state, facula.get_rng_state())
    assert logs[0] == logs[1]
    for p, q in zip(plain.state_dict().values(), other.state_dict().values()):
        assert same(p, q)
    for p, q in zip(plain.parameters(), other.parameters()):
        assert same(p.grad, q.grad)


def test_gradients_over_several_pieces():
    w = facula.randn(4, 4, requires_grad=True)

    def f(x):
        h = (x @ w).tanh()
        if h.sum().item() > -1e9:
            h = (h @ w).tanh()
        with facula.no_grad():
            scale = float(h.abs().max())
        return (h * scale).pow(2).mean()

    g = compiled(f)
    for _ in range(3):
        x = facula.randn(5, 4, requires_grad=True)
        f(x).backward()
        expected, w.grad, of_x, x.grad = w.grad, None, x.grad, None
        g(x).backward()
        assert same(of_x, x.grad) and facula.allclose(expected, w.grad)
        w.grad = None


class Cache(nn.Module):
    """A layer of attention with a cache of keys, as generation has it."""

    def __init__(self, width=8, most=32):
        super().__init__()
        self.q, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.register_buffer("keys", facula.zeros(1, 2, most, width // 2))
        self.register_buffer("values", facula.zeros(1, 2, most, width // 2))

    def forward(self, x, pos):
        q, k, v = (y.view(1, 1, 2, -1).transpose(1, 2) for y in self.q(x).chunk(3, -1))
        self.keys[:, :, pos : pos + 1] = k
        self.values[:, :, pos : pos + 1] = v
        y = F.scaled_dot_product_attention(
            q, self.keys[:, :, : pos + 1], self.values[:, :, : pos + 1]
        )
        return x + self.out(y.transpose(1, 2).reshape(1, 1, -1))


def generation():
    facula.manual_seed(5)
    table, layers, head = nn.Embedding(11, 8), [Cache(), Cache()], nn.Linear(8, 11)

    @facula.no_grad()
    def generate(token, most):
        tokens = []
        for pos in range(most):
            x = table(token)
            for layer in layers:
                x = layer(x, pos)
            token = head(x)[:, -1].argmax(-1, keepdim=True)
            tokens.append(token.item())
            if tokens[-1] == 0:
                break
        return tokens

    return generate


def test_a_generation_loop_is_recorded_twice():
    generate, g = generation(), compiled(generation())
    first = facula.tensor([[3]])
    g(first, 3)
    count = g.captured.pieces.count
    for n in (3, 7, 20):
        assert generate(first, n) == g(first, n)
    # Once for the first position, once more where the position had changed.
    assert g.captured.pieces.count == count


def test_errors_are_the_users():
    table = nn.Embedding(4, 3)

    def f(i):
        x = table(i) * 2
        if x.sum().item() > 1e9:
            return x
        y = table(i + 3)
        z = y + 1
        return z.sum().item()

    g = compiled(f)
    assert g(facula.tensor([0])) == f(facula.tensor([0]))
    for _ in range(2):
        with pytest.raises(IndexError, match="index 5 is out of bounds") as error:
            g(facula.tensor([2]))
        assert "test_pieces.py" in "".join(getattr(error.value, "__notes__", [])) + str(
            error.traceback[-2]
        )

    def shapes(x):
        y = x * 2
        if y.sum() > 1e9:
            return y
        return y @ facula.ones(5, 5)

    with pytest.raises(RuntimeError, match="inner dimensions|matmul"):
        compiled(shapes)(facula.ones(2, 3))


def test_what_is_done_outside_of_a_piece_comes_in_its_turn():
    buffer = facula.ones(3)
    p = facula.ones(3, requires_grad=True)

    def f(x):
        y = x * buffer
        buffer.add_(1)  # reads of the piece come first
        z = x + buffer
        buffer.mul_(z.sum())  # a change that the piece makes
        a = buffer.sum().item()
        w = x * p
        p.data = p.data + 1
        return y, z, a, buffer + 0, w.sum().item()

    expected = f(facula.arange(3.0)), buffer.clone(), p.detach().clone()
    buffer.fill_(1), p.data.fill_(1)
    g = compiled(f)
    for _ in range(3):
        got = g(facula.arange(3.0))
        assert all(same(a, b) for a, b in zip(expected[0], got))
        assert same(expected[1], buffer) and same(expected[2], p.detach())
        buffer.fill_(1)
        p.data = facula.ones(3)


def test_threads_do_not_meet():
    g, errors = compiled(ask), []

    def work(seed):
        try:
            for k in range(20):
                x = facula.arange(12.0).reshape(3, 4) * (seed - k % 3)
                assert same(ask(x), g(x))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors


def test_the_quicker_way_is_taken(monkeypatch):
    monkeypatch.setattr(captures, "TRIALS", 8)
    g = compiled(ask)
    clock = iter(range(1000))
    monkeypatch.setattr(captures, "perf_counter", lambda: next(clock))
    x = facula.ones(2, 2)
    for _ in range(10):
        g(x)
    g.captured.times, g.captured.calls = [5.0, 1.0], 7
    g(x)
    assert g.captured.plain and same(g(x), ask(x))
    g.captured.times, g.captured.calls = [1.0, 50.0], 7
    g(x)
    assert not g.captured.plain


def test_tensors_in_containers_and_made_inside_are_gathered():
    def f(batch, pair):
        batch["seen"] = batch["x"] * 2 + pair[0][1]
        y = (facula.ones(2, 3) * facula.tensor([1.0, 2.0, 3.0]) + 1) * 2
        return (batch["seen"] + y).sum().item()

    g = compiled(f)
    for k in range(3):
        x = facula.full((2, 3), float(k))
        batch, pair = {"x": x}, [(0, x), x]
        assert g(batch, pair) == f({"x": x}, pair)
        assert batch["x"] is x and pair[1] is x and pair[0][1] is x
        assert type(batch["seen"]) is facula.Tensor
    assert g.captured.pieces.count > 6


def test_objects_among_the_arguments():
    class Options:
        scale = 3.0

    def f(x, options):
        return x * options.scale if x.sum().item() > 0 else x

    g = compiled(f)
    for sign in (1, -1):
        x = facula.ones(3) * sign
        assert same(f(x, Options()), g(x, Options()))


@pytest.mark.parametrize("cut", [False, True])
def test_a_change_under_no_grad_leaves_the_history(cut):
    w = facula.full((3,), 2.0, requires_grad=True)

    def f(x):
        y = x * w
        if cut and y.sum().item() > 1e9:
            return y
        with facula.no_grad():
            y.add_(1)
            y.view(-1)[0] = 5.0
        return y * 3

    expected = f(facula.ones(3))
    (g,) = facula.autograd.grad(expected.sum(), w)
    found = compiled(f)(facula.ones(3))
    assert same(expected, found) and same(g, facula.autograd.grad(found.sum(), w)[0])
