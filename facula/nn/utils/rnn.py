"""Sequences of several lengths: padded, or packed without padding."""

from collections import namedtuple

from facula.tensor import Tensor, cat, full, int64, sort, tensor

__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]


class PackedSequence(
    namedtuple("PackedSequence", ["data", "batch_sizes", "sorted_indices", "unsorted_indices"])
):
    """Sequences sorted from the longest to the shortest, step after step without padding.

    Attributes:
        data: ``(sum of lengths, *)``: the first step of all sequences, then the second of those
            that have one, and so on.
        batch_sizes: int64 ``(longest length,)``: how many sequences have each step.
        sorted_indices: where each came from, or None if they were sorted already.
        unsorted_indices: the inverse of ``sorted_indices``.
    """

    __slots__ = ()

    def __new__(cls, data, batch_sizes=None, sorted_indices=None, unsorted_indices=None):
        if unsorted_indices is None and sorted_indices is not None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args, **kwargs):
        """Move or cast the data."""
        return self._replace(data=self.data.to(*args, **kwargs))

    def float(self):
        """The data as float32."""
        return self._replace(data=self.data.float())

    def double(self):
        """The data as float64."""
        return self._replace(data=self.data.double())


def invert_permutation(permutation):
    """The permutation that undoes ``permutation``, a tensor of indices; None for None."""
    return None if permutation is None else permutation.argsort()


def pad_sequence(sequences, batch_first=False, padding_value=0.0, padding_side="right"):
    """Stack tensors ``(L_i, *)`` into one ``(max L, N, *)``, or ``(N, max L, *)`` if
    ``batch_first``.

    >>> from facula import ones
    >>> from facula.nn.utils.rnn import pad_sequence
    >>> pad_sequence([ones(2), ones(1)], batch_first=True).tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"padding_side must be 'left' or 'right', got {padding_side!r}")
    sequences = list(sequences)
    if not sequences:
        raise RuntimeError("received an empty list of sequences")
    longest = max(sequence.shape[0] for sequence in sequences)
    rows = []
    for sequence in sequences:
        missing = longest - sequence.shape[0]
        if missing:
            padding = full(
                (missing, *sequence.shape[1:]),
                padding_value,
                dtype=sequence.dtype,
                device=sequence.device,
            )
            parts = [sequence, padding] if padding_side == "right" else [padding, sequence]
            sequence = cat(parts)
        rows.append(sequence.unsqueeze(0 if batch_first else 1))
    return cat(rows, dim=0 if batch_first else 1)


def unpad_sequence(padded_sequences, lengths, batch_first=False):
    """The sequences that :func:`pad_sequence` stacked, given their lengths."""
    if not batch_first:
        padded_sequences = padded_sequences.transpose(0, 1)
    return [row[: int(length)] for row, length in zip(padded_sequences, lengths)]


def pack_padded_sequence(input, lengths, batch_first=False, enforce_sorted=True):
    """Pack a padded batch.

    Args:
        input: ``(L, N, *)``, or ``(N, L, *)`` if ``batch_first``.
        lengths: the length of each sequence, a tensor or a list.
        batch_first: which dimension is the batch.
        enforce_sorted: whether the lengths must fall already; if not, sequences are sorted.

    Raises:
        RuntimeError: the lengths do not match the batch, are not positive or not sorted.
    """
    if not isinstance(lengths, Tensor):
        lengths = tensor(list(lengths), dtype=int64)
    sorted_indices = None
    if not enforce_sorted:
        lengths, sorted_indices = sort(lengths, descending=True)
        input = input.index_select(0 if batch_first else 1, sorted_indices)
    if batch_first:
        input = input.transpose(0, 1)
    sizes = [int(length) for length in lengths.tolist()]
    if len(sizes) != input.shape[1]:
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(sizes)} "
            f"(batch_size={input.shape[1]})"
        )
    if any(size <= 0 for size in sizes):
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' "
            "that is <= 0"
        )
    if any(a < b for a, b in zip(sizes, sizes[1:])):
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. "
            "You can pass `enforce_sorted=False` to pack_padded_sequence to sidestep this "
            "requirement if you do not need ONNX exportability."
        )
    if sizes[0] > input.shape[0]:
        raise RuntimeError(f"Expected `lengths` up to {input.shape[0]}, got {sizes[0]}")
    batch_sizes = [sum(size > step for size in sizes) for step in range(sizes[0])]
    data = cat([input[step, :rows] for step, rows in enumerate(batch_sizes)])
    return PackedSequence(data, tensor(batch_sizes, dtype=int64), sorted_indices)


def pack_sequence(sequences, enforce_sorted=True):
    """Pack a list of tensors ``(L_i, *)``."""
    lengths = [sequence.shape[0] for sequence in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def pad_packed_sequence(sequence, batch_first=False, padding_value=0.0, total_length=None):
    """Undo :func:`pack_padded_sequence`.

    Args:
        sequence: a PackedSequence.
        batch_first: whether the result is ``(N, L, *)`` instead of ``(L, N, *)``.
        padding_value: what stands after the end of a sequence.
        total_length: how long to pad; the longest length where it is None.

    Returns:
        The padded tensor and the lengths, an int64 tensor.
    """
    data, batch_sizes, _, unsorted_indices = sequence
    sizes = batch_sizes.tolist()
    length = len(sizes)
    if total_length is not None:
        if total_length < length:
            raise ValueError(
                "Expected total_length to be at least the length of the longest sequence in "
                f"input, but got total_length={total_length} and max sequence length being {length}"
            )
        length = total_length
    steps = []
    for rows in data.split(sizes):
        missing = sizes[0] - rows.shape[0]
        if missing:
            padding = full((missing, *rows.shape[1:]), padding_value, dtype=data.dtype)
            rows = cat([rows, padding])
        steps.append(rows.unsqueeze(0))
    if length > len(sizes):
        shape = (length - len(sizes), sizes[0], *data.shape[1:])
        steps.append(full(shape, padding_value, dtype=data.dtype))
    padded = cat(steps)
    lengths = tensor([sum(size > i for size in sizes) for i in range(sizes[0])], dtype=int64)
    if batch_first:
        padded = padded.transpose(0, 1)
    if unsorted_indices is not None:
        padded = padded.index_select(0 if batch_first else 1, unsorted_indices)
        lengths = lengths.index_select(0, unsorted_indices)
    return padded, lengths


def unpack_sequence(packed_sequences):
    """The list of tensors that :func:`pack_sequence` packed."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths.tolist(), batch_first=True)
