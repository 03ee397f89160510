"""Random calls of the public interface, most of them wrong somewhere, as source text.

``program(seed)`` is a whole Python program: what a failure prints can be pasted and run.
Arguments start from the samples that ops declare for their tests, so that most of a call is right
and the odd argument reaches the code behind the first check.
"""

from __future__ import annotations

import random
import sys
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "ops"))

from oracle import Spec, samples  # noqa: E402

from facula.base import dtypes as D  # noqa: E402
from facula.library import OPS  # noqa: E402

DTYPES = [d.name for d in D.ALL]
#: Where the names of a registry space are found.
SPACES = {
    "torch": "facula",
    "nn.functional": "facula.nn.functional",
    "special": "facula.special",
    "linalg": "facula.linalg",
}

#: Public functions beside the registry, with good arguments.
OTHERS = [
    ("facula.zeros", "(2, 3)"),
    ("facula.ones", "2", "3"),
    ("facula.empty", "(2, 0)"),
    ("facula.full", "(2, 3)", "1.5"),
    ("facula.arange", "1", "10", "2"),
    ("facula.linspace", "0.0", "1.0", "5"),
    ("facula.logspace", "0.0", "1.0", "5"),
    ("facula.eye", "3", "4"),
    ("facula.tensor", "[[1, 2], [3, 4]]"),
    ("facula.as_tensor", "[1.0, 2.0]"),
    ("facula.scalar_tensor", "3"),
    ("facula.tril_indices", "3", "4", "1"),
    ("facula.empty_strided", "(2, 3)", "(3, 1)"),
    ("facula.rand", "2", "3"),
    ("facula.randn", "(4,)"),
    ("facula.randint", "0", "10", "(3,)"),
    ("facula.randperm", "6"),
    ("facula.normal", "0.0", "1.0", "(3,)"),
    ("facula.multinomial", "facula.rand(2, 5)", "3"),
    ("facula.bernoulli", "facula.rand(3)"),
    ("facula.zeros_like", "facula.ones(2, 3)"),
    ("facula.full_like", "facula.ones(2, 3)", "2"),
    ("facula.nonzero", "facula.tensor([0, 1, 2])"),
    ("facula.masked_select", "facula.ones(2, 3)", "(facula.ones(2, 3) > 0)"),
    ("facula.argwhere", "facula.ones(2, 3)"),
    ("facula.index_put", "facula.zeros(4, 3)", "(facula.tensor([0, 2]),)", "facula.ones(3)"),
    ("facula.as_strided", "facula.ones(12)", "(3, 4)", "(4, 1)", "0"),
    ("facula.meshgrid", "facula.arange(3)", "facula.arange(2)"),
    ("facula.max", "facula.ones(2, 3)", "1"),
    ("facula.min", "facula.ones(2, 3)"),
    ("facula.median", "facula.ones(2, 3)", "0"),
    ("facula.unique", "facula.tensor([1, 2, 1])"),
    ("facula.bincount", "facula.tensor([1, 2, 1])"),
    ("facula.einsum", "'ij,jk->ik'", "facula.ones(2, 3)", "facula.ones(3, 4)"),
    ("facula.tensor_split", "facula.ones(7)", "3"),
    ("facula.unravel_index", "facula.tensor([3, 5])", "(2, 4)"),
    ("facula.broadcast_tensors", "facula.ones(3, 1)", "facula.ones(4)"),
    ("facula.Tensor.__getitem__", "facula.ones(4, 5)", "(slice(1, 3), 2)"),
    ("facula.Tensor.__getitem__", "facula.ones(4, 5)", "facula.tensor([0, -1])"),
    ("facula.Tensor.__getitem__", "facula.ones(4, 5)", "(None, ..., 3)"),
    ("facula.Tensor.__setitem__", "facula.ones(4, 5)", "(slice(None), 2)", "3.0"),
    ("facula.Tensor.__setitem__", "facula.ones(4, 5)", "facula.tensor([0, 1])", "facula.ones(5)"),
    ("facula.Tensor.view", "facula.ones(4, 6)", "3", "-1"),
    ("facula.Tensor.to", "facula.ones(3)", "facula.int32"),
    ("facula.Tensor.resize_", "facula.ones(3)", "(2, 2)"),
    ("facula.Tensor.item", "facula.ones(1)"),
    ("facula.Tensor.fill_", "facula.ones(3)", "2.0"),
    ("facula.Tensor.uniform_", "facula.ones(3)", "0.0", "1.0"),
    ("facula.Tensor.copy_", "facula.ones(2, 3)", "facula.ones(3)"),
    ("facula.Tensor.new_full", "facula.ones(3)", "(2,)", "1"),
]  # fmt: skip


