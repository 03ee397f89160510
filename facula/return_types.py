"""The types of results with names, such as ``facula.return_types.sort``."""

from facula.ops.results import *  # noqa: F403
