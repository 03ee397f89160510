"""``Optimizer``: parameter groups, state, state dicts and hooks; a subclass adds the update."""

import functools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Iterable

from facula.base.changes import Watched, count
from facula.eager.grad_mode import refuse
from facula.nn.modules._hooks import _register
from facula.optim._fused import apply, outside
from facula.tensor import Tensor, enable_grad, float32, no_grad, tensor

__all__ = [
    "Optimizer",
    "register_optimizer_step_post_hook",
    "register_optimizer_step_pre_hook",
]


class _Required:
    def __repr__(self):
        return "<required parameter>"


required = _Required()

_global_pre_hooks = OrderedDict()
_global_post_hooks = OrderedDict()


def register_optimizer_step_pre_hook(hook):
    """Run ``hook(optimizer, args, kwargs)`` before every optimizer's step."""
    return _register(_global_pre_hooks, hook)


def register_optimizer_step_post_hook(hook):
    """Run ``hook(optimizer, args, kwargs)`` after every optimizer's step."""
    return _register(_global_post_hooks, hook)


def _hooked(step):
    """``step`` with the hooks around it, and a note that it ran, for learning-rate schedulers."""

    @functools.wraps(step)
    def wrapper(self, *args, **kwargs):
        self._opt_called = True
        own = self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks
        if any((*own, _global_pre_hooks, _global_post_hooks)):
            refuse("calls hooks of an optimizer's step")
        for hook in (*_global_pre_hooks.values(), *self._optimizer_step_pre_hooks.values()):
            changed = hook(self, args, kwargs)
            if changed is not None:
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise RuntimeError(
                        f"{step} must return None or a tuple of (new_args, new_kwargs), "
                        f"but got {changed}."
                    )
                args, kwargs = changed
        result = step(self, *args, **kwargs)
        for hook in (*self._optimizer_step_post_hooks.values(), *_global_post_hooks.values()):
            hook(self, args, kwargs)
        return result

    return wrapper


def check_range(what, value, low=0.0, high=None):
    """Raise ValueError unless ``low <= value`` and, where there is a ``high``, ``value < high``."""
    if not (low <= value and (high is None or value < high)):
        raise ValueError(f"Invalid {what}: {value}")


def check_betas(betas):
    """Raise ValueError unless both decay rates are in [0, 1)."""
    for i, beta in enumerate(betas):
        check_range(f"beta parameter at index {i}", beta, high=1.0)


def _refuse_differentiable(name, defaults):
    if defaults.get("differentiable"):
        raise NotImplementedError(
            f"{name}: differentiable=True, a step with a gradient of its own, is not supported; "
            "hint: write the update out, or use facula.compile on a function of the parameters"
        )
    if defaults.get("foreach") and defaults.get("fused"):
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")


def _bucket(params, states, names):
    """States, and the lists of tensors ``(params, grads, *state)``, of some parameters."""
    columns = [[state[name] for state in states] for name in names]
    return states, (params, [param.grad for param in params], *columns)


