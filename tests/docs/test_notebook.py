"""The tutorial runs from top to bottom, and prints and draws what stands under its cells."""

from __future__ import annotations

import ast
import base64
import io
import json
import re
from typing import Any

import pytest
from PIL import Image

from tests.support.paths import ROOT

NUMBER = re.compile(r"\d+\.?\d*")


def test_the_notebook_runs_and_shows_what_it_says(one_thread, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "docs/tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    shown = 0
    for number, cell in enumerate(cells):
        if cell["cell_type"] != "code":
            continue
        drawn = run("".join(cell["source"]), f"cell {number}", namespace)
        streams, pictures = outputs(cell)
        assert_alike(capsys.readouterr().out, streams, number)
        assert ([] if drawn is None else [drawn.size]) == pictures, f"cell {number}"
        shown += bool(streams) + len(pictures)
    assert shown > 5, "no outputs are kept"


def run(source: str, name: str, namespace: dict[str, Any]) -> Any:
    """Run a cell; the value of its last line, as a notebook shows it."""
    tree = ast.parse(source)
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), namespace)
    return eval(compile(last, name, "eval"), namespace) if last else None


def outputs(cell: dict[str, Any]) -> tuple[str, list[tuple[int, int]]]:
    """What is kept under a cell: text printed, and sizes of pictures."""
    printed = "".join("".join(each["text"]) for each in cell["outputs"] if each.get("name") == "stdout")
    encoded = [each["data"]["image/png"] for each in cell["outputs"] if "data" in each]
    return printed, [Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in encoded]


def assert_alike(printed: str, kept: str, number: int) -> None:
    """Words are the same; numbers are near: another processor rounds a training otherwise."""
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", kept), f"cell {number}"
    for ours, theirs in zip(NUMBER.findall(printed), NUMBER.findall(kept), strict=True):
        near = pytest.approx(float(theirs), rel=0.05, abs=0.02 if "." in theirs else 2)
        assert float(ours) == near, f"cell {number}:\n{printed}\n{kept}"
