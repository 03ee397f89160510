"""The registry: primitives (what a Program is made of) and ops (what users call).

A :class:`Primitive` is an instruction of ``ir.program``: its types, its meaning, its gradient and
its lowering, said in one place. An :class:`Op` is a public function over them, written as ordinary
arithmetic on values; everything else (functional, method, in-place and ``out=`` variants, dispatch,
tests, documentation) is derived from its signature and the few fields below.
"""

from __future__ import annotations

import inspect

from facula.ir import program as P


class Scalar:
    """Annotation of a parameter that takes a Python number which may change at every call.

    Numbers given for such a parameter, or for a tensor parameter, are inputs of the kernel; all
    other non-tensor arguments are constants of the trace.
    """


class Tensors:
    """Annotation of a parameter that takes a sequence of tensors."""


PRIMITIVES: dict[str, Primitive] = {}
OPS: dict[str, Op] = {}


class Primitive:
    """One instruction.

    Attributes:
        kind: ``pointwise``, ``source``, ``movement``, ``reduce``, ``gather`` or ``opaque``
            (a hand-written kernel); it tells the compiler how the node may be fused.
        infer: ``(*values, **params) -> [(dtype, shape), ...]``; raises the typed errors.
        meaning: ``(numpy, *arrays, **params) -> array(s)``, the oracle of the tests.
        gradient: ``(g, y, *inputs, **params) -> cotangent per input`` (None where there is none);
            ``g`` and ``y`` are tuples for several outputs. None: not differentiable.
        emit: pointwise only, ``(*exprs, **params) -> loops expression`` of one element.
        view: movement only, ``(shape, strides, **params) -> (shape, strides, offset)`` of the
            same memory, or None where that is impossible.
        inner: written by the compiler alone, in place of the primitive of that name.
        info: whatever the lowering of that kind needs (the reduction's operator, ...); opaque ones
            say with ``flops(y, *inputs, **params)`` how many operations they are, if any.
    """

    def __init__(self, name, kind, infer, meaning, gradient=None, emit=None, view=None,
                 inner=False, **info):  # fmt: skip
        self.name, self.kind, self.infer, self.meaning = name, kind, infer, meaning
        self.gradient, self.emit, self.view, self.info = gradient, emit, view, info
        if not inner:
            PRIMITIVES[name] = self

    def __call__(self, *inputs, **params):
        """Append the node to the program being built; one value or a tuple.

        On tensors, outside of a trace: the tensor layer's eager road.
        """
        program = P.current()
        if program is None or _has_tensors(inputs):
            return _eager(self, inputs, params)
        outputs = program.apply(self, inputs, params, self.infer(*inputs, **params))
        if self.kind == "pointwise" and all(v.weak for v in inputs):
            for v in outputs:
                v.weak = True
        return outputs[0] if len(outputs) == 1 else outputs

    def __repr__(self):
        return f"<primitive {self.name}>"


def composite(name, body, gradient, meaning=None, **info):
    """A primitive that stands for ``body``, ordinary ops, but has a gradient of its own.

    The compiler replaces it by its body; ``meaning`` is only given where the body has no oracle.
    ``again(*inputs, *other outputs)`` is the first output, cheap once the others are known.
    """

    def infer(*values, **params):
        with P.building(P.Program(name)):
            outputs = body(*values, **params)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return [(v.dtype, v.shape) for v in outputs]

    return Primitive(name, "composite", infer, meaning, gradient, body=body, **info)


class Op:
    """A public op.

    Attributes:
        fn: the function over values.
        spaces: where it is found: "torch", "method", "nn.functional", "special", "linalg", ...
        aliases: further names, in the same spaces.
        inplace, out: whether ``name_`` and ``out=`` exist. ``out`` may say "exact": of the result's
            dtype; and "apart": sharing no memory with an operand.
        numbers: whether Python numbers do for tensors, except for the first.
        view: whether the result shares memory with the input.
        random: whether it draws random numbers (``seed`` and ``offset`` are its last inputs).
        domain: the interval in which tests draw floating-point inputs.
        samples: ``(make) -> iterable of (args, kwargs)`` for the tests, where the signature does
            not tell what fits; ``make(*shape, dtype=..., low=..., high=...)`` gives a tensor.
    """

    def __init__(
        self,
        fn,
        name=None,
        spaces=("torch", "method"),
        aliases=(),
        inplace=False,
        out=False,
        view=False,
        random=False,
        numbers=True,
        domain=(-3.0, 3.0),
        samples=None,
    ):
        self.fn, self.name = fn, name or fn.__name__
        self.spaces, self.aliases = tuple(spaces), tuple(aliases)
        self.inplace, self.out, self.view, self.random = inplace, out, view, random
        self.numbers = numbers
        self.domain, self.samples = domain, samples
        self.__doc__ = fn.__doc__
        self.__name__ = self.name
        self.signature = inspect.signature(fn)
        parameters = self.signature.parameters.values()
        notes = {p.name: str(p.annotation) for p in parameters}
        self.dynamic = frozenset(n for n, a in notes.items() if "Scalar" in a or "Value" in a)
        if self.name in OPS:
            raise ValueError(f"op {self.name} is declared twice")
        OPS[self.name] = self

    def __call__(self, *args, **kwargs):
        """On values: append to the program. On tensors: the tensor layer's eager road."""
        if P.current() is None or _has_tensors(args):
            return _eager(self, args, kwargs)
        return self.fn(*args, **kwargs)

    def __repr__(self):
        return f"<op {self.name}>"


def op(fn=None, **fields):
    """Declare a public op: ``@op`` or ``@op(spaces=..., ...)``."""
    if fn is None:
        return lambda f: op(f, **fields)
    return Op(fn, **fields)


def _has_tensors(args) -> bool:
    """Whether tensors, not values, are among the arguments (also while a function is captured)."""
    return any(
        hasattr(a, "_meta") or isinstance(a, (list, tuple)) and _has_tensors(a) for a in args
    )


class _Namespace:
    """Ops by name, resolved when used, so that gradients may name any op of any file."""

    def __getattr__(self, name):
        try:
            return OPS[name]
        except KeyError:
            raise AttributeError(f"no op {name!r} is declared") from None


F = _Namespace()


def _no_eager(op, args, kwargs):
    raise RuntimeError(f"{op.name}: called outside of a trace; hint: import facula")


_eager = _no_eager


def set_eager(handler) -> None:
    """Give the road that ops called outside of a trace take: ``handler(op, args, kwargs)``."""
    global _eager
    _eager = handler
