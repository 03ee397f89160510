"""A small GPT that learns to write Python from the source of Python's standard library.

It reads bytes, so there is no tokenizer. It saves its state as it goes, and a run that was
stopped (with Ctrl-C, say) goes on where it was, to the same numbers:

    python examples/gpt.py --steps 1500
    python examples/gpt.py --steps 3000 --resume
    python examples/gpt.py --generate "def mean(values):"

In shapes, B is the batch, T the time (a position in the text), D the width of the model, H its
heads, V the 256 bytes.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import sysconfig
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import facula as torch
import facula.nn.functional as F
from facula import nn

VOCABULARY = 256


@dataclass
class Config:
    """What the model looks like; saved beside its weights."""

    context: int = 96
    width: int = 128
    heads: int = 4
    layers: int = 3
    dropout: float = 0.0


class Attention(nn.Module):
    """Causal self-attention over several heads."""

    def __init__(self, c: Config):
        super().__init__()
        self.heads, self.dropout = c.heads, c.dropout
        self.qkv = nn.Linear(c.width, 3 * c.width, bias=False)
        self.out = nn.Linear(c.width, c.width, bias=False)

    def forward(self, x_BTD):
        B, T, D = x_BTD.shape
        split = (B, T, self.heads, D // self.heads)
        q, k, v = (t.view(split).transpose(1, 2) for t in self.qkv(x_BTD).split(D, dim=2))
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)  # B H T D/H
        return self.out(y.transpose(1, 2).reshape(B, T, D))


class Block(nn.Module):
    """Attention, then a two-layer network at each position; both add to what they read."""

    def __init__(self, c: Config):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(c.width), Attention(c)
        self.norm2 = nn.LayerNorm(c.width)
        self.mlp = nn.Sequential(
            nn.Linear(c.width, 4 * c.width),
            nn.GELU(),
            nn.Linear(4 * c.width, c.width),
            nn.Dropout(c.dropout),
        )

    def forward(self, x_BTD):
        x_BTD = x_BTD + self.attention(self.norm1(x_BTD))
        return x_BTD + self.mlp(self.norm2(x_BTD))


class GPT(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.config = c
        self.token = nn.Embedding(VOCABULARY, c.width)
        self.position = nn.Embedding(c.context, c.width)
        self.blocks = nn.ModuleList([Block(c) for _ in range(c.layers)])
        self.norm = nn.LayerNorm(c.width)
        self.head = nn.Linear(c.width, VOCABULARY, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                # What is added to the residual stream starts smaller, the deeper the model.
                last = name.endswith(("out.weight", "mlp.2.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * c.layers) if last else 0.02)

    def forward(self, bytes_BT):
        """Logits [B, T, V] of each next byte."""
        x_BTD = self.token(bytes_BT) + self.position(torch.arange(bytes_BT.shape[1]))
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.head(self.norm(x_BTD))


def load_text(limit: int):
    """(training bytes, held-out bytes): the library's modules in order of name, cut to a limit."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    text = b"".join(path.read_bytes() for path in files)[:limit]
    data = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    cut = int(0.95 * len(data))
    return data[:cut], data[cut:]


def sample_batch(data, batch_size: int, context: int, generator=None):
    """Random pieces of the text, and the same pieces one byte on: two [B, T] of int64."""
    starts = torch.randint(0, len(data) - context, (batch_size, 1), generator=generator)
    pieces = data[starts + torch.arange(context + 1)].long()
    return pieces[:, :-1], pieces[:, 1:]


def loss_of(model: GPT, inputs_BT, targets_BT):
    """Mean cross-entropy in nats a byte."""
    return F.cross_entropy(model(inputs_BT).flatten(0, 1), targets_BT.flatten())


@torch.no_grad()
def evaluate(model: GPT, data, batch_size: int, batches: int = 8) -> float:
    """The loss on held-out text, always the same pieces of it."""
    generator = torch.Generator().manual_seed(1)
    model.eval()
    losses = [
        loss_of(model, *sample_batch(data, batch_size, model.config.context, generator)).item()
        for _ in range(batches)
    ]
    model.train()
    return sum(losses) / len(losses)


@torch.no_grad()
def generate(model: GPT, prompt: bytes, length: int, temperature: float = 0.8, top_k: int = 40):
    """Yield ``length`` bytes that continue the prompt, one at a time."""
    model.eval()
    text = torch.tensor([list(prompt or b"\n")])
    for _ in range(length):
        logits = model(text[:, -model.config.context :])[:, -1] / temperature
        best, bytes_of_best = logits.topk(top_k)
        choice = torch.multinomial(F.softmax(best, dim=-1), 1)
        byte = bytes_of_best.gather(1, choice)
        text = torch.cat([text, byte], dim=1)
        yield byte.item()


