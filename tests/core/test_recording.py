"""Recordings: what fails within one is named, and hides nothing. The device is stood in for, but for the last."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from adgan_fast.core import recording as core_recording


class Recording:
    """A recording that cannot be ended once its work was broken off; `broken`: nor otherwise."""

    broken = False

    def __init__(self, graph: object, stream: object, capture_error_mode: str):
        assert capture_error_mode == "thread_local"  # other threads' work must not break a recording

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self.broken or kind is not None:
            raise RuntimeError("the recording was broken off")


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> type[Recording]:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", type("Graph", (), {}))
    monkeypatch.setattr(torch.cuda, "graph", Recording)
    monkeypatch.setattr(core_recording, "_broken", [])
    return Recording


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("none, on purpose"), RuntimeError("CUDA error: out of memory")]
)
def test_an_out_of_memory_error_within_a_recording_is_raised_as_such(error: Exception, recording) -> None:
    with pytest.raises(torch.OutOfMemoryError, match=str(error)):
        core_recording.capture(raising(error), None)
    assert len(core_recording._broken) == 1


@pytest.mark.parametrize("error", [TypeError("no such stage\nand more"), RuntimeError("not permitted"), ValueError()])
def test_any_other_error_within_a_recording_is_named_and_its_graph_kept_alive(error: Exception, recording) -> None:
    line = str(error).partition("\n")[0] or type(error).__name__
    with pytest.raises(RuntimeError, match=rf"^{type(error).__name__}: {line}$"):
        core_recording.capture(raising(error), None)
    assert [type(graph) for graph in core_recording._broken] == [torch.cuda.CUDAGraph]


def test_what_the_caller_was_handling_is_not_taken_for_the_error(recording) -> None:
    try:
        raise ValueError("the caller's own")
    except ValueError:
        with pytest.raises(KeyboardInterrupt):
            core_recording.capture(raising(KeyboardInterrupt()), None)
        with pytest.raises(RuntimeError, match=r"^TypeError: no such stage$"):
            core_recording.capture(raising(TypeError("no such stage")), None)


def test_a_recording_that_cannot_be_ended_is_named_too(recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "broken", True)
    with pytest.raises(RuntimeError, match=r"^RuntimeError: the recording was broken off$"):
        core_recording.capture(lambda: None, None)
    assert len(core_recording._broken) == 1


def test_an_interrupt_within_a_recording_is_none_of_its_errors(recording) -> None:
    with pytest.raises(KeyboardInterrupt):
        core_recording.capture(raising(KeyboardInterrupt()), None)
    assert len(core_recording._broken) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device, on which alone graphs are recorded")
def test_on_cuda_what_waits_for_the_device_breaks_a_recording_off_and_the_next_one_works() -> None:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        x = torch.ones(3, device="cuda")
        with pytest.raises(RuntimeError, match=r"^[A-Za-z]*Error: "):
            core_recording.capture(lambda: float(x.sum()), stream)
        recording = core_recording.capture(lambda: x * 2, stream)
        twice = recording.replay()
        assert twice.tolist() == [2.0, 2.0, 2.0]