class Optimizer:
    """Base of all optimizers.

    Args:
        params: an iterable of parameters, of ``(name, parameter)`` pairs, or of dicts, one a
            group, with ``"params"`` and the options in which the group differs.
        defaults: the options of groups that do not say otherwise.

    A subclass names in ``number_state`` the entries of a parameter's state that are numbers: Python
    numbers here, float32 tensors of no dimension in state dicts. It has a ``rule``, and defines
    :meth:`_new_state`, :meth:`_names` and :meth:`_numbers`.
    """

    number_state = ("step",)
    rule = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _hooked(cls.step)

    def __init__(self, params, defaults):
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, "
                f"but got {type(params).__name__}"
            )
        _refuse_differentiable(type(self).__name__, defaults)
        self.defaults = defaults
        self.state = defaultdict(Watched)
        self.param_groups = []
        self._init_hooks()
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _init_hooks(self):
        self._optimizer_step_pre_hooks = OrderedDict()
        self._optimizer_step_post_hooks = OrderedDict()
        self._optimizer_state_dict_pre_hooks = OrderedDict()
        self._optimizer_state_dict_post_hooks = OrderedDict()
        self._optimizer_load_state_dict_pre_hooks = OrderedDict()
        self._optimizer_load_state_dict_post_hooks = OrderedDict()

    def __getstate__(self):
        state = {param: dict(entries) for param, entries in self.state.items()}
        return {"defaults": self.defaults, "state": state, "param_groups": self.param_groups}

    def __setstate__(self, state):
        self.__dict__.update(state)
        watched = {param: Watched(entries) for param, entries in self.state.items()}
        self.state = defaultdict(Watched, watched)
        count.changes += 1
        if "_optimizer_step_pre_hooks" not in self.__dict__:
            self._init_hooks()
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    def __repr__(self):
        lines = [type(self).__name__ + " ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
            lines.append("")
        lines[-1] = ")"
        return "\n".join(lines)

    # Groups

    def add_param_group(self, param_group):
        """Add a group: a dict with ``"params"`` and the options in which it differs.

        Raises:
            TypeError: the parameters are no ordered collection of tensors.
            ValueError: one is no leaf, is in another group, or a required option is missing.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        group = dict(param_group)
        params = group["params"]
        if isinstance(params, Tensor):
            params = [params]
        elif isinstance(params, set) or not isinstance(params, Iterable):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the "
                "ordering of tensors in sets will change between runs. Please use a list instead."
            )
        params = list(params)
        named = [isinstance(param, tuple) for param in params]
        if any(named):
            if not all(named):
                raise ValueError(
                    "all optimizer params should be with/without names. Some param names are "
                    "missing"
                )
            group["param_names"] = [name for name, _ in params]
            params = [param for _, param in params]
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(
                    "optimizer can only optimize Tensors, but one of the params is "
                    + type(param).__name__
                )
            if not (param.is_leaf or param.retains_grad):
                raise ValueError("can't optimize a non-leaf Tensor")
        group["params"] = params
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise ValueError(
                    "parameter group didn't specify a value of required optimization parameter "
                    + name
                )
            group.setdefault(name, default)
        self._check_unique(group)
        self.param_groups.append(group)
        count.changes += 1

    def _check_unique(self, group):
        ids = [id(param) for param in group["params"]]
        if len(ids) != len(set(ids)):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; in future, this "
                "will cause an error; see github.com/pytorch/pytorch/issues/40967 for more "
                "information",
                stacklevel=4,
            )
        taken = {id(param) for other in self.param_groups for param in other["params"]}
        if not taken.isdisjoint(ids):
            raise ValueError("some parameters appear in more than one parameter group")
        if self.param_groups and ("param_names" in group) != (
            "param_names" in self.param_groups[0]
        ):
            raise ValueError("all optimizer param groups should be with/without names.")

    def zero_grad(self, set_to_none=True):
        """Drop all parameters' gradients, or with ``set_to_none=False`` fill them with zeros."""
        for group in self.param_groups:
            for param in group["params"]:
                if set_to_none:
                    param.grad = None
                elif param.grad is not None:
                    param.grad.detach_()
                    param.grad.zero_()

    # The step

    def step(self, closure=None):
        """Update the parameters that have a gradient.

        Args:
            closure: a function that clears the gradients, computes the loss, runs ``backward`` and
                returns the loss; it is called first.

        Returns:
            What ``closure`` returned, or None.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                self._update(group)
        return loss

    def _new_state(self, param, group):
        """The state of a parameter that is about to be updated for the first time."""
        return {"step": 0}

    def _names(self, group):
        """The tensors in the state of a parameter that the rule takes, by name."""
        return ()

    def _numbers(self, group, state):
        """The numbers of the next step; a captured step reads them anew each time.

        Args:
            state: that of one parameter. Nothing is changed.

        Returns:
            The rule's scalars, its flags, and what changes in the state's numbers, as dicts.
        """
        raise NotImplementedError

    def _update(self, group):
        """Update the parameters of one group."""
        for states, tensors in self._buckets(group, self._names(group)):
            apply(self.rule, tensors, functools.partial(self._numbers, group, states[0]), states)

    def _buckets(self, group, names):
        """The parameters that have gradients, those whose numbers are equal together.

        Numbers, such as the count of steps, are arguments of the rule and so must be the same for
        all parameters of one application.

        Returns:
            A list with, for each bucket, the states (dicts) and the tensors
            ``(params, grads, *state)``, a list for each of ``names`` at the end.
        """
        live = [param for param in group["params"] if param.grad is not None]
        states = [self.state[param] for param in live]
        if not all(states):
            with outside():
                for param, state in zip(live, states):
                    if not state:
                        state.update(self._new_state(param, group))
        keys = [tuple([state[name] for name in self.number_state]) for state in states]
        if keys and keys.count(keys[0]) == len(keys):
            return [_bucket(live, states, names)]
        buckets = {}
        for key, param, state in zip(keys, live, states):
            params, entries = buckets.setdefault(key, ([], []))
            params.append(param)
            entries.append(state)
        return [_bucket(params, entries, names) for params, entries in buckets.values()]

    # State dicts

    def state_dict(self):
        """The state as a dict of plain containers, numbers and tensors.

        Returns:
            ``{"state": {index: {name: tensor}}, "param_groups": [{option: value, "params":
            [index]}]}``, parameters numbered in the order of the groups.
        """
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        indices = {}
        groups = []
        for group in self.param_groups:
            for param in group["params"]:
                indices.setdefault(id(param), len(indices))
            packed = {key: value for key, value in group.items() if key != "params"}
            packed["params"] = [indices[id(param)] for param in group["params"]]
            groups.append(packed)
        state = {
            indices[id(param)]: self._packed(entries)
            for param, entries in self.state.items()
            if id(param) in indices
        }
        result = {"state": state, "param_groups": groups}
        for hook in self._optimizer_state_dict_post_hooks.values():
            replaced = hook(self, result)
            if replaced is not None:
                result = replaced
        return result

    def _packed(self, entries):
        packed = dict(entries)
        for name in self.number_state:
            if name in packed:
                packed[name] = tensor(float(packed[name]), dtype=float32)
        return packed

    def load_state_dict(self, state_dict):
        """Take over the state and options of ``state_dict``; tensors are copied.

        Raises:
            ValueError: the groups differ in number or size.
        """
        state_dict = dict(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            replaced = hook(self, state_dict)
            if replaced is not None:
                state_dict = replaced
        saved_groups = state_dict["param_groups"]
        if len(saved_groups) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        params = {}
        for group, saved in zip(self.param_groups, saved_groups):
            if len(group["params"]) != len(saved["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of "
                    "optimizer's group"
                )
            params.update(zip(saved["params"], group["params"]))
        state = defaultdict(Watched)
        for index, entries in state_dict["state"].items():
            if index in params:
                param = params[index]
                state[param] = Watched(
                    (name, self._unpacked(name, value, param)) for name, value in entries.items()
                )
        groups = []
        for group, saved in zip(self.param_groups, saved_groups):
            loaded = {key: value for key, value in saved.items() if key != "params"}
            if "param_names" in group:
                loaded["param_names"] = group["param_names"]
            groups.append({**loaded, "params": group["params"]})
        self.__setstate__({"state": state, "param_groups": groups})
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def _unpacked(self, name, value, param):
        if name in self.number_state:
            number = float(value)
            return int(number) if name == "step" else number
        if isinstance(value, Tensor):
            value = value.detach().clone()
            if param.is_floating_point():
                return value.to(dtype=param.dtype, device=param.device)
            return value
        if isinstance(value, list):
            return [self._unpacked(name, entry, param) for entry in value]
        return value

    # Hooks

    def register_step_pre_hook(self, hook):
        """Run ``hook(optimizer, args, kwargs)`` before each step; what it returns, unless None,
        replaces ``(args, kwargs)``."""
        return _register(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook):
        """Run ``hook(optimizer, args, kwargs)`` after each step."""
        return _register(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook, prepend=False):
        """Run ``hook(optimizer)`` before the state dict is taken."""
        return _register(self._optimizer_state_dict_pre_hooks, hook, prepend=prepend)

    def register_state_dict_post_hook(self, hook, prepend=False):
        """Run ``hook(optimizer, state_dict)`` after; what it returns, unless None, is taken."""
        return _register(self._optimizer_state_dict_post_hooks, hook, prepend=prepend)

    def register_load_state_dict_pre_hook(self, hook, prepend=False):
        """Run ``hook(optimizer, state_dict)`` before loading; its result may replace the dict."""
        return _register(self._optimizer_load_state_dict_pre_hooks, hook, prepend=prepend)

    def register_load_state_dict_post_hook(self, hook, prepend=False):
        """Run ``hook(optimizer)`` after loading."""
        return _register(self._optimizer_load_state_dict_post_hooks, hook, prepend=prepend)


Optimizer.step = _hooked(Optimizer.step)