@cache
def targets() -> list:
    """(function's text, its op or None, its good arguments) of everything that is called."""
    found = []
    for op in OPS.values():
        names = [f"{SPACES[s]}.{op.name}" for s in op.spaces if s in SPACES]
        if "method" in op.spaces:
            names.append(f"facula.Tensor.{op.name}")
            if op.inplace:
                names.append(f"facula.Tensor.{op.name}_")
        drawn = samples(op)
        if op.out and "torch" in op.spaces:
            names.append("out")
        found += [(name, op, drawn) for name in names if drawn]
    return found + [(name, None, args) for name, *args in OTHERS]


def tensor_text(rng, spec, domain) -> str:
    """An expression for a tensor that a spec describes."""
    d = spec.dtype or D.float32
    low = domain[0] if spec.low is None else spec.low
    high = domain[1] if spec.high is None else spec.high
    shape = tuple(spec.shape)
    if d is D.bool_:
        return f"(facula.rand({shape}) > 0.5)"
    if not d.is_floating_point:
        text = f"facula.randint({int(low)}, {max(int(high), int(low) + 1)}, {shape})"
        return text if d is D.int64 else f"{text}.to(facula.{d.name})"
    text = f"(facula.rand({shape}) * {high - low} + {low})"
    return text if d is D.float32 else f"{text}.to(facula.{d.name})"


def literal(rng, value, domain) -> str:
    """An expression for a sample's argument."""
    if isinstance(value, Spec):
        return tensor_text(rng, value, domain)
    if isinstance(value, (list, tuple)):
        inside = ", ".join(literal(rng, v, domain) for v in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside},)" if value else "()"
    if isinstance(value, D.dtype):
        return f"facula.{value.name}"
    if isinstance(value, float):
        return (
            f"float('{value!r}')" if value != value or abs(value) == float("inf") else repr(value)
        )
    return repr(value)


def odd_tensor(rng) -> str:
    """A tensor of a random shape, dtype and memory order."""
    rank = rng.choice([0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 7])
    shape = tuple(rng.choice([0, 1, 1, 2, 3, 4, 5, 17]) for _ in range(rank))
    dtype = rng.choice(DTYPES)
    text = f"facula.ones({shape}, dtype=facula.{dtype})"
    kind = rng.random()
    if kind < 0.15:
        text = f"facula.full({shape}, float('{rng.choice(['nan', 'inf', '-inf', '1e30'])}'))"
    elif kind < 0.3:
        text = f"facula.randint({rng.choice([-9, -1, 0])}, {rng.choice([1, 9, 1000])}, {shape})"
    elif kind < 0.4 and rank:
        text = f"facula.ones({shape}).expand({rng.choice([2, 3])}, *{shape})"
    elif kind < 0.5:
        text = f"facula.rand({shape}).mT" if rank > 1 else f"facula.rand({shape})"
    elif kind < 0.6:
        text = f"facula.rand({shape}).requires_grad_()"
    elif kind < 0.65:
        text = "facula.ones(9).as_strided((4, 4), (1, 1))"
    return text


def changed(rng, text) -> str:
    """A tensor expression with something done to it."""
    how = rng.choice([
        "{}.unsqueeze(0)", "{}.flatten()", "{}.sum()", "{}.double()", "{}.long()", "{}.half()",
        "{}.bool()", "{}.to(facula.uint8)", "{}.bfloat16()", "{}[:0]", "{}[..., :1]", "{}[1:]",
        "{}.mT", "{}.t()", "{}.requires_grad_()", "-{}", "{} * float('nan')", "{} * 1000",
        "{}.unsqueeze(-1).expand(*[-1] * 2, 3)", "{}.numpy()", "{}.tolist()", "({},)", "[{}, {}]",
        "{}.flip(0)", "{}.squeeze()", "{}.unsqueeze(0).unsqueeze(0).unsqueeze(0)",
    ])  # fmt: skip
    return "(" + how.replace("{}", text) + ")"


