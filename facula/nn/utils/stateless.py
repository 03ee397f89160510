"""Calls of a module with other parameters than its own."""

from contextlib import contextmanager

__all__ = ["functional_call"]


def _place(module, path):
    """The registry and the name at which ``path`` is kept: a parameter's or a buffer's."""
    owner_path, _, name = path.rpartition(".")
    owner = module.get_submodule(owner_path)
    for registry in (owner._parameters, owner._buffers):
        if name in registry:
            return registry, name
    return None


@contextmanager
def _replaced(module, tensors, strict):
    places = {path: _place(module, path) for path in tensors}
    unexpected = [path for path, place in places.items() if place is None]
    if unexpected:
        raise KeyError(f"functional_call: no parameter or buffer {', '.join(unexpected)}")
    if strict:
        known = {name for name, _ in [*module.named_parameters(), *module.named_buffers()]}
        missing = sorted(known - set(tensors))
        if missing:
            raise RuntimeError(f"functional_call: missing {', '.join(missing)}")
    before = {path: registry[name] for path, (registry, name) in places.items()}
    try:
        for path, (registry, name) in places.items():
            registry[name] = tensors[path]
        yield
    finally:
        for path, (registry, name) in places.items():
            registry[name] = before[path]


def functional_call(
    module, parameter_and_buffer_dicts, args=None, kwargs=None, *, tie_weights=True, strict=False
):
    """Call ``module`` with the given tensors in place of its parameters and buffers.

    Args:
        module: what to call; it is as before afterwards.
        parameter_and_buffer_dicts: a dict from paths to tensors, or a sequence of such dicts.
        args: the positional arguments; one that is no tuple stands alone.
        kwargs: the keyword arguments.
        tie_weights: whether a tensor given for one path of a shared parameter holds for all.
        strict: whether every parameter and buffer must be given.

    >>> from facula import nn, ones
    >>> from facula.nn.utils.stateless import functional_call
    >>> functional_call(nn.Linear(2, 1, bias=False), {"weight": ones(1, 2)}, ones(2)).item()
    2.0
    """
    dicts = parameter_and_buffer_dicts
    tensors = dict(dicts) if hasattr(dicts, "items") else {}
    if not hasattr(dicts, "items"):
        for entries in dicts:
            tensors.update(entries)
    if tie_weights:
        owned = [
            *module.named_parameters(remove_duplicate=False),
            *module.named_buffers(remove_duplicate=False),
        ]
        by_id = {id(tensor): tensors[path] for path, tensor in owned if path in tensors}
        for path, tensor in owned:
            if id(tensor) in by_id:
                tensors.setdefault(path, by_id[id(tensor)])
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    with _replaced(module, tensors, strict):
        return module(*args, **(kwargs or {}))
