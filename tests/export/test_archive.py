"""Archives that lie: every one is refused with a typed error, or is harmless."""

from __future__ import annotations

import copy
import json
import random
import zipfile

import pytest

import facula
from facula import nn
from facula.base.errors import FaculaError
from facula.export import ArchiveError, export, is_archive, load
from facula.export.checks import CHECKS
from facula.export.read import decoded
from facula.export.write import described
from facula.ops.registry import PRIMITIVES


class Everything(nn.Module):
    """A little of every kind of primitive."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.conv = nn.Conv1d(8, 4, 3, padding=1)
        self.norm = nn.LayerNorm(4)

    def forward(self, ids):
        x = self.conv(self.embedding(ids).transpose(1, 2))
        x = nn.functional.max_pool1d(x, 2).transpose(1, 2)
        x = self.norm(facula.cat([x, x.flip(1)], 1)).cumsum(1)
        values, order = x.sort(-1)
        return x.gather(2, order) + values[:, :, 1:2], x.argmax(-1), nn.functional.pad(x, (1, 2))


@pytest.fixture(scope="module")
def exported():
    return export(Everything(), (facula.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]),),
                  dynamic_shapes=({0: "batch"},))  # fmt: skip


@pytest.fixture
def parts(exported):
    return copy.deepcopy(described(exported)), dict(exported.state_dict)


def test_every_primitive_is_checked_or_pointwise_or_refused():
    kinds = ("pointwise", "composite")  # by their dtypes and shapes, and by their bodies
    unchecked = {p.name for p in PRIMITIVES.values() if p.kind not in kinds} - set(CHECKS)
    assert not unchecked, "they cannot stand in an archive: write their checks"


def test_it_loads(parts):
    ids = facula.tensor([[1, 2, 3, 4]])
    values, _, padded = decoded(*parts)(ids)
    assert values.shape == (1, 4, 4) and padded.shape == (1, 4, 7)


def node(found, name):
    return next(n for n in found["nodes"] if n["op"] == name)


@pytest.mark.parametrize(
    "name, change",
    [
        ("slice", {"start": 2}),
        ("slice", {"length": 1 << 40}),
        ("slice", {"step": -1}),
        ("permute", {"order": [0, 0, 1]}),
        ("permute", {"order": [0, 1, 7]}),
        ("flip", {"dims": [9]}),
        ("cumsum", {"dim": 5}),
        ("take", {"dim": -1}),
        ("conv", {"groups": 2}),
        ("conv", {"stride": [0]}),
        ("conv", {"padding": [1, 1]}),
        ("max_pool", {"kernel": [0]}),
        ("max_pool", {"rank": 40}),
        ("normalized", {"dims": []}),
        ("cat", {"dim": 2}),
        ("gather", {"dim": 3}),
        ("pad", {"before": -3}),
        ("pad", {"value": "x"}),
        ("sort", {"descending": 1}),
        ("sort", {"more": 1}),
        ("expand", {"shape": [5, 5, 5]}),
    ],
)
def test_parameters_that_lie_are_refused(parts, name, change):
    found, weights = parts
    node(found, name)["params"].update(change)
    with pytest.raises(ArchiveError, match=name):
        decoded(found, weights)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f["nodes"][0].update(op="eval"),
        lambda f: f["nodes"][0].update(op="random_bits"),
        lambda f: f["nodes"][0].update(op=["add"]),
        lambda f: f["nodes"][0].update(inputs=[len(f["nodes"]) + 20]),
        lambda f: f["nodes"][0].update(inputs=[-1]),
        lambda f: f["nodes"][0].update(inputs="ab"),
        lambda f: f["nodes"][3]["outputs"][0].update(shape=[1]),
        lambda f: f["nodes"][3]["outputs"][0].update(dtype="float99"),
        lambda f: f["nodes"][3]["outputs"].clear(),
        lambda f: f["inputs"][0].update(shape=[[[1, ["nobody"]]], 4]),
        lambda f: f["inputs"][0].update(shape=[[[2, ["batch"]]], 4]),
        lambda f: f["inputs"][0].update(shape=[1 << 62, 1 << 62]),
        lambda f: f["inputs"][0].update(shape=[-4, 4]),
        lambda f: f["symbols"].update(batch=1),
        lambda f: f["symbols"].update(other=5),
        lambda f: f["symbols"].update({"t0d0": 5}),
        lambda f: f["state"][0].update(name="missing"),
        lambda f: f["state"][0].update(shape=[8, 10]),
        lambda f: f["outputs"][0].update(value=0),
        lambda f: f["outputs"].clear(),
        lambda f: f["guards"].append(["eq", 1, 2, True]),
        lambda f: f["guards"].append(["lt", [[1, [["div", 4, 0]]]], 2, True]),
        lambda f: f["results"].update(dict=[1]),
        lambda f: f.update(results={"tensor": 3}),
        lambda f: f.update(arguments={"ids": {"tensor": 7}}),
        lambda f: f.update(arguments=[]),
        lambda f: f.update(nodes={}),
    ],
)
def test_descriptions_that_lie_are_refused(parts, change):
    found, weights = parts
    change(found)
    with pytest.raises(ArchiveError):
        decoded(found, weights)


def places(tree, path=()):
    """Paths of all parts of a JSON tree."""
    yield path
    if isinstance(tree, (dict, list)):
        for k, x in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from places(x, (*path, k))


WEIRD = [None, True, -1, 0, 1, 2, 3, 1 << 40, 1 << 70, 1.5, "", "x", [], [1], {},
         {"size": [[1, []]]}, {"dtype": "int8"}, {"float": "nan"}, [[1, ["batch"]]],
         [[-1, ["batch"]]],
         [[1, [["div", [[1, ["batch"]]], 2]]]]]  # fmt: skip


def changed(rng, part):
    """Something else in the place of a part: near it, or of another kind."""
    if type(part) is int and rng.random() < 0.7:
        return part + rng.choice((-2, -1, 1, 2, 3))
    if isinstance(part, str) and rng.random() < 0.7:
        return rng.choice([*PRIMITIVES, "float16", "int64", "bool"])
    if isinstance(part, list) and part and rng.random() < 0.7:
        return rng.choice((part[1:], part[::-1], [*part, part[0]], part[:-1]))
    return rng.choice(WEIRD)


@pytest.mark.parametrize("seed", range(4))
def test_random_changes_are_refused_or_harmless(exported, seed):
    """What still loads runs, or raises an exception; it does not crash the process."""
    rng = random.Random(seed)
    original, weights = described(exported), dict(exported.state_dict)
    paths = [p for p in places(original) if p]
    ran = 0
    for _ in range(400):
        found = copy.deepcopy(original)
        for _ in range(rng.choice((1, 1, 2))):
            *path, last = rng.choice(paths)
            part = found
            try:
                for k in path:
                    part = part[k]
                part[last] = changed(rng, part[last])
            except (KeyError, IndexError, TypeError):
                continue
        try:
            program = decoded(found, weights)
        except ArchiveError:
            continue
        ran += 1
        try:
            program.run([facula.ones(*(n or 3 for n in s.shape), dtype=s.dtype)
                         for s in program.inputs])  # fmt: skip
        except (FaculaError, AssertionError, KeyError, TypeError, ValueError, NotImplementedError):
            pass
    assert ran > 5, "the changes were too wild to test anything"


def test_files_that_are_no_archives(tmp_path, exported):
    good = tmp_path / "good.facula"
    exported.save(good)
    assert is_archive(good) and not is_archive(tmp_path) and not is_archive(tmp_path / "none")
    data = good.read_bytes()
    bad = tmp_path / "bad.facula"
    for content in (b"", b"PK", data[:-40], data[: len(data) // 2]):
        bad.write_bytes(content)
        with pytest.raises(ArchiveError):
            load(bad)
    with pytest.raises(OSError):
        load(tmp_path / "none")
    with zipfile.ZipFile(good) as archive:
        parts = {n: archive.read(n) for n in archive.namelist()}
    with zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    with pytest.raises(ArchiveError, match="compressed"):
        load(bad)
    for change in ({"version": 2}, {"format": "other"}, {"more": 1}):
        with zipfile.ZipFile(bad, "w") as archive:
            program = {**json.loads(parts["program.json"]), **change}
            archive.writestr("program.json", json.dumps(program))
            archive.writestr("weights.safetensors", parts["weights.safetensors"])
        with pytest.raises(ArchiveError):
            load(bad)


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_are_refused_or_harmless(tmp_path, exported, seed):
    rng = random.Random(seed)
    good = tmp_path / "good.facula"
    exported.save(good)
    data = good.read_bytes()
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        good.write_bytes(changed)
        try:
            load(good)
        except (ArchiveError, OSError):
            continue
