"""What an op means: its trace, evaluated node by node by the primitives' meanings in NumPy.

Nothing of the compiler, the code generator or the runtime takes part in it.
"""

from __future__ import annotations

import numpy as np

from facula.base import dtypes as D
from facula.compiler.expand import expand
from facula.ir import program as P
from facula.ir.program import Program


class Spec:
    """An input: a shape, a dtype, an interval to draw from, and whether it is differentiated."""

    def __init__(self, *shape, dtype=None, low=None, high=None, grad=True, distinct=False,
                 ordered=False):  # fmt: skip
        self.shape, self.dtype, self.low, self.high = shape, dtype, low, high
        self.grad, self.distinct, self.ordered = grad, distinct, ordered

    def array(self, rng, dtype, domain):
        """Numbers as a NumPy array; ``dtype`` and ``domain`` hold where the spec is silent."""
        d = self.dtype or dtype
        low = domain[0] if self.low is None else self.low
        high = domain[1] if self.high is None else self.high
        if d is D.bool_:
            return rng.integers(0, 2, self.shape).astype(bool)
        if not d.is_floating_point:
            low = max(low, 0) if d is D.uint8 else low
            if self.distinct:  # along the last dimension no number twice
                rows = int(np.prod(self.shape[:-1]))
                picked = [
                    rng.permutation(np.arange(low, high))[: self.shape[-1]] for _ in range(rows)
                ]
                return np.asarray(picked).reshape(self.shape).astype(d.name)
            return rng.integers(int(low), max(int(high), int(low) + 1), self.shape).astype(d.name)
        count = int(np.prod(self.shape))
        if self.distinct:
            values = rng.permutation(count) / max(count, 1) * (high - low) + low
        else:
            values = rng.uniform(low, high, count)
        values = np.asarray(values).reshape(self.shape).astype(d.name)
        return np.sort(values, -1) if self.ordered else values


def samples(op):
    """(args, kwargs) of an op, tensors as Specs: declared ones, or shapes that broadcast."""
    if op.samples is not None:
        return list(op.samples(Spec))
    if not op.spaces:  # Internal: what fits is known by the ops that use it.
        return []
    required = [
        p
        for p in op.signature.parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    tensors = [p for p in required if "Value" in str(p.annotation)]
    if len(tensors) != len(required) or not required:
        return []
    if len(tensors) == 1:
        return [((Spec(*s),), {}) for s in ((3, 5), (), (0, 4), (1,), (17,), (2, 3, 4))]
    many = [((Spec(3, 5),) * len(tensors), {}), ((Spec(0),) * len(tensors), {})]
    many += [((Spec(4, 1), *[Spec(3)] * (len(tensors) - 1)), {}), ((Spec(),) * len(tensors), {})]
    return many


def map_specs(tree, make):
    """The tree with every Spec replaced; the same Spec becomes the same thing."""
    seen = {}

    def walk(x):
        if isinstance(x, Spec):
            if id(x) not in seen:
                seen[id(x)] = make(x)
            return seen[id(x)]
        if isinstance(x, (list, tuple)):
            return type(x)(walk(y) for y in x)
        if isinstance(x, dict):
            return {k: walk(v) for k, v in x.items()}
        return x

    return walk(tree)


def leaves(tree):
    """All leaves of nested tuples and lists."""
    if isinstance(tree, (list, tuple)):
        return [leaf for item in tree for leaf in leaves(item)]
    return [tree]


def meaning(op, args, kwargs):
    """The results of an op on NumPy arrays, as a list of arrays."""
    program = Program(op.name)
    given = []

    def enter(x):
        if isinstance(x, np.ndarray):
            given.append(x)
            return program.input(D.from_numpy(x.dtype), x.shape)
        if isinstance(x, (list, tuple)):
            return type(x)(enter(y) for y in x)
        return x

    with P.building(program):
        results = op.fn(*[enter(a) for a in args], **{k: enter(v) for k, v in kwargs.items()})
    program.outputs = leaves(results)
    return evaluate(expand(program), given)


def evaluate(program, arrays):
    """A program of known sizes on arrays."""
    known = {id(v): a for v, a in zip(program.inputs, arrays)}
    with np.errstate(all="ignore"):
        for node in program.nodes:
            operands = [known[id(v)] for v in node.inputs]
            if node.op.meaning is None:
                results = tuple(_by_body(node, operands))
            else:
                results = node.op.meaning(np, *operands, **node.params)
            results = results if isinstance(results, tuple) else (results,)
            known.update((id(v), np.asarray(a)) for v, a in zip(node.outputs, results))
    return [known[id(v)] for v in program.outputs]


def _by_body(node, operands):
    """What a kernel written by hand stands for, where that is said in ordinary ops."""
    program = Program(node.op.name)
    values = [program.input(v.dtype, v.shape) for v in node.inputs]
    with P.building(program):
        program.outputs = leaves(node.op.info["body"](*values, **node.params))
    return evaluate(expand(program), operands)
