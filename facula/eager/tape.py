"""The tape: nodes that remember calls, and the engine that runs them backwards.

A node knows where its gradients go (``edges``: for each differentiable input the node that made
it, or the leaf itself, and which of that node's outputs it was) and what it needs (``saved``).
Backward takes nodes off a heap, newest first: every consumer of a result is newer than its
producer, so all cotangents of a node have arrived when its turn comes. Nothing recurses.
"""

from __future__ import annotations

import threading
import weakref
from heapq import heappop, heappush

from facula.base.errors import AutogradError, fail
from facula.eager import plans
from facula.eager.grad_mode import mode, refuse
from facula.eager.meta import contiguous
from facula.eager.tensor import Tensor, wrap
from facula.eager.tracing import NUMBERS, concrete

_VERSION_MESSAGE = (
    "one of the variables needed for gradient computation has been modified by an inplace "
    "operation: [{dtype} {shape}], which is at version {now}; expected version {then} instead"
)
_FREED_MESSAGE = (
    "Trying to backward through the graph a second time (or directly access saved tensors after "
    "they have already been freed). Saved intermediate values of the graph are freed when you "
    "call .backward() or autograd.grad()"
)


class Hooks:
    """What is to happen at a node besides its work; most nodes have none.

    Attributes:
        tensors: output number -> hooks on that tensor's cotangent (id -> function).
        retains: output number -> weak reference to the tensor whose ``grad`` is kept.
        before, after: hooks on the node, ``f(grads)`` and ``f(grad_inputs, grad_outputs)``.
        stack: where the forward call was made, in anomaly mode.
    """

    __slots__ = ("tensors", "retains", "before", "after", "stack", "metadata")

    def __init__(self):
        self.tensors, self.retains, self.before, self.after = {}, {}, {}, {}
        self.stack, self.metadata = None, {}


class Handle:
    """What registering a hook returns: ``remove()`` takes it away; usable as a context."""

    _count = 0

    def __init__(self, hooks: dict, hook):
        Handle._count += 1
        self.id, self._hooks = Handle._count, hooks
        hooks[self.id] = hook

    def remove(self):
        """Take the hook away; a second time does nothing."""
        self._hooks.pop(self.id, None)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.remove()


class Node:
    """A step of the tape.

    Attributes:
        edges: target, output number, target, output number, ...; targets are nodes or leaf
            tensors, a missing number means 0.
        saved: what backward needs; None once freed.
        versions: of the saved tensors' storages.
        order: falls with time.
    """

    __slots__ = ("edges", "saved", "versions", "order", "hooks", "__weakref__")

    #: Number of outputs, which is how many cotangents ``apply`` takes.
    outputs = 1

    def apply(self, gs):
        """(cotangents for the edges, which of them nobody else holds), given those of outputs."""
        raise NotImplementedError

    def release(self):
        """Free what was kept for backward."""
        if self.saved:
            self.saved = None

    def need_saved(self):
        """What was saved.

        Raises:
            AutogradError: it was freed.
        """
        saved = self.saved
        if saved is None:
            fail(
                AutogradError,
                "backward",
                _FREED_MESSAGE,
                "pass retain_graph=True to the first call",
            )
        return saved.unpack() if type(saved) is Packed else saved

    # What users may look at

    def name(self) -> str:
        """The name of the step, such as ``"MulBackward0"``."""
        return type(self).__name__

    @property
    def next_functions(self) -> tuple:
        """((node, output number), ...) of the edges; leaves appear as AccumulateGrad."""
        pairs = zip(self.edges[::2], self.edges[1::2])
        return tuple((t if isinstance(t, Node) else AccumulateGrad(t), n or 0) for t, n in pairs)

    @property
    def metadata(self) -> dict:
        """A dict for whatever the user wants to note here."""
        return self.need_hooks().metadata

    def need_hooks(self) -> Hooks:
        """The node's hooks, made if there are none."""
        if self.hooks is None:
            self.hooks = Hooks()
        return self.hooks

    def register_hook(self, hook) -> Handle:
        """Call ``hook(grad_inputs, grad_outputs)`` after the node; it may return others."""
        return Handle(self.need_hooks().after, hook)

    def register_prehook(self, hook) -> Handle:
        """Call ``hook(grad_outputs)`` before the node; it may return new ones."""
        return Handle(self.need_hooks().before, hook)

    def _sequence_nr(self) -> int:
        return -self.order

    def __repr__(self):
        return f"<{self.name()} at {id(self):#x}>"


