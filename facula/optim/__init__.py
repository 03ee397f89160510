"""Optimizers and learning-rate schedulers, named as in PyTorch."""

from facula.optim import lr_scheduler, swa_utils
from facula.optim.adam import Adam, Adamax, AdamW, NAdam, RAdam
from facula.optim.adaptive import Adadelta, Adagrad, RMSprop, Rprop
from facula.optim.lbfgs import LBFGS
from facula.optim.matrix import Adafactor, Muon
from facula.optim.optimizer import Optimizer
from facula.optim.sgd import ASGD, SGD

__all__ = [
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "LBFGS",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
    "lr_scheduler",
    "swa_utils",
]
