"""L-BFGS: steps along a direction made of the last gradients, with or without a line search."""

from collections import namedtuple

from facula.optim.optimizer import Optimizer, check_range
from facula.tensor import cat, enable_grad, no_grad, zeros

__all__ = ["LBFGS"]

# A point of a line search: how far along, the loss there, its gradient, the slope along the line.
_Point = namedtuple("_Point", ["t", "loss", "grad", "slope"])


def _cubic_minimum(a, b, low=None, high=None):
    """Where the cubic through two points with their slopes is least, kept within [low, high].

    The bounds are the points themselves where left out; the middle where there is no minimum.
    """
    if low is None:
        low, high = min(a.t, b.t), max(a.t, b.t)
    if a.t > b.t:
        a, b = b, a
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if square < 0:
        return (low + high) / 2.0
    d2 = square**0.5
    t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2))
    return min(max(t, low), high)


class _StrongWolfe:
    """A line search for a point that is low enough and flat enough (Nocedal and Wright, 2006).

    Args:
        evaluate: ``t`` to a :class:`_Point`.
        start: the point at 0.
        width: the greatest component of the direction, by which steps are measured.
        tolerance: the shortest step worth making.
    """

    sufficient, curvature, max_iterations = 1e-4, 0.9, 25

    def __init__(self, evaluate, start, width, tolerance):
        self._evaluate = evaluate
        self.start = start
        self.width = width
        self.tolerance = tolerance
        self.evaluations = 0
        self.iteration = 0

    def evaluate(self, t):
        self.evaluations += 1
        return self._evaluate(t)

    def _too_high(self, point):
        start = self.start
        return point.loss > start.loss + self.sufficient * point.t * start.slope

    def _flat(self, point):
        return abs(point.slope) <= -self.curvature * self.start.slope

    def _bracket(self, t):
        """Step out from ``t``: one point that will do, or two with such a point between them."""
        previous, point = self.start, self.evaluate(t)
        while self.iteration < self.max_iterations:
            if self._too_high(point) or (self.iteration > 1 and point.loss >= previous.loss):
                return [previous, point]
            if self._flat(point):
                return [point]
            if point.slope >= 0:
                return [previous, point]
            nearest = point.t + 0.01 * (point.t - previous.t)
            t = _cubic_minimum(previous, point, nearest, point.t * 10)
            previous, point = point, self.evaluate(t)
            self.iteration += 1
        return [self.start, point]

    def _inside(self, bracket, stuck):
        """The next place to look, and whether it was close to an end.

        A minimum close to an end twice, or on it, is moved inwards by a tenth of the bracket.
        """
        left, right = min(p.t for p in bracket), max(p.t for p in bracket)
        t = _cubic_minimum(*bracket)
        margin = 0.1 * (right - left)
        if min(right - t, t - left) >= margin:
            return t, False
        if stuck or t >= right or t <= left:
            return (right - margin if abs(t - right) < abs(t - left) else left + margin), False
        return t, True

    def run(self, t):
        """The point found, starting with a step to ``t``."""
        bracket = self._bracket(t)
        if len(bracket) == 1:
            return bracket[0]
        stuck = False
        low, high = sorted(bracket, key=lambda point: point.loss)
        while self.iteration < self.max_iterations:
            if abs(high.t - low.t) * self.width < self.tolerance:
                break
            t, stuck = self._inside((low, high), stuck)
            point = self.evaluate(t)
            self.iteration += 1
            if self._too_high(point) or point.loss >= low.loss:
                low, high = (low, point) if low.loss <= point.loss else (point, low)
            elif self._flat(point):
                return point
            else:
                # The minimum is on the side to which the loss falls.
                if point.slope * (high.t - low.t) >= 0:
                    high = low
                low = point
        return low