class AccumulateGrad(Node):
    """How a leaf looks in ``next_functions``: adds to ``variable.grad``."""

    __slots__ = ("variable",)

    def __init__(self, leaf):
        self.variable, self.edges, self.saved, self.versions = leaf, (), (), ()
        self.hooks, self.order = None, 1

    def apply(self, gs):
        accumulate(self.variable, gs[0], False)
        return (), ()


class Constant(Node):
    """The history of what depends on nothing."""

    __slots__ = ()

    def apply(self, gs):
        return (), ()


class Zeros(Node):
    """The history of a result that is a step function of its inputs: no gradient but zeros."""

    __slots__ = ("metas",)

    def apply(self, gs):
        return tuple(zeros(m) for m in self.metas), ()


class Packed:
    """Saved tensors in the hands of ``saved_tensors_hooks``."""

    __slots__ = ("items", "unpacker")

    def __init__(self, saved, pack, unpacker):
        self.items = [(pack(x),) if isinstance(x, Tensor) else x for x in saved]
        self.unpacker = unpacker

    def unpack(self):
        """The saved tensors again."""
        return tuple(self.unpacker(x[0]) if type(x) is tuple else x for x in self.items)


class Backward:
    """How the nodes of one plan run: shared by all nodes that the plan records.

    Attributes:
        recorded: the :class:`tracing.Recorded` of the plan.
        metas: of the forward's inputs (None for numbers).
        count: how many outputs there are, hidden ones included.
        numbers: which inputs are numbers.
        tensors: which of the saved values are none.
        name: of the op.
    """

    __slots__ = (
        "recorded", "symbols", "metas", "count", "numbers", "name", "plans", "call", "tensors",
    )  # fmt: skip

    def __init__(self, name, recorded, symbols, metas, call):
        self.name, self.recorded, self.symbols, self.metas = name, recorded, symbols, metas
        self.numbers, self.tensors = recorded.kept
        self.count, self.plans, self.call = len(recorded.routine.program.outputs), {}, call

    def zeros(self, j):
        """Zeros of the shape and dtype of an output."""
        v = self.recorded.routine.program.outputs[j]
        return zeros(contiguous(concrete(v.shape, self.symbols), v.dtype))

    def plan(self, saved, given, cotangents):
        """(function of the saved values and the cotangents, which results are fresh)."""
        key = cotangents[0]._meta if len(cotangents) == 1 else tuple([g._meta for g in cotangents])
        if mode.grad is not False:
            kinds = [type(x) if type(x) in NUMBERS else x._meta for x in saved]
            key = (given, key, tuple(kinds))
        found = self.plans.get(key)
        if found is None:
            routine, results, derivative = self.recorded.backward(given)
            found = self.plans[key] = self.call(
                self, routine, results, derivative.sources, saved, cotangents
            )
        return found


class ProgramNode(Node):
    """A call of an op: backward runs the derived Program."""

    __slots__ = ("back",)

    def name(self) -> str:
        words = self.back.name.removesuffix("_backward").split("_")
        return "".join(w[:1].upper() + w[1:] for w in words) + "Backward0"

    def apply(self, gs):
        back, saved = self.back, self.saved
        if type(saved) is not tuple:
            saved = self.need_saved()
        if self.versions:
            for k, then in zip(back.tensors, self.versions):
                if saved[k]._storage.version != then:
                    self._refuse_changed(saved[k], then)
        # What nearly every node of a backward pass does; the rest is below.
        if len(gs) == 1 and mode.grad is False:
            found = back.plans.get(gs[0]._meta)
            if found is not None:
                function, fresh = found
                return function(*saved, *gs), fresh
        return self._apply(back, saved, gs)

    def _apply(self, back, saved, gs):
        recorded = back.recorded
        if recorded.error is not None:
            raise recorded.error
        if mode.grad is not False:
            saved = self._reattached(saved)
        given = recorded.given
        if len(gs) > 1:
            for j, g in enumerate(gs):
                if g is not None and j not in given:
                    given = tuple(range(len(gs)))
                    saved = self._for_all_outputs(saved, given)
                    break
            gs = [gs[j] if gs[j] is not None else back.zeros(j) for j in given]
        function, fresh = back.plan(saved, given, gs)
        return function(*saved, *gs), fresh

    def _refuse_changed(self, x, then):
        now, shape = x._storage.version, list(x._meta.shape)
        fail(
            AutogradError,
            self.name(),
            _VERSION_MESSAGE.format(dtype=x._meta.dtype.name, shape=shape, now=now, then=then),
            "find the operation that failed to compute "
            "its gradient with autograd.set_detect_anomaly(True)",
        )

    def _reattached(self, saved):
        """Saved outputs as results of this node again, for derivatives of derivatives."""
        values = []
        sources = [
            s for s in self.back.recorded.sources if s[0] != "cotangent" and s[-1] is not False
        ]
        for source, x in zip(sources, saved):
            if source[0] == "output" and x._meta.dtype.is_floating_point:
                x = wrap(x._meta.with_grad(True), x._ptr, x._storage)
                x._grad_fn, x._output_nr = self, source[1]
            values.append(x)
        return tuple(values)

    def _for_all_outputs(self, saved, given):
        """What the derivative for all outputs, hidden ones included, needs of what was saved."""
        mine = [s for s in self.back.recorded.sources if s[0] != "cotangent" and s[-1] is not False]
        have = {s[:2]: x for s, x in zip(mine, saved)}
        _, _, derivative = self.back.recorded.backward(given)
        values = []
        for s in derivative.sources:
            if s[0] == "cotangent" or s[-1] is False:
                continue
            if s[:2] not in have:
                fail(
                    AutogradError,
                    self.name(),
                    "this derivative of a derivative needs values "
                    "that the forward pass did not keep",
                )
            values.append(have[s[:2]])
        return tuple(values)


