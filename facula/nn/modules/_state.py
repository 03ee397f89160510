"""State dicts of a module: taking them, loading them, and the hooks around both.

Keys are paths with dots. The returned ``OrderedDict`` carries ``_metadata``: for each module's path
a dict with the version of its layout, so that a newer class can read an older file.
"""

from collections import OrderedDict, namedtuple

from facula.nn.modules._hooks import _register
from facula.nn.parameter import Parameter
from facula.tensor import Tensor, no_grad

_EXTRA_STATE = "_extra_state"


class _IncompatibleKeys(namedtuple("IncompatibleKeys", ["missing_keys", "unexpected_keys"])):
    """What ``load_state_dict`` could not match."""

    __slots__ = ()

    def __repr__(self):
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return super().__repr__()

    __str__ = __repr__


class _WithModule:
    """A pre-hook that is given the module first; bound once, picklable with it."""

    def __init__(self, hook, module):
        self.hook = hook
        self.module = module

    def __call__(self, *args):
        return self.hook(self.module, *args)


class _InPlaceOnly:
    """A post-hook whose return value, which could only be a mistake, is refused."""

    def __init__(self, hook):
        self.hook = hook

    def __call__(self, *args):
        if self.hook(*args) is not None:
            raise RuntimeError("state_dict post-hook must return None")


