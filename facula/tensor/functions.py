"""The functions that users call, generated from the ops' signatures.

Per op there is the functional, which is the method as well; ``name_`` if it works in place; and
``out=`` as a keyword. They are made when first asked for: importing the package writes none.
"""

from __future__ import annotations

import warnings
from inspect import Parameter

from facula.base.errors import ArgumentTypeError, AutogradError, DtypeError, fail
from facula.eager import dispatch, plans, recipes
from facula.eager.apart import apart
from facula.eager.dispatch import PLAIN, Site, key_of, static_key
from facula.eager.grad_mode import capture, mode
from facula.eager.tensor import TENSORS, Tensor
from facula.eager.tracing import NUMBERS, Routine, concrete, symbols_of, trace
from facula.ir.dims import Dim
from facula.library import OPS
from facula.ops.registry import Op, Primitive, set_eager
from facula.tensor.autocast import casted, casting, on, policy
from facula.tensor.interop import from_numpy

_functions: dict = {}
_sites: dict = {}


def dynamic_of(op: Op) -> frozenset:
    """The parameters that take tensors, sequences of tensors, or changing numbers."""
    notes = {p.name: str(p.annotation) for p in op.signature.parameters.values()}
    return op.dynamic | {n for n, a in notes.items() if "Tensors" in a}


def site_of(op: Op, into="", operands=None) -> Site:
    """The site of an op; with ``operands``, of its first so many parameters."""
    key = (op.name, into, operands)
    if key not in _sites:
        parameters = list(op.signature.parameters.values())
        if op.random:
            parameters = [p for p in parameters if p.name not in ("seed", "offset")]
            parameters.append(Parameter("generator", Parameter.KEYWORD_ONLY, default=None))
        name = op.name + ("_" if into else "")
        _sites[key] = Site(
            name,
            op.fn,
            parameters[:operands],
            dynamic_of(op),
            into,
            op.view and not into,
            op.random,
            strict=0
            if operands or str(parameters[0].annotation) != "Value"
            else 1
            if op.numbers
            else len(parameters),
        )
    return _sites[key]


# Shapes of functions --------------------------------------------------------------------------


def unary(site):
    """A function of one tensor."""
    rows, first = site.rows, site.first

    def function(input):  # noqa: A002
        try:
            plan = rows[input._meta]
        except (KeyError, AttributeError):
            return first(key_of(input), (input,))
        return plan(input)

    return function


def binary(site):
    """A function of two operands, tensors or numbers."""
    rows, first = site.rows, site.first_of_two

    def function(input, other):  # noqa: A002
        kind = type(other)
        try:
            plan = rows[input._meta][
                other._meta if kind in TENSORS else kind if kind in NUMBERS else key_of(other)
            ]
        except (KeyError, AttributeError):
            return first(input, other, key_of(input), key_of(other))
        return plan(input, other)

    return function


def operator(site):
    """As :func:`binary`; arrays become tensors, other operands are left to their own class."""
    rows, first = site.rows, site.first_of_two

    def function(self, other):
        kind = type(other)
        try:
            plan = rows[self._meta][
                other._meta if kind in TENSORS else kind if kind in NUMBERS else key_of(other)
            ]
        except (KeyError, AttributeError, TypeError):
            if hasattr(other, "__array_interface__") and other.shape:
                return function(self, from_numpy(other))
            if not is_operand(other):
                return NotImplemented
            return first(self, other, key_of(self), key_of(other))
        return plan(self, other)

    return function


def reflected(site):
    """The operator with operands exchanged."""
    rows, first = site.rows, site.first_of_two

    def function(self, other):
        key = key_of(other)
        try:
            plan = rows[key][self._meta]
        except (KeyError, AttributeError, TypeError):
            if not is_operand(other):
                return NotImplemented
            return first(other, self, key, self._meta)
        return plan(other, self)

    return function


def is_operand(x) -> bool:
    """Whether an operator takes it: tensors, numbers, values of a trace, NumPy's numbers."""
    return (
        type(x) in NUMBERS
        or isinstance(x, (Tensor, dispatch.Value, int, float, Dim))
        or getattr(x, "shape", None) == ()
        and hasattr(x, "item")
    )


