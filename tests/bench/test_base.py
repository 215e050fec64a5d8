"""``python -m bench --base REV``: both revisions in one table, each with a package of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from bench import __main__ as bench_main
from bench.race import base, rows
from tests.support.paths import ROOT


def run(seconds: dict[str, float], **more: Any) -> list[rows.Row]:
    found = [
        rows.row("a case", name, "engine", "seconds_per_image", s, "s", "cpu", **more) for name, s in seconds.items()
    ]
    return [*found, rows.row("a case", "native", "engine", "ratio_to_best_peer", 2.0, "times faster", "cpu")]


def test_each_metric_has_both_revisions_and_the_median_ratio_of_the_turns() -> None:
    turns = [
        (run({"native": 2.0, "gone": 1.0}), run({"native": 1.0, "new": 3.0})),
        (run({"native": 8.0}), run({"native": 2.0})),  # a slow minute
        (run({"native": 2.0}), run({"native": 1.2})),
    ]
    case, _, heads, *body, _ = base.lines("v1.2", turns)
    assert case == "a case"
    assert heads.split("  ")[-1] == "here / base" and heads.split()[-5:-3] == ["v1.2", "here"]
    assert [line.split() for line in body] == [
        ["native", "seconds_per_image", "s", "2", "1.2", "0.500"],
        ["new", "seconds_per_image", "s", "-", "3", "-"],
    ]


def test_a_revision_that_is_none_is_named() -> None:
    with pytest.raises(RuntimeError, match="no-such-revision"), base.worktree("no-such-revision"):
        pass


def test_without_a_base_it_is_pytest_with_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def called(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        calls.append((command, more["cwd"]))
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", called)
    assert bench_main.main(["--quick", "--peers", "none"]) == 3
    assert calls == [([sys.executable, "-m", "pytest", "bench/", "--quick", "--peers", "none"], ROOT)]


@pytest.mark.long
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no git checkout")
def test_the_head_beside_what_is_here() -> None:
    """The package of a revision is built, imported and raced."""
    options = ["--turns", "1", "--quick", "-k", "seconds", "--engines", "grouped", "--peers", "plain_loop"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--base", "HEAD", *options], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "with today's bench" in done.stdout
    assert len(re.findall(r"^(?:grouped|plain_loop) +seconds_per_image +s( +[\d.e-]+){3}$", done.stdout, re.M)) == 2
    worktrees = subprocess.run(["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "/base" not in worktrees
