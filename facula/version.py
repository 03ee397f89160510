"""What this build is: PyTorch's ``torch.version``."""

from facula import __version__

debug, cuda, hip, git_version = False, None, None, None

__all__ = ["__version__", "cuda", "debug", "git_version", "hip"]