class WideNode(ProgramNode):
    """One with several outputs, hidden ones among them."""

    __slots__ = ()

    @property
    def outputs(self) -> int:
        return self.back.count


# The engine -----------------------------------------------------------------------------------


class Task:
    """One run of the engine.

    Attributes:
        keep: keep saved tensors (``retain_graph``).
        capture: id of a target -> list of (output number, position) of wanted gradients; None
            means that gradients are accumulated into all leaves.
        needed: ids of the nodes that lead to what is captured, or None for all.
    """

    __slots__ = ("keep", "heap", "pending", "capture", "captured", "needed", "check_nan", "leaves")

    def __init__(self, keep, capture=None, needed=None):
        self.keep, self.heap, self.pending = keep, [], {}
        self.capture, self.needed, self.captured, self.leaves = capture, needed, {}, {}
        state = mode.recording
        self.check_nan = state is not True and state.check_nan

    def send(self, target, number, g, fresh):
        """Deliver a cotangent to a node's output or to a leaf."""
        if not isinstance(target, Node):
            if self.capture is None and target._hooks is None:
                accumulate(target, g, fresh)
            else:
                self._to_leaf(target, g)
            return
        if self.needed is not None and target not in self.needed and id(target) not in self.capture:
            return
        number = number or 0
        slots = self.pending.get(target)
        if slots is None:
            slots = self.pending[target] = [None] * target.outputs
            heappush(self.heap, (target.order, target))
        have = slots[number]
        if have is None:
            slots[number] = g
        elif fresh and mode.grad is False and g._meta is have._meta:
            slots[number] = add_(g, have)  # Nobody else holds it: no new memory, same bits.
        else:
            slots[number] = add(have, g)

    def _to_leaf(self, leaf, g):
        if self.capture is not None and id(leaf) not in self.capture:
            return
        # Hooks see the whole cotangent, which is known at the end only.
        have = self.leaves.get(id(leaf))
        self.leaves[id(leaf)] = (leaf, g if have is None else add(have[1], g))

    def _finish_leaves(self):
        for leaf, g in self.leaves.values():
            if self.capture is None:
                accumulate(leaf, g, False)
                continue
            if leaf._hooks is not None:
                refuse(_HOOKS)
                g = run_hooks(leaf._hooks.before, g)
            for _, position in self.capture[id(leaf)]:
                self.captured[position] = g

    def run(self):
        """Run until nothing is pending."""
        heap, pending, keep, node = self.heap, self.pending, self.keep, None
        capture, send = self.capture, self.send
        try:
            while heap:
                _, node = heappop(heap)
                gs = pending.pop(node)
                hooks = node.hooks
                if hooks is not None:
                    gs = _before(node, hooks, gs)
                if capture is not None:
                    for number, position in capture.get(id(node), ()):
                        self.captured[position] = gs[number]
                    if node not in self.needed:
                        continue
                grads, fresh = node.apply(gs)
                if self.check_nan:
                    _refuse_nan(node, grads)
                if hooks is not None and hooks.after:
                    grads, fresh = _after(hooks, grads, gs), ()
                edges = node.edges
                if not keep:
                    node.release()
                for k, g in enumerate(grads):
                    if g is not None:
                        send(edges[2 * k], edges[2 * k + 1], g, fresh and fresh[k])
        except Exception as error:
            _name_stack(node, error)
            raise
        if self.leaves:
            self._finish_leaves()


