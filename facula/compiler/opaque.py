"""Opaque: nodes that have kernels written by hand, bound to the places of their operands."""

from __future__ import annotations

import functools

from facula.base import config
from facula.compiler import calls as C
from facula.compiler.cells import arithmetic
from facula.compiler.simplify import same_shape
from facula.compiler.views import Place, is_one, resolve
from facula.ir import dims
from facula.ir import loops as L
from facula.ir.deferred import deferred, deferring
from facula.kernels import (
    attention,
    attention_gradient,
    bags,
    choose_matmul,
    conv,
    conv_weight,
    matmul,
    pool,
    rnn,
    scan,
    scatter,
    sort,
    winograd,
    winograd_weight,
)
from facula.ops.movement import contiguous_strides
from facula.ops.promote import is_zero

#: Elements that are worth a chunk of their own when they are copied.
_COPIED = 16384


def copy(value, source, target):
    """A kernel that copies ``value`` from one place to another of the same shape."""
    k = L.Builder("copy")
    x, y = k.buffer("x", source.dtype), k.buffer("y", target.dtype, "w")
    bindings = {"x": C.memory(source), "y": C.memory(target)}
    sizes = []
    for d, n in enumerate(value.shape):
        if is_one(n):
            continue
        sizes.append([])
        for name, size in zip("nst", (n, source.strides[d], target.strides[d])):
            if is_one(size):  # Known to lie side by side, or else elements go one by one.
                sizes[-1].append(L.Const(1, L.int64))
                continue
            bindings[f"{name}{d}"] = ("size", size)
            sizes[-1].append(k.size(f"{name}{d}"))

    def nest(rest, at, to):
        (n, s, t), *inner = rest
        with k.loop(0, n, kind="serial" if inner else "vector") as i:
            if inner:
                nest(inner, at + i * s, to + i * t)
            else:
                k.store(y, to + i * t, x[at + i * s])

    zero = L.Const(0, L.int64)
    if len(sizes) < 2:
        n, s, t = sizes[0] if sizes else (L.Const(1, L.int64), zero, zero)
        with k.parallel(0, L.idiv_ceil(n, _COPIED)) as piece:
            lo = k.let(piece * _COPIED, "lo")
            with k.vector(lo, L.minimum(lo + _COPIED, n)) as i:
                k.store(y, i * t, x[i * s])
    else:
        (n, s, t), *inner = sizes
        each = L.Const(1, L.int64)
        for size, _, _ in inner:
            each = each * size
        grain = L.maximum(L.as_expr(_COPIED) // L.maximum(each, 1), 1)
        with k.parallel(0, n, grain=grain) as i:
            nest(inner, i * s, i * t)
    return C.call(k.kernel(), bindings)


def lower(node, places, temp):
    """The kernel calls of one node; ``temp(dtype, shape)`` gives memory between them."""
    operands = [resolve(v, places) for v in node.inputs]
    results = [places.get(id(v)) for v in node.outputs]
    return LOWERINGS[node.op.name](node, operands, results, temp)


# Matrix products --------------------------------------------------------------------------------

_products: dict = {}


def _product(module, form, epilogue, out=None):
    """The kernel of a form, with that epilogue if there is one; like ones are one.

    ``out``: the dtype of the result, if that is neither the epilogue's nor the operands'.
    """
    made_from = form, epilogue and epilogue.key, out
    if (module, *made_from) not in _products:
        more = (epilogue, epilogue.target.dtype, epilogue.name) if epilogue else ()
        more = more or (out and (None, out) or ())
        kernel = deferred(module.build, form, *more, made_from=made_from)
        _products[module, *made_from] = kernel
    return _products[module, *made_from]


def lower_product(node, places, epilogue, temp):
    """The kernel calls of a matrix product or the like with an epilogue."""
    operands = [resolve(v, places) for v in node.inputs]
    calls = LOWERINGS[node.op.name](node, operands, [epilogue.target], temp, epilogue)
    for made in [made for made in calls if made.select is not None]:
        made.bindings.update(epilogue.bindings)
        made.reads |= epilogue.reads
        made.writes |= epilogue.writes
    return calls


def _matmul(node, operands, results, temp, epilogue=None):
    (a, b), (c,) = operands, results
    *batch, m, k = node.inputs[0].shape
    n, ready = node.outputs[0].shape[-1], "columns" in node.params
    inner, steps = (batch[1], [p.strides[1] for p in (a, b, c)]) if len(batch) > 1 else (1, [0] * 3)
    sizes = (
        *(dims.product(batch), m, n, k),
        *(a.strides[0], *a.strides[-2:], b.strides[0], *b.strides[-2:]),
        *(c.strides[0], c.strides[-2], inner, *steps),
    )
    bindings = {name: ("size", size) for name, size in zip(matmul.SIZES, sizes)}
    bindings.update(a=C.memory(a), c=C.memory(c), **{"panels" if ready else "b": C.memory(b)})

    def select(values, machine):
        form, row_cut, column_cut = choose_matmul.choose(
            a.dtype,
            *(values[name] for name in ("batch", "m", "n", "k")),
            (values["ars"], values["acs"]),
            (values["brs"], values["bcs"]),
            **machine._asdict(),
            ready=ready,
        )
        forms = form, *choose_matmul.others(form)
        out = c.dtype if epilogue is None and c.dtype is not a.dtype else None
        kernel, *others = [_product(matmul, f, epilogue, out) for f in forms]
        return kernel, {"row_cut": row_cut, "column_cut": column_cut}, *others

    return [C.selected(select, bindings, (a, b), (c,))]


# Convolutions -----------------------------------------------------------------------------------

_GEOMETRY = ("stride", "padding", "dilation", "groups")


def _modules(direct, fast):
    return lambda d, sizes: fast if config.WINOGRAD and fast.suits(d, sizes) else direct


def _convolution(module_of, names, operands, result, parts, epilogue=None):
    """Calls of kernels, chosen when the sizes are known: one for each part.

    ``module_of(dtype, sizes)`` gives the module with the kernels.
    """
    d = operands[0].dtype

    def part(sizes):
        bindings = {name: ("size", n) for name, n in sizes.items()}
        for name, place in zip(names, (*operands, result)):
            bindings[name] = C.memory(place)

        def select(values, machine):
            own = {name: values[name] for name in sizes}
            module = module_of(d, own)
            form, cuts = module.choose(
                d, own, vector_bytes=machine.vector_bytes, threads=machine.threads
            )
            return _product(module, form, epilogue), cuts

        return C.selected(select, bindings, operands, (result,))

    return [part(sizes) for sizes in parts]


def _conv_sizes(describe, node, operands, result, **more):
    shapes = [v.shape for v in (*node.inputs, node.outputs[0])]
    strides = [place.strides for place in (*operands, result)]
    return describe(*shapes, strides, **{name: node.params[name] for name in _GEOMETRY}, **more)


def _conv(describe):
    """The lowering of a convolution, whose sizes ``describe`` gives."""

    def lowering(node, operands, results, temp, epilogue=None):
        joined = epilogue is None or epilogue.joined
        sizes = _conv_sizes(describe, node, operands, results[0], joined=joined)
        modules = _modules(conv, winograd)
        return _convolution(modules, "xwy", operands, results[0], sizes, epilogue)

    return lowering


def _conv_weight(node, operands, results, temp):
    sizes = _conv_sizes(conv_weight.sizes_of, node, operands, results[0])
    return _convolution(_modules(conv_weight, winograd_weight), "xgw", operands, results[0], sizes)


# Attention --------------------------------------------------------------------------------------

_attention_kernel = deferring(attention.build)
_attention_gradient_kernel = deferring(attention_gradient.build)


def _attention_of(kernel_of, names, outputs, **choice):
    """The lowering of attention or of its gradient, whose first operands have these names."""

    def lowering(node, operands, results, temp):
        params, calls, places = node.params, [], list(operands)
        for i, x in enumerate(names):
            # Rows are read in vectors; logarithms, which have three dimensions, are made that way.
            if x != "lse" and not dims.same(places[i].strides[3], 1):
                places[i] = temp(places[i].dtype, node.inputs[i].shape)
                calls.append(copy(node.inputs[i], operands[i], places[i]))
        rest = iter(places[len(names) :])
        mask = next(rest) if params["masked"] else None
        dropout = dict(zip(("p", "seed", "offset"), rest))
        by_name = {**dict(zip(names, places)), **dropout, **dict(zip(outputs, results))}
        (batch, queries, heads, depth), keys, values = (
            node.inputs[names.index(x)].shape for x in "qkv"
        )
        sizes = {
            "batch": batch,
            "heads": heads,
            "group": heads // keys[2],
            "queries": queries,
            "keys": keys[1],
            "depth": depth,
            "values": values[3],
        }
        for x in "qkvgy":
            strides = by_name[x].strides if x in names else (0,) * 3
            sizes.update({f"{x}_{d}": strides["bnh".index(d)] for d in "bnh"})
        strides = mask.strides if mask else (0,) * 4
        sizes.update({f"m_{d}": s for d, s in zip("bhnk", strides)})
        bindings = {**_sizes(**sizes), **{x: C.memory(place) for x, place in by_name.items()}}
        if mask:
            bindings["mask"] = C.memory(mask)

        def select(values, machine):
            form = attention.Form(
                results[0].dtype,
                mask.dtype if mask else None,
                bool(mask) and dims.same(mask.strides[3], 1),
                params["causal"],
                params["dropout"],
                params["scale"],
                2,
                machine.vector_bytes,
            )
            return kernel_of(
                attention.choose(form, values["queries"], values["group"], **choice)
            ), {}

        return [*calls, C.selected(select, bindings, places, results)]

    return lowering


# Pooling ----------------------------------------------------------------------------------------

_pool_kernel = deferring(pool.max_gradient)


def _max_pool_gradient(node, operands, results, temp):
    """Planes of two leading dimensions: where there is but one, of a first of size 1."""
    g, x = operands
    rank = node.params["rank"]
    shapes, strides = [], []
    for value, place in zip(node.inputs, operands):
        missing = 2 + rank - value.ndim
        shapes.append((1,) * missing + tuple(value.shape))
        strides.append((0,) * missing + tuple(place.strides))
    sizes = pool.sizes_of(*reversed(shapes), strides[::-1], node.params["padding"])
    bindings = {name: ("size", n) for name, n in sizes.items()}
    bindings.update(x=C.memory(x), g=C.memory(g), y=C.memory(results[0]))
    windows = [
        (1,) * (3 - rank) + tuple(node.params[name]) for name in ("kernel", "stride", "dilation")
    ]

    def select(values, machine):
        inside = pool.all_inside(values, *windows)
        units = values["x_2"] == 1, values["g_2"] == 1
        return _pool_kernel(pool.Form(x.dtype, *windows, inside, *units)), {}

    return [C.selected(select, bindings, operands, results)]


# Scans ------------------------------------------------------------------------------------------

_scan_kernel = deferring(scan.build)


def _along(node, operands, results, temp, names, kernel_of, **more):
    """A call over the lines along ``dim`` of a contiguous x, of ``kernel_of(sizes, threads)``."""
    (x,), (value,), dim = operands, node.inputs, node.params["dim"]
    calls = []
    if not same_shape(x.strides, contiguous_strides(value.shape)):
        target = temp(x.dtype, value.shape)
        calls.append(copy(value, x, target))
        x = target
    inner = dims.product(value.shape[dim + 1 :])
    outer = dims.product(value.shape[:dim])
    bindings = _sizes(outer=outer, n=value.shape[dim], inner=inner, **more)
    bindings.update(zip(names, map(C.memory, (x, *results))))

    def select(values, machine):
        return kernel_of(values, machine.threads), {}

    calls.append(C.selected(select, bindings, (x,), results))
    return calls


def _scan(node, operands, results, temp):
    def kernel_of(sizes, threads):
        how = node.op.name
        method = scan.choose(how, sizes["outer"], sizes["inner"])
        return _scan_kernel(how, operands[0].dtype, method)

    return _along(node, operands, results, temp, ("x", "y", "index"), kernel_of)


_sort_kernel = deferring(sort.build)


def _sort(node, operands, results, temp):
    def kernel_of(sizes, threads):
        rows = sizes["outer"] * sizes["inner"]
        descending, method = node.params["descending"], sort.choose(sizes["n"], rows, threads)
        return _sort_kernel(operands[0].dtype, descending, method)

    return _along(node, operands, results, temp, ("x", "y", "index"), kernel_of)


_topk_kernel, _many_kernel = deferring(sort.topk), deferring(sort.many)


def _topk(node, operands, results, temp):
    def kernel_of(sizes, threads):
        kernel = _many_kernel if sort.is_many(node.params["k"]) else _topk_kernel
        return kernel(operands[0].dtype, node.params["largest"])

    names = ("x", "y", "index")
    return _along(node, operands, results, temp, names, kernel_of, k=node.params["k"])


# Recurrences ------------------------------------------------------------------------------------


@functools.cache
def _rnn_kernel(build, form, cell):
    return deferred(build, form, cell, made_from=(form, cell.name))


def _solid(values, places, temp):
    """Copies of what is not contiguous, and all places."""
    calls, found = [], []
    for value, place in zip(values, places):
        if not same_shape(place.strides, contiguous_strides(value.shape)):
            target = temp(place.dtype, value.shape)
            calls.append(copy(value, place, target))
            place = target
        found.append(place)
    return calls, found


def _along_time(node, names, operands, results, temp, build, geometry, turned):
    """A kernel over all steps; ``geometry`` is (value with all rows, hidden size, batch rows)."""
    calls, operands = _solid(node.inputs, operands, temp)
    value, hidden, rows = geometry
    lead, params = value.shape[:-1], node.params
    packed, first = len(lead) == 1, params["batch_first"]
    if packed:
        steps, t_step, b_step = node.inputs[-1].shape[0], 0, 1
        names = [*names[: len(operands) - 1], "sizes", *names[len(operands) - 1 :]]
    else:
        steps = lead[1 if first else 0]
        t_step, b_step = (1, steps) if first else (rows, 1)
    sizes = _sizes(steps=steps, rows=rows, hidden=hidden, total=dims.product(lead),
                   t_step=t_step, b_step=b_step, back=int(params["reverse"]))  # fmt: skip
    bindings = {**sizes, **dict(zip(names, map(C.memory, (*operands, *results))))}
    cell, d = arithmetic(params["cell"], value.dtype), value.dtype

    def select(values, machine):
        gates = values["hidden"] * cell.gates
        ends = (gates, values["hidden"]) if turned else (values["hidden"], gates)
        own = {name: values[name] for name in sizes}
        variant, vectors, cuts = rnn.choose(
            own, *ends, itemsize=d.itemsize, **machine._asdict(),
        )  # fmt: skip
        return build(rnn.Form(d, variant, vectors, machine.vector_bytes, packed), cell), cuts

    checks = [(node, 0)] if packed else []
    return [*calls, C.selected(select, bindings, operands, results, checks)]


def _recurrence(node, operands, results, temp):
    states = range(arithmetic(node.params["cell"], node.inputs[0].dtype).states)
    names = ["p", "w", "bias", *(f"s{i}" for i in states), "y", *(f"f{i}" for i in states)]
    used = 1 + len(states)
    keeps = any(place is not None for place in results[used:])
    if keeps:
        names += ["kept", *(f"o{i}" for i in states)]
        used = len(results)
    results = [p or temp(v.dtype, v.shape) for p, v in zip(results[:used], node.outputs)]
    geometry = node.outputs[0], node.inputs[1].shape[1], node.inputs[3].shape[0]

    def build(form, cell):
        return _rnn_kernel(rnn.forward, form._replace(keeps=keeps), cell)

    return _along_time(node, names, operands, results, temp, build, geometry, True)


def _recurrence_gradient(node, operands, results, temp):
    gy, g = node.inputs[:2]
    states = range(arithmetic(node.params["cell"], gy.dtype).states)
    names = ["gy", *(f"g{i}" for i in states), "kept", *(f"o{i}" for i in states), "w"]
    names += ["dp", *(f"d{i}" for i in states), "du"]
    geometry = gy, gy.shape[-1], g.shape[0]
    build = functools.partial(_rnn_kernel, rnn.backward)
    return _along_time(node, names, operands, results, temp, build, geometry, False)


# Joining ----------------------------------------------------------------------------------------


def _cat(node, operands, results, temp):
    (y,), dim, calls, start = results, node.params["dim"], [], 0
    for value, place in zip(node.inputs, operands):
        part = Place(y.kind, y.number, y.dtype, y.strides, y.offset + y.strides[dim] * start)
        calls.append(copy(value, place, part))
        start = start + value.shape[dim]
    return calls


# Scattered writes --------------------------------------------------------------------------------

_scatter_kernel = deferring(scatter.scatter)


def _sizes(**named):
    return {name: ("size", n) for name, n in named.items()}


def _start_of(node, operands, result, temp):
    """How the target of a scattering kernel begins, calls before it, and the places it reads."""
    if is_zero(node.inputs[0]):
        return "zero", [], []
    if operands[0].memory == result.memory:
        return "place", [], [result]
    return "copy", *_solid(node.inputs[:1], operands[:1], temp)


def _scatter(node, operands, results, temp):
    x, index, src = node.inputs
    dim, last, how = node.params["dim"], x.ndim - 1, node.params["reduce"]
    start, calls, reads = _start_of(node, operands, results[0], temp)
    bindings = dict(zip("x", map(C.memory, reads)))
    i_strides, s_strides = (place.strides for place in operands[1:])
    for d, sizes in enumerate(zip(index.shape, x.shape, i_strides, s_strides)):
        bindings.update(_sizes(**{f"{c}{d}": n for c, n in zip("nmis", sizes)}))
    bindings.update(zip(("index", "src", "y"), map(C.memory, (*operands[1:], *results))))
    units = dims.same(i_strides[last], 1), dims.same(s_strides[last], 1)

    def select(values, machine):
        columns, work = values[f"n{last}"], dims.product(values[f"n{d}"] for d in range(last + 1))
        method = "rows" if dims.same(i_strides[last], 0) else "columns"
        if dim == last or columns < scatter.NARROW:
            method = "lines"
        kernel = _scatter_kernel(x.dtype, last + 1, dim, how, start, method, units)
        others = work // max(columns * values[f"n{dim}"], 1)
        cut = scatter.columns_of(columns, work, others, x.dtype.itemsize, machine.threads)
        return kernel, {"columns": cut}

    reads = [*reads, *operands[1:]]
    return [*calls, C.selected(select, bindings, reads, results, [(node, dim)])]


def _strides_of(value, place, ends, temp):
    """The strides of runs of dimensions, each taken as one: (calls, place, strides).

    ``ends`` are where the runs end. Where a run is not one in memory, the value is copied.
    """
    found, start = [], 0
    for end in ends:
        run = [d for d in range(start, end) if not is_one(value.shape[d])]
        for a, b in zip(run, run[1:]):
            if not dims.same(place.strides[a], place.strides[b] * value.shape[b]):
                target = temp(place.dtype, value.shape)
                calls, target, found = _strides_of(value, target, ends, temp)
                return [copy(value, place, target), *calls], target, found
        found.append(place.strides[run[-1]] if run else 1)
        start = end
    return [], place, found


def _rows(node, operands, results, temp, update, outer, width):
    """``index_add`` and ``index_put``: rows of ``width`` positions, behind ``outer`` dimensions."""
    x, index, src = node.inputs
    start, calls, reads = _start_of(node, operands, results[0], temp)
    bindings = dict(zip("x", map(C.memory, reads)))
    ends = (index.ndim,) if outer is not None else (1, 2)
    i_calls, i_place, i_strides = _strides_of(index, operands[1], ends, temp)
    dim = outer or 0
    lead = src.ndim - (x.ndim - dim - width)
    s_calls, s_place, s_strides = _strides_of(src, operands[2], (dim, lead, src.ndim), temp)
    sizes = {"outer": dims.product(x.shape[:dim]), "inner": dims.product(x.shape[dim + width :])}
    sizes["count"] = dims.product(src.shape[dim:lead])
    sizes.update((f"m{d}", x.shape[dim + d]) for d in range(width))
    sizes.update(zip(("i_n", "i_w"), (*i_strides, 1)))
    sizes.update(zip(("s_o", "s_n", "s_j"), s_strides))
    bindings.update(_sizes(**sizes))
    bindings.update(zip(("index", "src", "y"), map(C.memory, (i_place, s_place, *results))))
    how = "add" if node.params.get("accumulate", True) else "set"

    def select(values, machine):
        outer, count, inner = (values[name] for name in ("outer", "count", "inner"))
        solid, kind = dims.same(s_strides[2], 1), scatter.kind_of(inner)
        form = scatter.Form(x.dtype, how, width, start, solid, kind)
        work, d = outer * count * inner, x.dtype.itemsize
        cut = scatter.columns_of(inner, work, outer, d, machine.threads)
        return _product(scatter, form, update), {"columns": cut}

    reads = [*reads, i_place, s_place]
    calls = [*calls, *i_calls, *s_calls]
    return [*calls, C.selected(select, bindings, reads, results, [(node, dim)])]


def _index_add(node, operands, results, temp, update=None):
    return _rows(node, operands, results, temp, update, node.params["dim"], 1)


def _index_put(node, operands, results, temp):
    return _rows(node, operands, results, temp, None, None, node.inputs[1].shape[1])


_compact_kernel = deferring(scan.compact)


def _compact(node, operands, results, temp):
    x, mask, ends = node.inputs
    in_place = operands[0].memory == results[0].memory
    calls = [] if in_place else [copy(x, operands[0], results[0])]
    more, (mask_place, ends_place) = _solid(node.inputs[1:], operands[1:], temp)
    bindings = _sizes(n=mask.shape[0], blocks=ends.shape[0], room=x.shape[0])
    places = mask_place, ends_place, results[0]
    bindings.update(zip(("mask", "ends", "y"), map(C.memory, places)))
    return [*calls, *more, C.call(_compact_kernel(), bindings)]


_OFFSETS = "offsets do not grow from 0 to the number of indices"
_bags_kernel = deferring(bags.build)


def _bags(node, operands, results, temp):
    calls, operands = _solid(node.inputs, operands, temp)
    x, starts, index = node.inputs
    bindings = _sizes(rows=x.shape[0], inner=x.shape[1], count=index.shape[0],
                      given=starts.shape[0], bags=node.outputs[0].shape[0])  # fmt: skip
    bindings.update(zip(("x", "starts", "index", "y"), map(C.memory, (*operands, *results))))
    kernel = _bags_kernel(x.dtype, node.params["mean"])
    return [*calls, C.call(kernel, bindings, [(node, _OFFSETS), (node, 0)])]


LOWERINGS: dict = {
    "bags": _bags,
    "sort": _sort,
    "topk": _topk,
    "matmul": _matmul,
    "attention": _attention_of(_attention_kernel, "qkv", ("y", "lse")),
    "attention_gradient": _attention_of(
        _attention_gradient_kernel,
        ("g", "y", "lse", "q", "k", "v"),
        ("gq", "gk", "gv"),
        few=0,
    ),
    "cat": _cat,
    "compact": _compact,
    "recurrence": _recurrence,
    "recurrence_gradient": _recurrence_gradient,
    "scatter": _scatter,
    "index_add": _index_add,
    "index_put": _index_put,
    "conv": _conv(conv.forward),
    "conv_input": _conv(conv.input_gradient),
    "conv_weight": _conv_weight,
    "max_pool_gradient": _max_pool_gradient,
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin"), _scan),
}
