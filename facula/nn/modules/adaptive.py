"""A softmax over many classes, the rare ones in clusters (Grave, 2017)."""

from collections import namedtuple

import facula.nn.functional as F
from facula.nn.modules.container import ModuleList, Sequential
from facula.nn.modules.linear import Linear
from facula.nn.modules.module import Module

__all__ = ["AdaptiveLogSoftmaxWithLoss"]

_ASMoutput = namedtuple("_ASMoutput", "output loss", module="facula.nn.modules.adaptive")


class AdaptiveLogSoftmaxWithLoss(Module):
    """The loss of the target class where classes are sorted, the most frequent first.

    Args:
        in_features: the size of the input.
        n_classes: the number of classes.
        cutoffs: where the clusters of rarer classes begin, ascending.
        div_value: by how much the size of the projection falls from cluster to cluster.
        head_bias: whether the head, which has the frequent classes and the clusters, has a bias.

    Shapes:
        input ``(N, in_features)`` or ``(in_features,)``, target ``(N,)`` or ``()``; output as the
        target: the logarithms of the probabilities of the targets; loss ``()``: minus their mean.

    >>> from facula import nn, randn, tensor
    >>> layer = nn.AdaptiveLogSoftmaxWithLoss(4, 10, cutoffs=[2, 5])
    >>> tuple(layer(randn(3, 4), tensor([0, 4, 9])).output.shape)
    (3,)
    """

    def __init__(self, in_features, n_classes, cutoffs, div_value=4.0, head_bias=False,
                 device=None, dtype=None):  # fmt: skip
        super().__init__()
        cutoffs = list(cutoffs)
        if not cutoffs:
            raise ValueError("cutoffs should be a sequence of length larger than 0")
        if (
            cutoffs != sorted(set(cutoffs))
            or min(cutoffs) <= 0
            or max(cutoffs) > n_classes - 1
            or any(int(c) != c for c in cutoffs)
        ):
            raise ValueError(
                "cutoffs should be a sequence of unique, positive integers sorted in an increasing "
                "order, where each value is between 1 and n_classes-1"
            )
        place = {"device": device, "dtype": dtype}
        self.in_features, self.n_classes, self.div_value = in_features, n_classes, div_value
        self.cutoffs, self.head_bias = [*cutoffs, n_classes], head_bias
        self.shortlist_size, self.n_clusters = self.cutoffs[0], len(self.cutoffs) - 1
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias, **place)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            hidden = int(in_features // (div_value ** (i + 1)))
            size = self.cutoffs[i + 1] - self.cutoffs[i]
            first = Linear(in_features, hidden, bias=False, **place)
            self.tail.append(Sequential(first, Linear(hidden, size, bias=False, **place)))

    def reset_parameters(self):
        """Draw the weights anew."""
        self.head.reset_parameters()
        for first, second in self.tail:
            first.reset_parameters()
            second.reset_parameters()

    def forward(self, input, target):
        if target.ndim > 1:
            raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
        if input.ndim != target.ndim + 1 or input.shape[:-1] != target.shape:
            raise RuntimeError(
                "Input and target should have the same size in the batch dimension, got "
                f"{tuple(input.shape)} and {tuple(target.shape)}"
            )
        x, y = (input, target) if target.ndim else (input.unsqueeze(0), target.unsqueeze(0))
        if y.numel() and (int(y.min()) < 0 or int(y.max()) >= self.n_classes):
            raise RuntimeError(
                f"Target values should be in [0, {self.n_classes - 1}], but values in range "
                f"[{int(y.min())}, {int(y.max())}] were found."
            )
        # Which entry of the head stands for each target: itself, or its cluster.
        entry = y.clone()
        output = x.new_zeros(y.shape)
        for i, tail in enumerate(self.tail):
            low, high = self.cutoffs[i], self.cutoffs[i + 1]
            rows = ((y >= low) & (y < high)).nonzero().squeeze(1)
            if rows.numel():
                within = F.log_softmax(tail(x[rows]), 1).gather(1, (y[rows] - low).unsqueeze(1))
                output = output.index_add(0, rows, within.squeeze(1))
                entry = entry.index_fill(0, rows, self.shortlist_size + i)
        output = output + F.log_softmax(self.head(x), 1).gather(1, entry.unsqueeze(1)).squeeze(1)
        loss = -output.mean()
        return _ASMoutput(output if target.ndim else output.squeeze(0), loss)

    def log_prob(self, input):
        """The logarithms of the probabilities of all classes: ``(N, n_classes)``."""
        from facula.tensor import cat

        head = F.log_softmax(self.head(input), 1)
        parts = [head[:, : self.shortlist_size]]
        for i, tail in enumerate(self.tail):
            cluster = head[:, self.shortlist_size + i].unsqueeze(1)
            parts.append(F.log_softmax(tail(input), 1) + cluster)
        return cat(parts, 1)

    def predict(self, input):
        """The most probable class of each row: ``(N,)``."""
        return self.log_prob(input).argmax(1)
