"""Recurrent layers and cells.

A layer in one direction is one op over the whole sequence (``library.recurrence``). Sequences of
several lengths run sorted from the longest to the shortest (a ``PackedSequence``), so that steps
have fewer and fewer rows. Only layers whose state is projected run step by step.
"""

import math

import facula.nn.functional as F
from facula.nn import init
from facula.nn.modules.module import Module
from facula.nn.parameter import Parameter
from facula.nn.utils.rnn import PackedSequence
from facula.tensor import (
    cat,
    empty,
    gru_cell,
    lstm_cell,
    rnn_relu_cell,
    rnn_tanh_cell,
    stack,
    zeros,
)

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]


def _projecting(data, state, weights, batch_sizes, first, reverse):
    """An LSTM whose hidden state is mapped to fewer dimensions (Sak, 2014), step by step."""
    w_ih, w_hh, b_ih, b_hh, w_hr = weights

    def step(projected, state):
        hidden, cell = state
        i, f, g, o = (projected + F.linear(hidden, w_hh, b_hh)).chunk(4, dim=-1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return F.linear(o.sigmoid() * cell.tanh(), w_hr), cell

    projected = F.linear(data, w_ih, b_ih)
    if batch_sizes is not None:
        outputs, final = _run(step, projected.split(batch_sizes.tolist()), state, reverse)
        return cat(outputs), final
    dim = 1 if first else 0
    outputs, final = _run(step, projected.unbind(dim), state, reverse)
    return stack(outputs, dim), final


def _run(step, inputs, state, reverse):
    """Run ``step(input, state) -> state`` over ``inputs``, a list of ``(rows, features)``.

    Rows never grow from one input to the next. Run forward, the state of a sequence that has ended
    is put aside; run in reverse, a sequence joins with its row of the initial ``state``.

    Returns:
        The first state of each step, in the order of ``inputs``, and the final state.
    """
    order = list(range(len(inputs)))
    if reverse:
        order.reverse()
    n_rows = inputs[order[0]].shape[0]
    active = tuple(part[:n_rows] for part in state) if n_rows < state[0].shape[0] else state
    ended = []
    outputs = [None] * len(inputs)
    for t in order:
        rows, previous = inputs[t].shape[0], active[0].shape[0]
        if rows < previous:
            ended.append(tuple(part[rows:] for part in active))
            active = tuple(part[:rows] for part in active)
        elif rows > previous:
            joining = (part[previous:rows] for part in state)
            active = tuple(cat([old, new]) for old, new in zip(active, joining))
        active = step(inputs[t], active)
        outputs[t] = active[0]
    if ended:
        # Whoever ended first stands last in the batch.
        active = tuple(cat(parts) for parts in zip(active, *reversed(ended)))
    return outputs, active


class RNNBase(Module):
    """What RNN, LSTM and GRU share: their weights, and the walk over layers and directions.

    A subclass gives ``n_gates`` and ``_cell()``. The state is a tuple with the hidden state first.
    """

    n_gates: int

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        bias=True,
        batch_first=False,
        dropout=0.0,
        bidirectional=False,
        proj_size=0,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if isinstance(dropout, bool) or not 0 <= dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an "
                "element being zeroed"
            )
        if hidden_size <= 0:
            raise ValueError("hidden_size must be greater than zero")
        if num_layers <= 0:
            raise ValueError("num_layers must be greater than zero")
        if proj_size < 0:
            raise ValueError(
                "proj_size should be a positive integer or zero to disable projections"
            )
        if proj_size >= hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._weight_names = []
        for layer in range(num_layers):
            for direction in range(self._n_directions):
                self._add_weights(layer, direction, {"device": device, "dtype": dtype})
        self.reset_parameters()

    @property
    def _n_directions(self):
        return 2 if self.bidirectional else 1

    @property
    def _output_size(self):
        return self.proj_size or self.hidden_size

    def _add_weights(self, layer, direction, place):
        gates = self.n_gates * self.hidden_size
        n_inputs = self.input_size if layer == 0 else self._output_size * self._n_directions
        shapes = {"weight_ih": (gates, n_inputs), "weight_hh": (gates, self._output_size)}
        if self.bias:
            shapes.update(bias_ih=(gates,), bias_hh=(gates,))
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        suffix = f"_l{layer}" + ("_reverse" if direction else "")
        for name, shape in shapes.items():
            self.register_parameter(name + suffix, Parameter(empty(shape, **place)))
        self._weight_names.append([name + suffix for name in shapes])

    @property
    def all_weights(self):
        """The weights of each layer and direction, a list of lists."""
        return [[getattr(self, name) for name in names] for names in self._weight_names]

    def flatten_parameters(self):
        """Do nothing: the weights need not lie side by side here."""

    def reset_parameters(self):
        """Draw the weights anew, uniform within ``1 / sqrt(hidden_size)``."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _weights(self, names):
        """weight_ih, weight_hh, bias_ih, bias_hh[, weight_hr]."""
        weights = [getattr(self, name) for name in names]
        if not self.bias:
            weights[2:2] = [None, None]
        return weights

    def _cell(self):
        """The name of the cell's arithmetic."""
        raise NotImplementedError

    def _state_sizes(self):
        """The size of each part of the state."""
        return (self._output_size,)

    def _initial_state(self, hx, n_rows, like):
        """The state of all layers and directions: a tuple of ``(layers * directions, N, size)``."""
        n = self.num_layers * self._n_directions
        if hx is None:
            return tuple(
                zeros(n, n_rows, size, dtype=like.dtype, device=like.device)
                for size in self._state_sizes()
            )
        for i, (part, size) in enumerate(zip(hx, self._state_sizes())):
            if tuple(part.shape) != (n, n_rows, size):
                which = f"hidden[{i}]" if len(hx) > 1 else "hidden"
                raise RuntimeError(
                    f"Expected {which} size {(n, n_rows, size)}, got {list(part.shape)}"
                )
        return hx

    def _one_way(self, data, state, names, batch_sizes, first, reverse):
        """The outputs of one layer in one direction, and its final state."""
        weights = self._weights(names)
        if self.proj_size:
            return _projecting(data, state, weights, batch_sizes, first, reverse)
        outputs, *final = F.recurrent(
            data, state, *weights, batch_sizes, self._cell(), reverse, first
        )
        return outputs, final

    def _run_layers(self, data, batch_sizes, first, state):
        """All layers on ``data``, packed unless ``batch_sizes`` is None."""
        finals = []
        starts = list(zip(*(part.unbind(0) for part in state)))
        for layer in range(self.num_layers):
            if layer > 0 and self.dropout > 0:
                data = F.dropout(data, self.dropout, self.training)
            ways = []
            for direction in range(self._n_directions):
                i = layer * self._n_directions + direction
                names = self._weight_names[i]
                way = self._one_way(data, starts[i], names, batch_sizes, first, direction == 1)
                ways.append(way[0])
                finals.append(way[1])
            data = ways[0] if len(ways) == 1 else cat(ways, dim=-1)
        if len(finals) == 1:
            return data, tuple(part.unsqueeze(0) for part in finals[0])
        return data, tuple(stack(parts) for parts in zip(*finals))

    def _check_input(self, input):
        if input.ndim not in (2, 3):
            raise ValueError(
                f"{self._get_name()}: Expected input to be 2D or 3D, got {input.ndim}D instead"
            )
        self._check_features(input)

    def _check_features(self, data):
        if data.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, "
                f"got {data.shape[-1]}"
            )

    def _forward_packed(self, packed, hx):
        data, batch_sizes, sorted_indices, unsorted_indices = packed
        self._check_features(data)
        if hx is not None and sorted_indices is not None:
            hx = tuple(part.index_select(1, sorted_indices) for part in hx)
        state = self._initial_state(hx, int(batch_sizes[0]), data)
        data, state = self._run_layers(data, batch_sizes, False, state)
        if unsorted_indices is not None:
            state = tuple(part.index_select(1, unsorted_indices) for part in state)
        return PackedSequence(data, batch_sizes, sorted_indices, unsorted_indices), state

    def _forward_state(self, input, hx):
        """The output and the final state, both as the caller shaped ``input``."""
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        self._check_input(input)
        batched = input.ndim == 3
        if hx is not None and any(part.ndim != input.ndim for part in hx):
            given = ", ".join(f"{part.ndim}-D" for part in hx)
            names = "hx and cx" if len(hx) > 1 else "hx"
            raise RuntimeError(
                f"For {'batched 3-D' if batched else 'unbatched 2-D'} input, {names} should also "
                f"be {input.ndim}-D but got ({given}) tensors"
            )
        data = input
        if not batched:
            data = data.unsqueeze(1)
            hx = None if hx is None else tuple(part.unsqueeze(1) for part in hx)
        first = self.batch_first and batched
        if data.shape[1 if first else 0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        state = self._initial_state(hx, data.shape[0 if first else 1], data)
        data, state = self._run_layers(data, None, first, state)
        if not batched:
            return data.squeeze(1), tuple(part.squeeze(1) for part in state)
        return data, state

    def forward(self, input, hx=None):
        output, state = self._forward_state(input, None if hx is None else (hx,))
        return output, state[0]

    def extra_repr(self):
        text = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size != 0:
            text += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        if self.batch_first is not False:
            text += f", batch_first={self.batch_first}"
        if self.dropout != 0:
            text += f", dropout={self.dropout}"
        if self.bidirectional is not False:
            text += f", bidirectional={self.bidirectional}"
        return text


def _check_nonlinearity(nonlinearity):
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")


class RNN(RNNBase):
    """``h[t] = tanh(x[t] @ w_ih.T + b_ih + h[t-1] @ w_hh.T + b_hh)`` (Elman, 1990).

    Args:
        input_size, hidden_size: sizes of x and h.
        num_layers: how many are stacked, each reading the outputs of the one below.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        bias: whether there are biases.
        batch_first: whether input and output are ``(N, L, *)`` instead of ``(L, N, *)``.
        dropout: its probability between layers.
        bidirectional: whether a second one runs from the end; outputs stand side by side.

    Shapes:
        input ``(L, N, input_size)`` or ``(L, input_size)`` or a ``PackedSequence``; hx, zeros where
        left out, ``(num_layers * directions, N, hidden_size)``. Returns the outputs
        ``(L, N, directions * hidden_size)`` and the last h, shaped as hx.

    >>> from facula import nn, randn
    >>> output, h = nn.RNN(10, 20, 2)(randn(5, 3, 10))
    >>> tuple(output.shape), tuple(h.shape)
    ((5, 3, 20), (2, 3, 20))
    """

    n_gates = 1

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        nonlinearity="tanh",
        bias=True,
        batch_first=False,
        dropout=0.0,
        bidirectional=False,
        device=None,
        dtype=None,
    ):
        _check_nonlinearity(nonlinearity)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )
        self.nonlinearity = nonlinearity

    def _cell(self):
        return f"rnn_{self.nonlinearity}"


