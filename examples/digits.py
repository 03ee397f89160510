"""Handwritten digits, from the data to a served model: the program behind ``facula demo``.

A small convolutional network learns scikit-learn's 1,797 handwritten digits (8x8 pixels). The
program then does what one does with a trained network: it measures it on images it has never
seen, saves its weights, exports it to ONNX and checks the file with onnxruntime, serves it over
HTTP, sends it digits, and writes down how all of that went.

    python examples/digits.py --out demo

In shapes, N is the batch, C channels, H and W pixels, K the ten classes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import signal
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import facula as torch
import facula.nn.functional as F
from facula import nn
from facula.serialization import safetensors
from facula.utils.data import DataLoader, TensorDataset

CLASSES = 10
NAME = "digits"


class Digits(nn.Module):
    """Three 3x3 convolutions, two poolings, one linear layer: 26,000 parameters."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(4 * width * 2 * 2, CLASSES)

    def forward(self, x_NCHW):
        x = F.relu(self.conv1(x_NCHW))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # 8x8 -> 4x4
        x = F.max_pool2d(F.relu(self.conv3(x)), 2)  # 4x4 -> 2x2
        return self.head(self.dropout(torch.flatten(x, 1)))


def load_data(seed: int):
    """The images [N, 1, 8, 8] in 0..1 and their labels [N], as (training set, test set).

    A fifth is held out, with each digit in its share: nothing is chosen by looking at it.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 1, 8, 8)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels.astype("int64"), test_size=0.2, stratify=labels, random_state=seed
    )
    as_set = lambda x, y: TensorDataset(torch.from_numpy(x), torch.from_numpy(y))  # noqa: E731
    return as_set(x_train, y_train), as_set(x_test, y_test)


def jitter(x_NCHW):
    """Shift a batch by up to one pixel each way: the same digits, not quite where they were."""
    dy, dx = torch.randint(0, 3, (2,)).tolist()
    height, width = x_NCHW.shape[2:]
    return F.pad(x_NCHW, (1, 1, 1, 1))[:, :, dy : dy + height, dx : dx + width]


class Progress:
    """A progress bar in a terminal; elsewhere (a log, a pipe) a line an epoch."""

    def __init__(self, total: int):
        self.bar = None
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self.bar = tqdm(total=total, unit="step", dynamic_ncols=True)

    def step(self, epoch: int, loss: float, accuracy: float) -> None:
        if self.bar is not None:
            self.bar.set_description(f"epoch {epoch}", refresh=False)
            self.bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.1%}", refresh=False)
            self.bar.update()

    def epoch(self, epoch: int, loss: float, accuracy: float) -> None:
        if self.bar is None:
            print(f"  epoch {epoch:2d}  loss {loss:.4f}  accuracy {accuracy:.1%}", flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def train(model, train_set, epochs: int, batch_size: int, lr: float) -> dict:
    """Train in place. Returns the loss of every step and how long it took, in seconds."""
    loader = DataLoader(train_set, batch_size=batch_size, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-3)
    steps = epochs * len(loader)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
    progress = Progress(steps)
    losses, first_step_s, start = [], 0.0, time.perf_counter()
    model.train()
    for epoch in range(1, epochs + 1):
        correct = seen = 0
        for x, y in loader:
            logits = model(jitter(x))
            loss = F.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
            correct += (logits.argmax(1) == y).sum().item()
            seen += len(y)
            if len(losses) == 1:
                first_step_s = time.perf_counter() - start
            progress.step(epoch, losses[-1], correct / seen)
        progress.epoch(epoch, statistics.fmean(losses[-len(loader) :]), correct / seen)
    progress.close()
    seconds = time.perf_counter() - start
    return {"losses": losses, "seconds": seconds, "first_step_s": first_step_s}


@torch.no_grad()
def predict(model, x_NCHW):
    """The logits [N, K], with dropout off."""
    model.eval()
    return model(x_NCHW)


def save_pictures(folder: Path, losses, x_NCHW, labels, predictions) -> None:
    """``loss.png``, the loss of every step, and ``digits.png``, test digits with the answers."""
    import matplotlib

    matplotlib.use("Agg")  # Draws into files; there may be no screen.
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.semilogy(losses, linewidth=1, color="tab:blue")
    axes.set(xlabel="step", ylabel="cross-entropy (training)", title="Loss")
    axes.grid(alpha=0.3)
    figure.savefig(folder / "loss.png", dpi=120)
    plt.close(figure)

    # The mistakes first: they are what one wants to see.
    order = sorted(range(len(labels)), key=lambda i: predictions[i] == labels[i])[:40]
    figure, grid = plt.subplots(4, 10, figsize=(10, 4.8), layout="constrained")
    for axes, i in zip(grid.flat, order):
        right = predictions[i] == labels[i]
        axes.imshow(x_NCHW[i, 0], cmap="gray_r")
        title = f"{predictions[i]}" if right else f"{predictions[i]}, is {labels[i]}"
        axes.set_title(title, fontsize=10, color="black" if right else "tab:red")
        axes.axis("off")
    figure.suptitle("Test digits and what the network says (mistakes first, in red)")
    figure.savefig(folder / "digits.png", dpi=120)
    plt.close(figure)


def check_onnx(path: Path, x, expected) -> float:
    """Run an ONNX file with onnxruntime; the largest difference from ``expected``."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: x})
    return float(np.abs(result - expected).max())


