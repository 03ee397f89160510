"""The table of primitives in ``docs/design/program.md`` is written from the registry."""

from __future__ import annotations

import inspect
import os
import re

import facula.tensor  # noqa: F401  declares all primitives
from facula.ops.registry import PRIMITIVES

MARK = "<!-- primitives -->\n"
KINDS = ("source", "pointwise", "movement", "gather", "reduce", "opaque", "composite")


def signature(p) -> str:
    """A primitive as it is applied: operands, then params."""
    if p.kind == "pointwise":
        return p.name
    source = p.info["body"] if p.kind == "composite" else p.infer
    names = []
    for q in inspect.signature(source).parameters.values():
        star = {q.VAR_POSITIONAL: "*", q.VAR_KEYWORD: "**"}.get(q.kind, "")
        if q.kind is q.KEYWORD_ONLY and "*" not in names and not any(n[0] == "*" for n in names):
            names.append("*")
        names.append(star + q.name)
    return f"{p.name}({', '.join(names)})"


def table() -> str:
    rows = ["| kind | primitives |", "|---|---|"]
    for kind in KINDS:
        shown = []
        for p in PRIMITIVES.values():
            if p.kind == kind:
                text = signature(p)
                shown.append(f"`{text}`" if p.gradient is not None else f"*`{text}`*")
        rows.append(f"| {kind} | {', '.join(shown)} |")
    return "\n".join(rows) + "\n"


def test_every_kind_is_told():
    assert {p.kind for p in PRIMITIVES.values()} == set(KINDS)


def test_the_table_is_current(root):
    page = root / "docs" / "design" / "program.md"
    head, _, written = page.read_text().partition(MARK)
    if os.environ.get("UPDATE_DOCS"):
        page.write_text(head + MARK + table())
        written = table()
    assert written == table(), "hint: UPDATE_DOCS=1 pytest tests/explain/test_program_page.py"


def test_the_kinds_in_the_text_are_those_of_the_registry(root):
    page = (root / "docs" / "design" / "program.md").read_text()
    section = page.partition("## Kinds of primitives")[2].partition("##")[0]
    assert re.findall(r"^\| (\w+) \|", section, re.M) == ["kind", *KINDS]
