"""The same bench at another revision: ``python -m bench --base REV``.

The revision is checked out into a worktree with a virtual environment of its own, which has this one's packages but for
adgan_fast: that is built from the worktree. Today's bench replaces the worktree's where it can be imported with the
package of then; else the bench of then runs, with the same options. The revisions take turns, so that a slow minute of
the machine falls on both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from . import report
from .rows import ROOT, Row, load

HEADS = ("engine or peer", "metric", "unit")
LEFT_OUT = ("ratio_to_best_peer",)  # the best peer may be another


@dataclasses.dataclass(frozen=True)
class Tree:
    """A checkout to run the bench in.

    Attributes:
        name: of its column.
        root: of the checkout.
        python: the interpreter that imports the package from there.
        note: which bench runs.
    """

    name: str
    root: Path
    python: Path
    note: str = ""


def beside(revision: str, turns: int, options: Sequence[str]) -> list[str]:
    """Run `pytest bench/` with `options`, `turns` times at `revision` and here; lines that show both.

    Raises RuntimeError where `revision` cannot be built, or one of the runs fails.
    """
    with worktree(revision) as base:
        here, found = Tree("here", ROOT, Path(sys.executable)), []
        for turn in range(turns):
            print(f"turn {turn + 1} of {turns}: {base.name}, then here", file=sys.stderr, flush=True)
            found.append((rows_in(base, options), rows_in(here, options)))
    return [f"{base.name} with {base.note}", "", *lines(base.name, found)]


@contextlib.contextmanager
def worktree(revision: str) -> Iterator[Tree]:
    """`revision` checked out and built, for as long as the context lasts."""
    name = _said(["git", "describe", "--always", "--tags", revision], ROOT).strip()
    with tempfile.TemporaryDirectory() as temporary:
        root, python = Path(temporary) / "base", Path(temporary) / "venv" / "bin" / "python"
        _said(["git", "worktree", "add", "--detach", str(root), revision], ROOT)
        try:
            if (shared := ROOT.parent / "shared").is_dir():  # the data sets that cases.py looks for beside a checkout
                (Path(temporary) / "shared").symlink_to(shared)
            _build(root, python)
            yield Tree(name, root, python, _bench_of(root, python))
        finally:
            _said(["git", "worktree", "remove", "--force", str(root)], ROOT)


def _build(root: Path, python: Path) -> None:
    """A virtual environment with this one's packages, and over them the package of `root`, compiled."""
    venv.create(python.parents[1], symlinks=True)
    site = _said([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], root).strip()
    # A line of a .pth file adds a folder without what is editable in it: this checkout's package is not among them.
    (Path(site) / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--ignore-installed", "-e", str(root)]
    _said([str(python), *install], root, ADGAN_FAST_BUILD_EXT="1")


def _bench_of(root: Path, python: Path) -> str:
    """Put today's bench into the tree where the package of then has what it imports; says which one is there."""
    then = root.parent / "bench"
    shutil.move(root / "bench", then)
    shutil.copytree(ROOT / "bench", root / "bench", ignore=shutil.ignore_patterns("__pycache__", "results"))
    modules = "bench.conftest, bench.test_throughput, bench.test_scaling"
    try:
        _said([str(python), "-c", f"import {modules}"], root)
    except RuntimeError as error:
        shutil.rmtree(root / "bench")
        shutil.move(then, root / "bench")
        return f"its own bench: today's cannot be used with it ({str(error).splitlines()[-1]})"
    return "today's bench"


def rows_in(tree: Tree, options: Sequence[str]) -> list[Row]:
    """The rows of one run of the bench in a tree."""
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "rows.jsonl"
        command = [str(tree.python), "-m", "pytest", "bench/", "-q", *options, "--save-rows", str(file)]
        done = subprocess.run(command, cwd=tree.root, env=_environment(), stdout=sys.stderr, check=False)
        if not file.exists():
            raise RuntimeError(f"{tree.name}: exit {done.returncode} and no rows from {' '.join(command)}")
        return load(file)


def lines(name: str, turns: Iterable[tuple[Sequence[Row], Sequence[Row]]]) -> list[str]:
    """A table for each case: a metric's median at the base, here, and the median over the turns of here to base."""
    pairs = [({_key(r): r for r in base}, {_key(r): r for r in here}) for base, here in turns]
    keys = [_key(r) for r in pairs[0][1].values() if r["metric"] not in LEFT_OUT]
    found: list[str] = []
    for case in dict.fromkeys(key[0] for key in keys):
        table = [(*HEADS, name, "here", "here / base")]
        for key in (key for key in keys if key[0] == case):
            rows = [(base[key], here[key]) for base, here in pairs if key in base and key in here]
            unit = pairs[0][1][key]["unit"]
            if not rows:
                table.append((*key[1:], unit, "-", f"{pairs[0][1][key]['value']:.4g}", "-"))
                continue
            values = [(float(base["value"]), float(here["value"])) for base, here in rows]
            medians = (statistics.median(side) for side in zip(*values, strict=True))
            ratio = statistics.median(here / base if base else float("nan") for base, here in values)
            table.append((*key[1:], unit, *(f"{value:.4g}" for value in medians), f"{ratio:.3f}"))
        found += [case, "", *report.text(table), ""]
    return found


def _key(r: Row) -> tuple[str, str, str]:
    return str(r["case"]), str(r["engine"]), str(r["metric"])


def _environment(**more: str) -> dict[str, str]:
    """This one's, with its programs (ninja), and no other checkout on the path."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return env | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])} | more


def _said(command: Sequence[str], root: Path, **environment: str) -> str:
    """What a command prints. Raises RuntimeError with what it said if it failed."""
    done = subprocess.run(
        command, cwd=root, env=_environment(**environment), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{(done.stdout + done.stderr).strip()}")
    return done.stdout
