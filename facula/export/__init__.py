"""Export: a function or module as a Program with its weights, that runs without its code.

>>> import facula, tempfile
>>> program = facula.export.export(facula.nn.Linear(3, 2), (facula.ones(1, 3),))
>>> with tempfile.TemporaryDirectory() as folder:
...     program.save(folder + "/linear.facula")
...     again = facula.export.load(folder + "/linear.facula")
>>> again.inputs
(input: float32[1, 3],)
"""

from facula.export.capture import export
from facula.export.dynamic import Dim
from facula.export.errors import ArchiveError, ExportError
from facula.export.program import ExportedProgram, TensorSpec
from facula.export.read import is_archive, load
from facula.export.write import save

__all__ = [
    "ArchiveError",
    "Dim",
    "ExportError",
    "ExportedProgram",
    "TensorSpec",
    "export",
    "is_archive",
    "load",
    "save",
]
