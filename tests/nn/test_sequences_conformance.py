"""Recurrent layers, attention and transformers against PyTorch's."""

from __future__ import annotations

import pytest

import facula
from facula import nn
from facula.eager import engine
from tests.nn.against import (
    assert_close,
    assert_same_layout,
    assert_same_module,
    copy_weights,
    to_facula,
    weighted_sum,
)

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.conformance

RECURRENT = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu", "num_layers": 2}),
    ("GRU", {}),
    ("GRU", {"bidirectional": True, "bias": False}),
    ("LSTM", {}),
    ("LSTM", {"num_layers": 2, "batch_first": True}),
    ("LSTM", {"bidirectional": True, "num_layers": 2}),
    ("LSTM", {"proj_size": 2, "bidirectional": True}),
]


def pair(name, *args, **options):
    """The same module here and in PyTorch, with the same weights."""
    torch.manual_seed(0)
    theirs, ours = getattr(torch.nn, name)(*args, **options), getattr(nn, name)(*args, **options)
    assert_same_layout(ours, theirs)
    copy_weights(ours, theirs)
    return ours, theirs


def initial_state(theirs, n_rows):
    n = theirs.num_layers * (2 if theirs.bidirectional else 1)
    hidden = torch.randn(n, n_rows, getattr(theirs, "proj_size", 0) or theirs.hidden_size)
    if not isinstance(theirs, torch.nn.LSTM):
        return hidden
    return hidden, torch.randn(n, n_rows, theirs.hidden_size)


@pytest.mark.parametrize("given_state", [False, True])
@pytest.mark.parametrize("name, options", RECURRENT, ids=str)
def test_recurrent_layer(name, options, given_state):
    ours, theirs = pair(name, 3, 4, **options)
    assert repr(ours) == repr(theirs)
    inputs = (torch.randn(5, 2, 3, requires_grad=True),)
    if given_state:
        inputs += (initial_state(theirs, 5 if options.get("batch_first") else 2),)
    assert_same_module(ours, theirs, inputs)


@pytest.mark.parametrize("name, options", RECURRENT, ids=str)
def test_recurrent_layer_without_batch(name, options):
    ours, theirs = pair(name, 3, 4, **options)
    assert_same_module(ours, theirs, (torch.randn(5, 3, requires_grad=True),))


@pytest.mark.parametrize("given_state", [False, True])
@pytest.mark.parametrize("enforce_sorted", [False, True])
@pytest.mark.parametrize("name, options", RECURRENT, ids=str)
def test_packed_sequences(name, options, enforce_sorted, given_state):
    ours, theirs = pair(name, 3, 4, **options)
    first = bool(options.get("batch_first"))
    x = torch.randn((3, 6, 3) if first else (6, 3, 3), requires_grad=True)
    lengths = [6, 4, 1] if enforce_sorted else [4, 1, 6]
    state = (initial_state(theirs, 3),) if given_state else ()

    def run(module, library, x, state):
        packed = library.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=first, enforce_sorted=enforce_sorted
        )
        output, final = module(packed, *state)
        padded, found = library.utils.rnn.pad_packed_sequence(
            output, batch_first=first, padding_value=0.5, total_length=7
        )
        weighted_sum([padded, final]).backward()
        return padded, found, final

    mine = to_facula(x)
    assert_close(run(ours, nn, mine, to_facula(state)), run(theirs, torch.nn, x, state))
    assert_close(mine.grad, x.grad, 1e-4)


@pytest.mark.parametrize("name", ["RNNCell", "GRUCell", "LSTMCell"])
@pytest.mark.parametrize("shape", [(2, 3), (3,)], ids=str)
def test_cells(name, shape):
    ours, theirs = pair(name, 3, 4)
    assert repr(ours) == repr(theirs)
    assert_same_module(ours, theirs, (torch.randn(shape, requires_grad=True),))
    hidden = torch.randn(*shape[:-1], 4)
    state = (hidden, torch.randn(*shape[:-1], 4)) if name == "LSTMCell" else hidden
    assert_same_module(ours, theirs, (torch.randn(shape, requires_grad=True), state))


def test_sequence_helpers():
    torch.manual_seed(0)
    rows = [torch.randn(n, 2) for n in (2, 5, 3)]
    mine = [to_facula(row) for row in rows]
    helpers, reference = nn.utils.rnn, torch.nn.utils.rnn
    for options in ({}, {"batch_first": True, "padding_value": 2.0}, {"padding_side": "left"}):
        assert_close(helpers.pad_sequence(mine, **options), reference.pad_sequence(rows, **options))
    packed = helpers.pack_sequence(mine, enforce_sorted=False)
    assert_close(list(packed), list(reference.pack_sequence(rows, enforce_sorted=False)))
    assert_close(helpers.unpack_sequence(packed), rows)