def general(site, op, out=False):
    """A function of the op's own signature, written as source."""
    space = {
        "on": on,
        "mode": mode,
        "casted": casted,
        "TENSORS": TENSORS,
        "key_of": key_of,
        "static_key": static_key,
        "PLAIN": PLAIN,
        "rows": site.rows,
        "first": site.first,
        "write": write_out,
        "op": op,
    }
    heads, keys, slots, names = [], [], [], []
    star, named, changed, cast = False, "", "", ""
    parameters = site.parameters
    if out:
        parameters = [*parameters, Parameter("out", Parameter.KEYWORD_ONLY, default=None)]
    for i, p in enumerate(parameters):
        head = p.name
        if p.kind is p.VAR_POSITIONAL:
            # ``view(2, 3)``, ``view((2, 3))`` or ``view(size=(2, 3))``.
            named = f"    {head} = _given if {head} is None else ({head},)\n"
            heads.append("*_given")
            head, star = head + "=None", True
        elif p.kind is p.KEYWORD_ONLY and not star:
            heads.append("*")
            star = True
        if p.default is not p.empty:
            space[f"default_{p.name}"] = p.default
            head += f"=default_{p.name}"
        heads.append(head)
        if p.name == "out" and out:
            continue
        names.append(p.name)
        n = p.name
        if i not in site.slots:
            keys.append(f"{n} if type({n}) in PLAIN else static_key({n})")
            continue
        slots.append(n)
        test = f"{n}._meta if type({n}) in TENSORS else "
        if p.default is not p.empty:
            # The default of a number is a constant of the trace, not an input.
            test += f"'default' if {n} is default_{n} else "
        keys.append(test + f"key_of({n})")
    written = f"    if out is not None:\n        return write(op, ({', '.join(names)},), out)\n"
    if "inplace" in names and op.inplace and not site.into:
        # ``f(x, inplace=True)`` is ``f_(x)``.
        space["inside"] = lambda *args: function_of(op, "self")(*args)
        given = ", ".join(n for n in names if n != "inplace")
        changed = f"    if inplace:\n        return inside({given})\n"
    lower = None if site.into else policy(op.name)
    if lower is not None:
        cast = "        {0}, = casted({1}, ({0},))\n".format(", ".join(names), lower)
        cast = f"    if on and mode.cast is not None:\n{cast}"
    text = (
        f"def make({', '.join(space)}):\n"
        f"  def {op.__name__}({', '.join(heads)}):\n{named}{cast}"
        f"{written if out else ''}{changed}"
        f"    _key = ({', '.join(keys)},)\n"  # No op has a parameter of such a name.
        f"    _plan = rows.get(_key)\n"
        f"    if _plan is None:\n"
        f"        return first(_key, ({', '.join(names)},))\n"
        f"    return _plan({', '.join(slots)})\n"
        f"  return {op.__name__}\n"
    )
    return plans.compiled(text)(**space)


def _made(op, into):
    site = site_of(op, into)
    out = op.out and not into and "out" not in op.signature.parameters
    arity = len(site.parameters)
    ordinary = all(
        p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty for p in site.parameters
    )
    if ordinary and not out and not op.random and site.slots == list(range(arity)):
        lower = None if into else policy(op.name)
        if arity == 1 and lower is None:
            return unary(site)
        if arity == 2 and [p.name for p in site.parameters] == ["input", "other"]:
            return binary(site) if lower is None else casting(binary(site), site.rows, lower)
    return general(site, op, out)


def function_of(op: Op, into=""):
    """The functional and method of an op; with ``into="self"`` its variant in place."""
    key = (op.name, into)
    made = _functions.get(key)
    if made is None:
        made = _made(op, into)
        made.__name__ = made.__qualname__ = op.name + ("_" if into else "")
        made.__doc__ = op.__doc__ if not into else f"``{op.name}``, in place.\n\n{op.__doc__ or ''}"
        made.__module__ = "facula"
        made.op = op
        _functions[key] = made
    return made


def names_in(space: str) -> dict:
    """Public name -> a function that makes it, for all ops of a space ("torch", "method", ...)."""
    found = {}
    for op in OPS.values():
        if space in op.spaces:
            for name in (op.name, *op.aliases):
                found[name] = lambda op=op: function_of(op)
                if op.inplace:
                    found[name + "_"] = lambda op=op: function_of(op, "self")
    return found


# out= ---------------------------------------------------------------------------------------