@contextmanager
def server(archive: Path):
    """``facula serve`` on that model; gives the port, and stops the server at the end.

    Raises:
        RuntimeError: it did not come up, or did not stop cleanly.
    """
    command = [sys.executable, "-m", "facula", "serve", str(archive), "--name", NAME]
    process = subprocess.Popen(
        [*command, "--port", "0", "--log-level", "warning"], stdout=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()  # Comes once it answers; empty if it died.
        if not line.startswith("serving"):
            raise RuntimeError(f"the server did not start (status {process.wait(10)})")
        yield int(line.rsplit(":", 1)[1])
        process.send_signal(signal.SIGINT)
        if process.wait(20) != 0:
            raise RuntimeError(f"the server ended with status {process.returncode}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def classify(connection: http.client.HTTPConnection, image) -> tuple[int, float]:
    """Send one image [1, 8, 8] to the server; the answer, and how long it took in seconds."""
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": [1, *image.shape],
        "data": image.ravel().tolist(),
    }
    body = json.dumps({"inputs": [tensor]})
    start = time.perf_counter()
    connection.request("POST", f"/v2/models/{NAME}/infer", body)
    response = connection.getresponse()
    answer = json.loads(response.read())
    seconds = time.perf_counter() - start
    if response.status != 200:
        raise RuntimeError(f"the server answered {response.status}: {answer}")
    scores = answer["outputs"][0]["data"]
    return scores.index(max(scores)), seconds


def serve_and_ask(archive: Path, images, predictions) -> dict:
    """Serve the model, send it one image after the other, check that it answers as it should."""
    with server(archive) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        answers = [classify(connection, image) for image in images]
        connection.close()
    wrong = sum(digit != expected for (digit, _), expected in zip(answers, predictions))
    if wrong:
        raise RuntimeError(f"the served model disagrees on {wrong} of {len(images)} images")
    times = sorted(1e3 * seconds for _, seconds in answers)
    return {
        "requests": len(times),
        "median_ms": statistics.median(times),
        "p95_ms": times[int(0.95 * len(times))],
    }


def write_report(folder: Path, facts: dict) -> None:
    """``report.md`` for people, ``report.json`` for programs."""
    (folder / "report.json").write_text(json.dumps(facts, indent=2) + "\n")
    rows = {
        "Accuracy on the held-out digits": f"{facts['accuracy']:.2%} of {facts['test_images']}",
        "Parameters": f"{facts['parameters']:,}",
        "Training": f"{facts['epochs']} epochs, {facts['steps']} steps, {facts['seconds']:.1f} s",
        "First step": f"{facts['first_step_s']:.2f} s, kernels compiled or fetched from the cache",
        "ONNX against onnxruntime": f"largest difference {facts['onnx_difference']:.1e}",
        "HTTP requests": f"{facts['requests']}, all answered as the model does here",
        "Latency": f"median {facts['median_ms']:.2f} ms, 95% under {facts['p95_ms']:.2f} ms",
    }
    table = "\n".join(f"| {what} | {value} |" for what, value in rows.items())
    text = f"""# Handwritten digits

Made by `facula demo` (facula {torch.__version__}), seed {facts["seed"]}.

| what | |
|---|---|
{table}

![Loss](loss.png)

![Test digits and predictions](digits.png)

| file | |
|---|---|
| `weights.safetensors` | the trained weights |
| `digits.onnx` | the model for any ONNX runtime |
| `digits.facula` | the model for `facula serve {folder / "digits.facula"}` |
"""
    (folder / "report.md").write_text(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for what is made")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--requests", type=int, default=100, help="digits to send to the server")


def run(args: argparse.Namespace) -> int:
    """The whole demo; status 1 if the network falls short of 98 % on the held-out digits."""
    folder = args.out
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    train_set, test_set = load_data(args.seed)
    model = Digits()
    parameters = sum(p.numel() for p in model.parameters())
    print(f"training on {len(train_set)} digits, {parameters:,} parameters")
    training = train(model, train_set, args.epochs, args.batch_size, args.lr)

    x_test, y_test = test_set.tensors
    logits = predict(model, x_test)
    predictions, labels = logits.argmax(1).tolist(), y_test.tolist()
    accuracy = sum(p == y for p, y in zip(predictions, labels)) / len(labels)
    print(f"accuracy {accuracy:.2%} on {len(labels)} held-out digits, {training['seconds']:.1f} s")

    images = x_test.numpy()
    safetensors.save_file(model.state_dict(), folder / "weights.safetensors")
    save_pictures(folder, training["losses"], images, labels, predictions)
    exported = torch.export.export(
        model,
        (x_test[:2],),
        dynamic_shapes=({0: "batch"},),
        input_names=["image"],
        output_names=["logits"],
    )
    torch.onnx.export(exported, f=folder / "digits.onnx")
    difference = check_onnx(folder / "digits.onnx", images, logits.numpy())
    print(f"ONNX: onnxruntime agrees to {difference:.1e}")
    exported.save(folder / "digits.facula")
    serving = serve_and_ask(folder / "digits.facula", images[: args.requests], predictions)
    print(
        f"served {serving['requests']} digits over HTTP: median {serving['median_ms']:.2f} ms, "
        f"95% under {serving['p95_ms']:.2f} ms"
    )

    facts = {
        "accuracy": accuracy,
        "test_images": len(labels),
        "parameters": parameters,
        "epochs": args.epochs,
        "steps": len(training["losses"]),
        "seconds": training["seconds"],
        "first_step_s": training["first_step_s"],
        "onnx_difference": difference,
        "seed": args.seed,
        **serving,
    }
    write_report(folder, facts)
    print(f"wrote {folder / 'report.md'}")
    failed = [
        words
        for bad, words in (
            (accuracy < 0.98, "accuracy is under 98%"),
            (difference > 1e-4, "the ONNX file differs by more than 1e-4"),
        )
        if bad
    ]
    for words in failed:
        print(f"failed: {words}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(arguments)
    sys.exit(run(arguments.parse_args()))