class GRU(RNNBase):
    """Gated recurrent units (Cho, 2014). Arguments and shapes are :class:`RNN`'s, less
    ``nonlinearity``; the gates are in the order reset, update, new.

    >>> from facula import nn, randn
    >>> output, h = nn.GRU(10, 20, batch_first=True)(randn(3, 5, 10))
    >>> tuple(output.shape), tuple(h.shape)
    ((3, 5, 20), (1, 3, 20))
    """

    n_gates = 3

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        bias=True,
        batch_first=False,
        dropout=0.0,
        bidirectional=False,
        device=None,
        dtype=None,
    ):
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )

    def _cell(self):
        return "gru"


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter, 1997). Arguments and shapes are :class:`RNN`'s, less
    ``nonlinearity``; the state is a pair (h, c) and the gates are in the order input, forget, cell,
    output. With ``proj_size`` h is mapped to that many dimensions.

    >>> from facula import nn, randn
    >>> output, (h, c) = nn.LSTM(10, 20, bidirectional=True)(randn(5, 3, 10))
    >>> tuple(output.shape), tuple(c.shape)
    ((5, 3, 40), (2, 3, 20))
    """

    n_gates = 4

    def _cell(self):
        return "lstm"

    def _state_sizes(self):
        return self._output_size, self.hidden_size

    def forward(self, input, hx=None):
        return self._forward_state(input, None if hx is None else tuple(hx))


class RNNCellBase(Module):
    """What the cells share: weights, and inputs with or without a batch."""

    n_gates: int

    def __init__(self, input_size, hidden_size, bias=True, device=None, dtype=None):
        super().__init__()
        place = {"device": device, "dtype": dtype}
        gates = self.n_gates * hidden_size
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        self.weight_ih = Parameter(empty(gates, input_size, **place))
        self.weight_hh = Parameter(empty(gates, hidden_size, **place))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(empty(gates, **place)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the weights anew, uniform within ``1 / sqrt(hidden_size)``."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _weights(self):
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def _batched(self, input, state, n_parts):
        """Input and state as matrices, the state zeros where it is None."""
        if input.ndim not in (1, 2):
            raise ValueError(
                f"{self._get_name()}: Expected input to be 1D or 2D, got {input.ndim}D instead"
            )
        for part in state or ():
            if part.ndim not in (1, 2):
                raise ValueError(
                    f"{self._get_name()}: Expected hidden to be 1D or 2D, got {part.ndim}D instead"
                )
        if input.ndim == 1:
            input = input.unsqueeze(0)
            state = None if state is None else tuple(part.unsqueeze(0) for part in state)
        if state is None:
            blank = zeros(input.shape[0], self.hidden_size, dtype=input.dtype, device=input.device)
            state = (blank,) * n_parts
        return input, state

    def extra_repr(self):
        text = f"{self.input_size}, {self.hidden_size}"
        return text if self.bias is True else text + f", bias={self.bias}"


class RNNCell(RNNCellBase):
    """One step of :class:`RNN`: input ``(N, input_size)`` and h ``(N, hidden_size)`` to h.

    >>> from facula import nn, randn
    >>> tuple(nn.RNNCell(10, 20)(randn(3, 10)).shape)
    (3, 20)
    """

    n_gates = 1

    def __init__(
        self, input_size, hidden_size, bias=True, nonlinearity="tanh", device=None, dtype=None
    ):
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input, hx=None):
        single = input.ndim == 1
        input, (hidden,) = self._batched(input, None if hx is None else (hx,), 1)
        _check_nonlinearity(self.nonlinearity)
        cell = rnn_tanh_cell if self.nonlinearity == "tanh" else rnn_relu_cell
        hidden = cell(input, hidden, *self._weights())
        return hidden.squeeze(0) if single else hidden

    def extra_repr(self):
        text = super().extra_repr()
        return text if self.nonlinearity == "tanh" else text + f", nonlinearity={self.nonlinearity}"


class GRUCell(RNNCellBase):
    """One step of :class:`GRU`: input ``(N, input_size)`` and h ``(N, hidden_size)`` to h."""

    n_gates = 3

    def forward(self, input, hx=None):
        single = input.ndim == 1
        input, (hidden,) = self._batched(input, None if hx is None else (hx,), 1)
        hidden = gru_cell(input, hidden, *self._weights())
        return hidden.squeeze(0) if single else hidden


class LSTMCell(RNNCellBase):
    """One step of :class:`LSTM`: input ``(N, input_size)`` and a pair (h, c) to a pair (h, c)."""

    n_gates = 4

    def forward(self, input, hx=None):
        single = input.ndim == 1
        input, state = self._batched(input, None if hx is None else tuple(hx), 2)
        hidden, cell = lstm_cell(input, state, *self._weights())
        return (hidden.squeeze(0), cell.squeeze(0)) if single else (hidden, cell)