def write_out(op, args, out):
    """Do the call and write its results into ``out``; returns ``out``."""
    if capture.trace is not None and capture.trace.cuts:
        return capture.trace.apart(lambda args, out: write_out(op, args, out), (args, out))
    site, rules = site_of(op), str(op.out)
    outs = list(out) if isinstance(out, (tuple, list)) else [out]
    for o in outs:
        if not isinstance(o, Tensor):
            fail(
                ArgumentTypeError,
                site.name,
                f"argument 'out' must be Tensor, not {type(o).__name__}",
            )
        recipes.refuse_repeated(site.name, o._meta)
    if mode.grad is not False and any(
        isinstance(a, Tensor) and a._meta.requires_grad for a in [*args, *outs]
    ):
        fail(
            AutogradError,
            site.name,
            "functions with out=... arguments don't support automatic "
            "differentiation, but one of the arguments requires grad.",
        )
    args = [
        dispatch.data_argument(a) if i in site.slots else dispatch.plain_argument(a)
        for i, a in enumerate(args)
    ]
    for i in site.slots:
        for o in outs:
            given, args[i] = args[i], apart(o, args[i], "apart" in rules)
            if "apart" in rules and not same(given, args[i]):
                refuse_shared(site.name)
    key = (
        "out",
        *(key_of(a) if i in site.slots else static_key(a) for i, a in enumerate(args)),
        *(o._meta for o in outs),
    )
    plan = site.rows.get(key)
    if plan is None:
        plan = _out_plan(site, args, outs, "exact" in rules)
        # The tensors may have been resized: the plan is for the metas they have now.
        key = (*key[: len(key) - len(outs)], *(o._meta for o in outs))
        dispatch.count("plans", dispatch.MAX_PLANS)
        site.rows[key] = plan
    plan(*[args[i] for i in site.slots], *outs)
    return out


def _out_plan(site, args, outs, exact):
    s = site.sort(args)
    site.tensors(s, args)

    def build(values):
        return s.build(values[: s.counted], site.arguments)

    program, results = trace(site.name, site.fn, build, s.data)
    symbols = symbols_of(s.data)
    shapes = [_shape_of(item, program, symbols) for item in results.items]
    if len(shapes) != len(outs):
        fail(DtypeError, site.name, f"out: expected {len(shapes)} tensors, got {len(outs)}")
    for o, shape, item in zip(outs, shapes, results.items):
        if exact and item[0] == "output":
            need_dtype(site.name, o, program.outputs[item[1]].dtype)
        fit(site.name, o, shape)
    s.data += outs
    s.expressions += [f"o{k}" for k in range(len(outs))]
    program, results = trace(site.name, site.fn, build, s.data, into="out")
    metas = [None if type(x) in NUMBERS else x._meta.with_grad(False) for x in s.data]
    routine = Routine(program, [s.counted + k for k in range(len(outs))])
    bound = plans.bind(routine, symbols_of(s.data), metas)
    slots = [f"s{k}" for k in range(len(site.slots))] + [f"o{k}" for k in range(len(outs))]
    return plans.plain(bound, tuple(slots), tuple(s.expressions), results)


def _shape_of(item, program, symbols):
    values = program.outputs if item[0] == "output" else program.inputs
    return tuple(concrete(tuple(values[item[1]].shape), symbols))


def same(a, b) -> bool:
    """Whether two arguments, or the items of two sequences, are the same objects."""
    return all(map(same, a, b)) if isinstance(a, (list, tuple)) else a is b


def refuse_shared(name):
    """Say that a result cannot be written over an operand."""
    fail(AutogradError, name, "unsupported operation: some elements of the input tensor and the "
         "written-to tensor refer to a single memory location.",
         "clone() the tensor before performing the operation")  # fmt: skip


def need_dtype(name, o, dtype) -> None:
    """Refuse an ``out`` tensor of another dtype than the result's."""
    if o.dtype is not dtype:
        fail(DtypeError, name, f"Expected out tensor to have dtype {dtype}, but got {o.dtype} "
             "instead", f"give out= a tensor of {dtype}")  # fmt: skip


def fit(name, o, shape) -> None:
    """Give an ``out`` tensor the shape of the result; only empty ones change without a warning."""
    if tuple(o._meta.shape) == tuple(shape):
        return
    if o._meta.numel:
        warnings.warn(
            f"{name}: an output with one or more elements was resized since it had shape "
            f"{list(o._meta.shape)}, which does not match the required output shape "
            f"{list(shape)}. hint: give out=... the right shape or no elements, out.resize_(0)",
            stacklevel=4,
        )
    o.resize_(shape)


# The eager road of ops and primitives -------------------------------------------------------


def eager(op, args, kwargs):
    """What ``Op.__call__`` and ``Primitive.__call__`` do outside of a trace."""
    if isinstance(op, Primitive):
        return dispatch.call_primitive(op, args, kwargs)
    return function_of(op)(*args, **kwargs)


set_eager(eager)