ATTENTION = [
    {},
    {"batch_first": True, "bias": False},
    {"kdim": 3, "vdim": 5},
    {"add_bias_kv": True, "add_zero_attn": True},
]


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("options", ATTENTION, ids=str)
def test_attention(options, need_weights):
    ours, theirs = pair("MultiheadAttention", 8, 2, **options)
    sizes = (8, options.get("kdim", 8), options.get("vdim", 8))
    shapes = [(4, 2), (6, 2), (6, 2)]
    if options.get("batch_first"):
        shapes = [shape[::-1] for shape in shapes]
    inputs = tuple(
        torch.randn(*shape, size, requires_grad=True) for shape, size in zip(shapes, sizes)
    )
    padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    causal = torch.triu(torch.ones(4, 6, dtype=torch.bool), diagonal=3)
    assert_same_module(ours, theirs, (*inputs, None, need_weights))
    assert_same_module(ours, theirs, (*inputs, padding, need_weights, causal, False))


def test_attention_per_head_mask_and_no_batch():
    ours, theirs = pair("MultiheadAttention", 8, 2)
    x = torch.randn(5, 2, 8, requires_grad=True)
    mask = torch.randn(4, 5, 5)
    assert_same_module(ours, theirs, (x, x, x, None, True, mask))
    x = torch.randn(5, 8, requires_grad=True)
    assert_same_module(ours, theirs, (x, x, x))


@pytest.mark.parametrize("options", [{}, {"norm_first": True, "activation": "gelu"}], ids=str)
@pytest.mark.parametrize("name", ["TransformerEncoderLayer", "TransformerDecoderLayer"])
def test_transformer_layers(name, options):
    ours, theirs = pair(name, 8, 2, 16, dropout=0.0, batch_first=True, **options)
    assert repr(ours) == repr(theirs).replace("NonDynamicallyQuantizableLinear", "Linear")
    inputs = [torch.randn(2, 5, 8, requires_grad=True)]
    if "Decoder" in name:
        inputs.append(torch.randn(2, 3, 8, requires_grad=True))
    assert_same_module(ours, theirs, tuple(inputs))
    mask = torch.nn.Transformer.generate_square_subsequent_mask(5)
    assert_same_module(ours, theirs, (*inputs, mask))


def test_transformer():
    options = {"num_encoder_layers": 1, "num_decoder_layers": 2, "dim_feedforward": 16}
    ours, theirs = pair("Transformer", 8, 2, dropout=0.0, **options)
    src = torch.randn(5, 2, 8, requires_grad=True)
    tgt = torch.randn(3, 2, 8, requires_grad=True)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(3)
    assert_same_module(ours, theirs, (src, tgt, None, mask))
    assert_close(nn.Transformer.generate_square_subsequent_mask(3), mask)


def test_more_steps_and_rows_compile_nothing():
    ours = nn.LSTM(3, 5, batch_first=True)

    def run(rows, steps):
        ours(to_facula(torch.randn(rows, steps, 3, requires_grad=True)))[0].sum().backward()

    for rows in (2, 9, 40, 80):  # Few rows, and many, have kernels of their own.
        run(rows, 4)
    before = engine.compiled_kernels
    for rows, steps in ((2, 30), (41, 5), (10, 7), (64, 2)):
        run(rows, steps)
    assert engine.compiled_kernels == before


def test_captured_and_eager_have_the_same_bits():
    ours = nn.GRU(3, 5, 2, bidirectional=True)
    x = to_facula(torch.randn(4, 3, 3))
    captured = facula.compile(lambda x: ours(x)[0], fullgraph=True)
    for rows in (x, x[:, :2], x[:3]):
        assert captured(rows).tolist() == ours(rows)[0].tolist()


def test_second_derivatives():
    ours, theirs = pair("GRU", 3, 4, num_layers=2)
    theirs.double(), ours.double()

    def second(library, module, x):
        (g,) = library.autograd.grad(module(x)[0].sin().sum(), x, create_graph=True)
        return library.autograd.grad((g * g).sum(), [x, *module.parameters()])

    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    mine = facula.from_numpy(x.detach().numpy()).requires_grad_()
    assert_close(second(facula, ours, mine), second(torch, theirs, x), 1e-9)


def test_batch_sizes_that_do_not_fit():
    ours = nn.LSTM(3, 5)
    packed = nn.utils.rnn.PackedSequence(facula.randn(5, 3), facula.tensor([2, 2, 2]))
    with pytest.raises(RuntimeError, match="batch sizes"):
        ours(packed)