def _refuse_nan(node, grads):
    for k, g in enumerate(grads):
        if g is not None and has_nan(g):
            raise AutogradError(
                f"Function '{node.name()}' returned nan values in its {k}th output."
            )


def _name_stack(node, error):
    """Tell, in anomaly mode, where the forward call was made."""
    if node.hooks is not None and node.hooks.stack:
        error.add_note(
            f"{node.name()}: the forward call that failed to compute its gradient:\n"
            + node.hooks.stack
        )


def _before(node, hooks, gs):
    gs = list(gs)
    for number, own in list(hooks.tensors.items()):
        if gs[number] is not None:
            gs[number] = run_hooks(own, gs[number])
    for hook in list(hooks.before.values()):
        new = hook(tuple(gs))
        if new is not None:
            gs = list(new) if isinstance(new, (tuple, list)) else [new]
    for number, reference in hooks.retains.items():
        tensor = reference()
        if tensor is not None and gs[number] is not None:
            have = tensor._grad
            tensor._grad = gs[number] if have is None else add(have, gs[number])
    return gs


def _after(hooks, grads, gs):
    for hook in list(hooks.after.values()):
        new = hook(tuple(grads), tuple(gs))
        if new is not None:
            grads = tuple(new) if isinstance(new, (tuple, list)) else (new,)
    return grads


def run_hooks(hooks, g):
    """The cotangent after hooks, each of which may return another."""
    for hook in list(hooks.values()):
        new = hook(g)
        if new is not None:
            g = new
    return g


#: What a function does that is not captured as a whole.
_HOOKS = "runs hooks of a leaf's gradient"
#: Threads may bring gradients to one leaf.
_accumulating = threading.RLock()


def accumulate(leaf, g, fresh):
    """Add a cotangent to ``leaf.grad``; a fresh one becomes the gradient itself."""
    hooks = leaf._hooks
    if hooks is not None:
        refuse(_HOOKS)
        new = run_hooks(hooks.before, g)
        fresh, g = fresh and new is g, new
    with _accumulating:
        have = leaf._grad
        if have is None:
            if mode.grad is False:
                leaf._grad = g if fresh and g._meta.contiguous else clone(g)
            else:
                # A gradient that has a history may be shared: nobody changes it in place.
                leaf._grad = g if g._meta.requires_grad else clone(g)
        elif mode.grad is False and not have._meta.requires_grad:
            add_(have, g)
        else:
            leaf._grad = add(have, g)
    if hooks is not None:
        for hook in list(hooks.after.values()):
            hook(leaf)


def reaching(roots, targets) -> set:
    """The nodes from which a path leads to one of the ``targets`` (nodes, or leaves by id)."""
    parents: dict = {}
    stack, seen, found = [r for r in roots if isinstance(r, Node)], set(), []
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        for target in node.edges[::2]:
            if id(target) in targets:
                found.append(node)
            if isinstance(target, Node):
                parents.setdefault(target, []).append(node)
                stack.append(target)
    needed: set = set()
    while found:
        node = found.pop()
        if node not in needed:
            needed.add(node)
            found.extend(parents.get(node, ()))
    return needed


# What the layers above provide ----------------------------------------------------------------
# The arithmetic of gradients is done by ops, which the dispatcher (which needs this module) runs.

add = add_ = copy_ = clone = zeros = has_nan = rebase = None


def provide(**functions) -> None:
    """Set the functions above; called once by ``tensor.dispatch``."""
    globals().update(functions)


def edge(x):
    """(target, output number) of a tensor that requires grad."""
    return x._grad_fn or x, x._output_nr


def start(node, edges, saved=(), versions=()):
    """Fill in a new node's common fields."""
    node.edges, node.saved, node.versions = edges, saved, versions
    node.order, node.hooks = plans.next_order(), None
    return node


def hook_tensor(x, hook) -> Handle:
    """Register a hook on the cotangent of ``x``."""
    if x._grad_fn is None:
        if x._hooks is None:
            x._hooks = Hooks()
        return Handle(x._hooks.before, hook)
    own = x._grad_fn.need_hooks().tensors.setdefault(x._output_nr or 0, {})
    return Handle(own, hook)


def retain(x) -> None:
    """Keep the cotangent of the non-leaf ``x`` in ``x.grad``."""
    x._grad_fn.need_hooks().retains[x._output_nr or 0] = weakref.ref(x)