class Run:
    """The state of a training run: all that a checkpoint holds."""

    def __init__(self, args: argparse.Namespace, config: Config):
        self.model = GPT(config)
        # Biases, norms and embeddings of one dimension are not pulled towards zero.
        decayed = [p for p in self.model.parameters() if p.dim() >= 2]
        others = [p for p in self.model.parameters() if p.dim() < 2]
        groups = [
            {"params": decayed, "weight_decay": 0.1},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95))
        self.step = 0

    def save(self, path: Path) -> None:
        """Write everything, so that a crash while writing leaves the previous file whole."""
        partial = path.with_suffix(".partial")
        state = {
            "config": asdict(self.model.config),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "random": torch.get_rng_state(),
        }
        torch.save(state, partial)
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path, args: argparse.Namespace) -> Run:
        """The run as it was saved, the random numbers to come included."""
        state = torch.load(path)
        run = cls(args, Config(**state["config"]))
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        run.step = state["step"]
        return run


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """A warm-up in a straight line, then half a cosine down to a tenth."""
    if step < args.warmup:
        return args.lr * (step + 1) / args.warmup
    done = min(1.0, (step - args.warmup) / max(1, args.steps - args.warmup))
    return args.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


@contextmanager
def interruptible():
    """Ctrl-C only asks for a stop, so that no step is left half done; a second one insists."""
    asked: list[bool] = []

    def ask(signal_number, frame):
        asked.append(True)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def train_step(run: Run, batch, args: argparse.Namespace):
    """One step of the optimizer; returns the loss before it."""
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(run.step, args)
    loss = loss_of(run.model, *batch)
    run.optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    run.optimizer.step()
    run.step += 1
    return loss


def train(run: Run, args: argparse.Namespace) -> float:
    """Train until ``args.steps``, or until Ctrl-C; save; return the loss on held-out text."""
    train_text, test_text = load_text(args.text_bytes)
    model, context = run.model, run.model.config.context
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(train_text):,} bytes")
    model.train()
    start, first = time.perf_counter(), run.step
    with interruptible() as stop_asked:
        while run.step < args.steps and not stop_asked:
            loss = train_step(run, sample_batch(train_text, args.batch_size, context), args)
            if run.step % args.report_every == 0 or run.step == args.steps:
                seconds_a_step = (time.perf_counter() - start) / (run.step - first)
                print(
                    f"step {run.step:5d}/{args.steps}  loss {loss.item():.3f}  "
                    f"{args.batch_size * context / seconds_a_step:,.0f} bytes/s  "
                    f"{(args.steps - run.step) * seconds_a_step:.0f} s to go",
                    flush=True,
                )
            if run.step % args.save_every == 0:
                run.save(args.out / "checkpoint.pt")
        run.save(args.out / "checkpoint.pt")
    if stop_asked:
        print(f"stopped at step {run.step}; go on with --resume")
    held_out = evaluate(model, test_text, args.batch_size)
    print(f"loss on held-out text {held_out:.3f} ({held_out / math.log(2):.2f} bits a byte)")
    return held_out


def write(model: GPT, prompt: str, length: int) -> None:
    """Print the prompt and what the model makes of it, as it comes."""
    print("-" * 72)
    sys.stdout.write(prompt)
    for byte in generate(model, prompt.encode(), length):
        # A byte alone need not be a character; the library's text is ASCII almost throughout.
        sys.stdout.write(chr(byte) if byte < 128 else "?")
        sys.stdout.flush()
    print("\n" + "-" * 72)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpt-run"), help="folder of checkpoints")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--generate", metavar="PROMPT", help="do not train, only write")
    parser.add_argument("--length", type=int, default=400, help="bytes to write at the end")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=12)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text-bytes", type=int, default=4_000_000, help="how much to read")
    parser.add_argument("--report-every", type=int, default=50)
    parser.add_argument("--save-every", type=int, default=200)
    for field, value in asdict(Config()).items():
        parser.add_argument(f"--{field}", type=type(value), default=value)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> float | None:
    """Train and write; returns the loss on held-out text if it trained."""
    args = parse_arguments(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    if args.resume or args.generate is not None:
        run = Run.load(args.out / "checkpoint.pt", args)
    else:
        run = Run(args, Config(**{field: getattr(args, field) for field in asdict(Config())}))
    held_out = train(run, args) if args.generate is None else None
    if args.length:
        write(run.model, args.generate or "def ", args.length)
    return held_out


if __name__ == "__main__":
    main()
