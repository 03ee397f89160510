"""Promise 1: a program written for PyTorch runs, by one changed import or by none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: As a user would have it: nothing in it knows of facula.
PROGRAM = """
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 16, 2)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return F.log_softmax(self.fc(torch.flatten(x, 1)), dim=1)


def main():
    torch.manual_seed(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = torch.randn(64, 1, 8, 8)
    y = (x.mean(dim=(1, 2, 3)) > 0).long()
    x += (2.0 * y - 1.0).view(-1, 1, 1, 1)
    loader = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
    model = Net().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = StepLR(optimizer, step_size=2, gamma=0.5)
    for epoch in range(4):
        model.train()
        for data, target in loader:
            data, target = data.to(device), target.to(device)
            optimizer.zero_grad()
            loss = F.nll_loss(model(data), target)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        scheduler.step()
    model.eval()
    with torch.no_grad():
        right = (model(x).argmax(dim=1) == y).sum().item()
    torch.save(model.state_dict(), "net.pt")
    again = Net()
    again.load_state_dict(torch.load("net.pt"))
    same = all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))
    print(torch.__name__, right, "of", len(x), same, f"{loss.item():.4f}")


if __name__ == "__main__":
    main()
"""


def run(root, folder, *arguments):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_facula_run_needs_no_edit(root, tmp_path):
    (tmp_path / "train.py").write_text(PROGRAM)
    name, right, _, total, same, _ = run(root, tmp_path, "-m", "facula", "run", "train.py")
    assert name == "facula" and same == "True" and int(right) >= 0.9 * int(total)


def test_import_as_torch_is_enough_where_only_torch_is_named(root, tmp_path):
    program = PROGRAM.replace("import torch.nn.functional as F\n", "").replace(
        "import torch\n", "import facula as torch\nF = torch.nn.functional\n"
    )
    (tmp_path / "train.py").write_text(program.replace("from torch", "from facula"))
    name, right, _, total, same, _ = run(root, tmp_path, "train.py")
    assert name == "facula" and same == "True" and int(right) >= 0.9 * int(total)


@pytest.mark.conformance
def test_pytorch_runs_it_as_well(root, tmp_path):
    """That the program is PyTorch's, and not just what facula takes for it."""
    (tmp_path / "train.py").write_text(PROGRAM)
    name, right, _, total, same, _ = run(root, tmp_path, "train.py")
    assert name == "torch" and same == "True" and int(right) >= 0.9 * int(total)
