"""Command lines that nobody thought of: 50 every day, 1,000 with those tests that take long."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.commands import command_of, fault_of, make

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]


def faults(folder: Path, seeds: range) -> list[str]:
    """Of these cases, each with its command line."""
    make(folder)
    found = []
    for seed in seeds:
        command = command_of(seed)
        if fault := fault_of(command, folder / "out" / str(seed)):
            found.append(f"case {seed}: score {' '.join(command.arguments)}: {fault}")
    return found


@pytest.mark.parametrize(
    "seeds", [range(50), pytest.param(range(50, 1050), marks=pytest.mark.long)], ids=["50", "1000"]
)
def test_a_command_gives_a_right_result_or_says_what_is_wrong(
    seeds: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    valid = sum(command_of(seed).wrong is None for seed in seeds)
    assert len(seeds) / 2 <= valid < len(seeds)
    found = faults(tmp_path, seeds)
    assert not found, "\n".join(found)