class StateMethods:
    """The state-dict half of :class:`~facula.nn.Module`."""

    _version = 1

    def _init_state_hooks(self):
        self._state_dict_hooks = OrderedDict()
        self._state_dict_pre_hooks = OrderedDict()
        self._load_state_dict_pre_hooks = OrderedDict()
        self._load_state_dict_post_hooks = OrderedDict()

    # Taking

    def get_extra_state(self):
        """Override, with :meth:`set_extra_state`, to keep more than tensors in the state."""
        raise RuntimeError(
            "Reached a code path in Module.get_extra_state() that should never be called."
        )

    def set_extra_state(self, state):
        """Override to restore what :meth:`get_extra_state` returned."""
        raise RuntimeError(
            "Reached a code path in Module.set_extra_state() that should never be called."
        )

    def _has_extra_state(self):
        return type(self).get_extra_state is not StateMethods.get_extra_state

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        """Write this module's own parameters and persistent buffers, not its children's."""
        for name, parameter in self._parameters.items():
            if parameter is not None:
                destination[prefix + name] = parameter if keep_vars else parameter.detach()
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._non_persistent_buffers_set:
                destination[prefix + name] = buffer if keep_vars else buffer.detach()
        if self._has_extra_state():
            destination[prefix + _EXTRA_STATE] = self.get_extra_state()

    def state_dict(self, *args, destination=None, prefix="", keep_vars=False):
        """All parameters and persistent buffers of this module and its children, by path.

        The tensors share storage with the module's; they are detached unless ``keep_vars``.
        ``prefix`` goes before every key.

        >>> from facula import nn
        >>> list(nn.Sequential(nn.Linear(2, 3), nn.ReLU()).state_dict())
        ['0.weight', '0.bias']
        """
        for name, value in zip(("destination", "prefix", "keep_vars"), args):
            if name == "destination":
                destination = value
            elif name == "prefix":
                prefix = value
            else:
                keep_vars = value
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        local_metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local_metadata
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(
                    destination=destination, prefix=prefix + name + ".", keep_vars=keep_vars
                )
        for hook in self._state_dict_hooks.values():
            replaced = hook(self, destination, prefix, local_metadata)
            if replaced is not None:
                destination = replaced
        return destination

    # Loading

    def _load_from_state_dict(
        self,
        state_dict,
        prefix,
        local_metadata,
        strict,
        missing_keys,
        unexpected_keys,
        error_msgs,
    ):
        """Copy this module's own entries in, and note what is missing, unexpected or misshapen."""
        for hook in self._load_state_dict_pre_hooks.values():
            hook(
                state_dict,
                prefix,
                local_metadata,
                strict,
                missing_keys,
                unexpected_keys,
                error_msgs,
            )
        assign = local_metadata.get("assign_to_params_buffers", False)
        own = {k: v for k, v in self._parameters.items() if v is not None}
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._non_persistent_buffers_set:
                own[name] = buffer
        for name, current in own.items():
            key = prefix + name
            if key in state_dict:
                self._load_entry(name, current, key, state_dict[key], assign, error_msgs)
            elif strict:
                missing_keys.append(key)

        extra_key = prefix + _EXTRA_STATE
        if self._has_extra_state():
            if extra_key in state_dict:
                self.set_extra_state(state_dict[extra_key])
            elif strict:
                missing_keys.append(extra_key)
        elif strict and extra_key in state_dict:
            unexpected_keys.append(extra_key)
        if strict:
            self._note_unexpected(state_dict, prefix, own, extra_key, unexpected_keys)

    def _note_unexpected(self, state_dict, prefix, own, extra_key, unexpected_keys):
        for key in state_dict:
            if key.startswith(prefix) and key != extra_key:
                name, dot, _ = key[len(prefix) :].partition(".")
                known = name in self._modules if dot else name in self._modules or name in own
                if not known:
                    unexpected_keys.append(key)

    def _load_entry(self, name, current, key, value, assign, error_msgs):
        """Copy one tensor in, or with ``assign`` put it in place of the current one."""
        if not isinstance(value, Tensor):
            error_msgs.append(
                f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like '
                f"object from checkpoint but received {type(value)}"
            )
            return
        if current.ndim == 0 and tuple(value.shape) == (1,):
            value = value[0]  # Files from before there were tensors of no dimension.
        if current.shape != value.shape:
            error_msgs.append(
                f"size mismatch for {key}: copying a param with shape {value.shape} from "
                f"checkpoint, the shape in current model is {current.shape}."
            )
            return
        try:
            with no_grad():
                if not assign:
                    current.copy_(value)
                elif isinstance(current, Parameter):
                    if not isinstance(value, Parameter):
                        value = Parameter(value, requires_grad=current.requires_grad)
                    else:
                        value.requires_grad_(current.requires_grad)
                    setattr(self, name, value)
                else:
                    setattr(self, name, value)
        except Exception as error:
            error_msgs.append(
                f'While {"assigning" if assign else "copying"} the parameter named "{key}", whose '
                f"dimensions in the model are {current.shape} and whose dimensions in the "
                f"checkpoint are {value.shape}, an exception occurred : {error.args}."
            )

    def _load_tree(self, state_dict, prefix, metadata, strict, assign, notes):
        """Load this module, then its children, then run the post-hooks, depth first."""
        missing, unexpected, errors = notes
        local_metadata = dict(metadata.get(prefix[:-1], {})) if metadata is not None else {}
        if assign:
            local_metadata["assign_to_params_buffers"] = True
        self._load_from_state_dict(
            state_dict, prefix, local_metadata, True, missing, unexpected, errors
        )
        for name, child in self._modules.items():
            if child is not None:
                below = prefix + name + "."
                entries = {k: v for k, v in state_dict.items() if k.startswith(below)}
                child._load_tree(entries, below, metadata, strict, assign, notes)
        incompatible = _IncompatibleKeys(missing, unexpected)
        for hook in self._load_state_dict_post_hooks.values():
            if hook(self, incompatible) is not None:
                raise RuntimeError(
                    "Hooks registered with ``register_load_state_dict_post_hook`` are not expected "
                    "to return new values, if incompatible_keys need to be modified, it should be "
                    "done inplace."
                )

    def load_state_dict(self, state_dict, strict=True, assign=False):
        """Copy the tensors of ``state_dict`` into this module and its children.

        Args:
            state_dict: a mapping from paths to tensors, as :meth:`state_dict` gives.
            strict: whether a missing or an unexpected key is an error.
            assign: put the given tensors in place of the module's, instead of copying into them;
                dtype then follows the file. Make the optimizer afterwards.

        Returns:
            A pair ``missing_keys, unexpected_keys``.

        Raises:
            RuntimeError: sizes differ, or ``strict`` and the keys do; it names all of them.
        """
        if not hasattr(state_dict, "items"):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        metadata = getattr(state_dict, "_metadata", None)
        state_dict = OrderedDict(state_dict)
        missing, unexpected, errors = [], [], []
        self._load_tree(
            state_dict, "", metadata, strict, assign, notes=(missing, unexpected, errors)
        )
        if strict:
            if unexpected:
                errors.insert(0, f"Unexpected key(s) in state_dict: {_quoted(unexpected)}. ")
            if missing:
                errors.insert(0, f"Missing key(s) in state_dict: {_quoted(missing)}. ")
        if errors:
            raise RuntimeError(
                f"Error(s) in loading state_dict for {type(self).__name__}:\n\t"
                + "\n\t".join(errors)
            )
        return _IncompatibleKeys(missing, unexpected)

    # Hooks

    def register_state_dict_pre_hook(self, hook):
        """Run ``hook(module, prefix, keep_vars)`` before the state dict is taken."""
        return _register(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook):
        """Run ``hook(module, state_dict, prefix, local_metadata)`` after the state dict is taken;
        it may change the state dict in place."""
        return _register(self._state_dict_hooks, _InPlaceOnly(hook))

    def _register_state_dict_hook(self, hook):
        return _register(self._state_dict_hooks, hook)

    def register_load_state_dict_pre_hook(self, hook):
        """Run ``hook(module, state_dict, prefix, local_metadata, strict, missing_keys,
        unexpected_keys, error_msgs)`` before this module's entries are loaded."""
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def _register_load_state_dict_pre_hook(self, hook, with_module=False):
        bound = _WithModule(hook, self) if with_module else hook
        return _register(self._load_state_dict_pre_hooks, bound)

    def register_load_state_dict_post_hook(self, hook):
        """Run ``hook(module, incompatible_keys)`` after this module and its children are loaded;
        it may change the two lists in place."""
        return _register(self._load_state_dict_post_hooks, hook)


def _quoted(keys):
    return ", ".join(f'"{key}"' for key in keys)
