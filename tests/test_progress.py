"""Progress on stderr: lines where there is no terminal, and none that nobody asked for."""

from __future__ import annotations

import io
import sys

import pytest
import tqdm.auto

from adgan_fast import progress


class Clock:
    """A time that stands still until it is told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress.time, "monotonic", made)
    return made


def test_a_line_with_the_first_unit_each_minute_and_in_the_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.bar(1000, "image", done=100, about="score") as shown:
        for _ in range(300):
            clock.now += 1
            shown.update(2)
        shown.set_postfix_str("loss 0.1")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "score: 102 of 1000 images, 2 images/s, 449 s left" or "7 min left" in lines[0]
    assert len(lines) == 6 and lines[1].startswith("score: 222 of 1000 images, 2 images/s, 6 min left")
    assert lines[-1] == "score: 700 of 1000 images, 2 images/s, 2 min left, loss 0.1"


def test_a_bar_on_a_terminal_and_nothing_unasked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.bar(3, "image", shown=False) as shown:
        shown.update(3)
    assert capsys.readouterr() == ("", "")
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.bar(3, "image", about="score") as shown:
        assert isinstance(shown, tqdm.auto.tqdm)
        shown.update(3)
    assert "3/3" in terminal.getvalue() and "image/s" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (6000, "1 h 40 min")]
)
def test_durations_are_said_as_a_person_says_them(seconds: float, said: str) -> None:
    assert progress.duration(seconds) == said