class LBFGS(Optimizer):
    """Limited-memory BFGS (Liu and Nocedal, 1989). It has one group, and each step needs a closure.

    Args:
        params: parameters.
        lr: the length of a step, or the first one that the line search tries.
        max_iter: iterations a step.
        max_eval: calls of the closure a step; 1.25 times ``max_iter`` where left out.
        tolerance_grad: stop where no component of the gradient is greater.
        tolerance_change: stop where neither loss nor parameters change by more.
        history_size: how many gradients are remembered.
        line_search_fn: ``"strong_wolfe"`` or None.

    >>> from facula import nn, optim, zeros
    >>> x = nn.Parameter(zeros(2))
    >>> optimizer = optim.LBFGS([x], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = ((x - 3) ** 2).sum()
    ...     loss.backward()
    ...     return loss
    >>> _ = optimizer.step(closure)
    >>> [round(value, 3) for value in x.tolist()]
    [3.0, 3.0]
    """

    number_state = ()

    def __init__(
        self,
        params,
        lr=1,
        max_iter=20,
        max_eval=None,
        tolerance_grad=1e-7,
        tolerance_change=1e-9,
        history_size=100,
        line_search_fn=None,
    ):
        check_range("learning rate", lr)
        if line_search_fn not in (None, "strong_wolfe"):
            raise RuntimeError("only 'strong_wolfe' is supported")
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        self._params = self.param_groups[0]["params"]

    def _flat_gradient(self):
        parts = []
        for param in self._params:
            if param.grad is None:
                parts.append(zeros(param.numel(), dtype=param.dtype))
            else:
                parts.append(param.grad.reshape(-1))
        return cat(parts)

    def _move(self, direction, t):
        """Add ``t * direction`` to the parameters."""
        start = 0
        for param in self._params:
            end = start + param.numel()
            param.add_(direction[start:end].reshape(param.shape), alpha=t)
            start = end

    def _line_search(self, closure, origin, direction, start, t):
        """The point that the line search found; the parameters are moved there."""

        def put(t):
            for param, value in zip(self._params, origin):
                param.copy_(value)
            self._move(direction, t)

        def evaluate(t):
            put(t)
            loss = float(closure())
            gradient = self._flat_gradient()
            return _Point(t, loss, gradient, float(gradient.dot(direction)))

        width = float(direction.abs().max())
        search = _StrongWolfe(evaluate, start, width, tolerance=1e-9)
        point = search.run(t)
        put(point.t)
        return point, search.evaluations

    @no_grad()
    def step(self, closure):
        """Iterate until one of the limits is reached; returns the loss at the start.

        Args:
            closure: a function that clears the gradients, computes the loss, runs ``backward`` and
                returns the loss.
        """
        closure = enable_grad()(closure)
        group = self.param_groups[0]
        max_iter, tolerance_change = group["max_iter"], group["tolerance_change"]
        state = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)

        first_loss = closure()
        loss = float(first_loss)
        evaluations = 1
        state["func_evals"] += 1
        gradient = self._flat_gradient()
        if float(gradient.abs().max()) <= group["tolerance_grad"]:
            return first_loss

        history = _History(state, group["history_size"])
        for iteration in range(1, max_iter + 1):
            state["n_iter"] += 1
            direction = history.direction(gradient)
            history.prev_flat_grad, history.prev_loss = gradient, loss
            t = float(group["lr"])
            if state["n_iter"] == 1:
                t *= min(1.0, 1.0 / float(gradient.abs().sum()))
            history.t = t
            slope = float(gradient.dot(direction))
            if slope > -tolerance_change:
                break
            used = 0
            if group["line_search_fn"] is not None:
                origin = [param.clone() for param in self._params]
                start = _Point(0.0, loss, gradient, slope)
                point, used = self._line_search(closure, origin, direction, start, t)
                t, loss, gradient = point.t, point.loss, point.grad
                history.t = t
            else:
                self._move(direction, t)
                if iteration != max_iter:  # After the last one nobody asks for the loss.
                    loss = float(closure())
                    gradient = self._flat_gradient()
                    used = 1
            evaluations += used
            state["func_evals"] += used
            if (
                evaluations >= group["max_eval"]
                or float(gradient.abs().max()) <= group["tolerance_grad"]
                or float(direction.abs().max()) * abs(t) <= tolerance_change
                or abs(loss - history.prev_loss) < tolerance_change
            ):
                break
        history.save(state)
        return first_loss


class _History:
    """The last changes of gradient and parameters, from which directions are made."""

    def __init__(self, state, size):
        self.size = size
        self.d = state.get("d")
        self.t = state.get("t")
        self.old_dirs = state.get("old_dirs", [])
        self.old_stps = state.get("old_stps", [])
        self.ro = state.get("ro", [])
        self.H_diag = state.get("H_diag", 1)
        self.prev_flat_grad = state.get("prev_flat_grad")
        self.prev_loss = state.get("prev_loss")

    def save(self, state):
        """Write everything into ``state``, under PyTorch's names."""
        state.update({name: value for name, value in vars(self).items() if name != "size"})

    def _remember(self, gradient):
        change, step = gradient - self.prev_flat_grad, self.d * self.t
        curvature = float(change.dot(step))
        if curvature > 1e-10:
            if len(self.old_dirs) == self.size:
                for entries in (self.old_dirs, self.old_stps, self.ro):
                    entries.pop(0)
            self.old_dirs.append(change)
            self.old_stps.append(step)
            self.ro.append(1.0 / curvature)
            self.H_diag = curvature / float(change.dot(change))

    def direction(self, gradient):
        """Minus the gradient times the estimated inverse Hessian, by the two-loop recursion."""
        if self.prev_flat_grad is None:
            self.d = -gradient
            return self.d
        self._remember(gradient)
        pairs = list(zip(self.old_dirs, self.old_stps, self.ro))
        q = -gradient
        factors = []
        for change, step, inverse in reversed(pairs):
            factor = float(step.dot(q)) * inverse
            factors.append(factor)
            q = q - factor * change
        d = q * self.H_diag
        for (change, step, inverse), factor in zip(pairs, reversed(factors)):
            d = d + (factor - float(change.dot(d)) * inverse) * step
        self.d = d
        return d