def odd_value(rng) -> str:
    """Anything but a good argument."""
    if rng.random() < 0.35:
        return odd_tensor(rng)
    return rng.choice([
        "0", "1", "-1", "2", "-2", "3", "7", "-7", "100", "2**31", "2**62", "2**63", "-2**63",
        "2**70", "0.0", "-0.5", "1.5", "float('nan')", "float('inf')", "1e308", "True", "False",
        "None", "'x'", "''", "'mean'", "b'x'", "()", "[]", "(1,)", "(2, 3)", "(-1,)", "(0, 0)",
        "(0, 1, 2, 3, 4)", "[1.5]", "(2**40, 2**40)", "(3, -2)", "['a']", "[None]", "{}", "{1: 2}",
        "object()", "complex(1, 2)", "slice(None)", "...", "facula.float32", "facula.int8",
        "facula.device('cpu')", "(lambda: 0)", "iter([1])", "range(3)", "[[1, 2], [3]]",
        "facula.Size([2, 3])",
    ])  # fmt: skip


def is_tensor(text) -> bool:
    """Whether an expression surely is one for a tensor."""
    if ".numpy()" in text or ".tolist()" in text:
        return False
    return text.startswith(("facula.r", "(facula.r", "facula.ones", "facula.full"))


def _spoil(rng, args, kwargs, op, method):
    """Change the arguments a little, in place; what a method belongs to stays a tensor."""
    kind = rng.random()
    if args and kind < 0.65:
        i = rng.randrange(len(args))
        if method and i == 0:
            args[0] = odd_tensor(rng)
        elif kind < 0.35 and is_tensor(args[i]):
            args[i] = changed(rng, args[i])
        else:
            args[i] = odd_value(rng)
    elif kind < 0.75 and kwargs:
        kwargs[rng.choice(list(kwargs))] = odd_value(rng)
    elif kind < 0.8 and len(args) > method:
        args.pop()
    elif kind < 0.85:
        args.append(odd_value(rng))
    elif op is not None:
        names = [p.name for p in op.signature.parameters.values() if p.default is not p.empty]
        names.append("no_such_argument")
        kwargs[rng.choice(names)] = odd_value(rng)


def program(seed) -> str:
    """The program of this number."""
    rng = random.Random(seed)
    name, op, good = rng.choice(targets())
    if op is None:
        args, kwargs = list(good), {}
    else:
        sample, named = rng.choice(good)
        args = [literal(rng, a, op.domain) for a in sample]
        kwargs = {k: literal(rng, v, op.domain) for k, v in named.items()}
    if name == "out":
        name = f"facula.{op.name}"
        kwargs["out"] = odd_tensor(rng) if rng.random() < 0.7 else odd_value(rng)
        if args and is_tensor(args[0]) and rng.random() < 0.2:
            lines = [f"x = {args[0]}"]
            args[0] = "x"
            kwargs["out"] = rng.choice(["x", "x[1:]", "x.flatten()", "x.mT"])
            return _text(lines, name, args, kwargs)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        _spoil(rng, args, kwargs, op, name.startswith("facula.Tensor."))
    lines = []
    if name.endswith("_") and args and is_tensor(args[0]) and rng.random() < 0.5:
        lines = [f"x = {args[0]}"]
        view = rng.choice(["x.mT", "x[1:]", "x.expand(2, *x.shape)", "x.flatten()", "x[..., :1]"])
        args[0] = view
        args = [("x" if i and rng.random() < 0.2 else a) for i, a in enumerate(args)]
    return _text(lines, name, args, kwargs)


def _text(lines, name, args, kwargs):
    inside = [*args, *(f"{k}={v}" for k, v in kwargs.items())]
    return "\n".join([
        "import facula, facula.linalg, facula.nn.functional, facula.special",
        "facula.manual_seed(0)",
        *lines,
        f"y = {name}({', '.join(inside)})",
        "repr(y)",
        "parts = y if isinstance(y, (tuple, list)) else [y]",
        "for part in parts:",
        "    if getattr(part, 'requires_grad', False):",
        "        part.sum().backward(retain_graph=True)",
    ])  # fmt: skip
