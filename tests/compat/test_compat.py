"""``import torch`` served by facula, each in a process of its own: it changes the import system."""

from __future__ import annotations

import subprocess
import sys


def python(root, code, check=True):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=check
    )


def test_the_modules_are_the_same_objects(root):
    python(
        root,
        """
from facula import compat
compat.install(); compat.install()
import torch, facula
import torch.serve.limits as limits
from torch.base import dtypes
import facula.serve.limits, facula.base.dtypes
assert torch is facula and limits is facula.serve.limits and dtypes is facula.base.dtypes
assert facula.__spec__.name == facula.__name__ == "facula"
assert limits.__spec__.name == "facula.serve.limits" and limits.__package__ == "facula.serve"
""",
    )


def test_a_module_that_facula_lacks_is_named(root):
    done = python(
        root, "from facula import compat; compat.install(); import torch.nothing", check=False
    )
    assert done.returncode == 1
    assert "No module named 'torch.nothing" in done.stderr and "facula has no" in done.stderr


def test_a_torch_that_is_imported_already_is_refused(root, tmp_path):
    (tmp_path / "torch.py").write_text("")
    done = python(
        root,
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torch\n"
        "from facula import compat; compat.install()",
        check=False,
    )
    assert "the real torch is imported already" in done.stderr


def test_uninstall_gives_the_name_back(root, tmp_path):
    (tmp_path / "torch.py").write_text("real = True")
    python(
        root,
        f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
from facula import compat
compat.install()
import torch.serve.limits
compat.uninstall()
import torch
assert torch.real and not [n for n in sys.modules if n.startswith("torch.")]
""",
    )
