"""A module run on all devices of one kind, of which there is one."""

from facula.nn.modules.module import Module

__all__ = ["DataParallel"]


class DataParallel(Module):
    """Calls ``module``: with the CPU as the only device there is nothing to split.

    Kept so that programs and checkpoints with its ``module.`` prefix work.

    >>> from facula import nn, ones
    >>> layer = nn.DataParallel(nn.Linear(2, 3))
    >>> tuple(layer(ones(4, 2)).shape), list(layer.state_dict())
    ((4, 3), ['module.weight', 'module.bias'])
    """

    def __init__(self, module, device_ids=None, output_device=None, dim=0):
        super().__init__()
        self.module, self.device_ids, self.dim = module, [], dim
        self.output_device = output_device

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)
