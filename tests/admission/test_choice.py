"""An engine of the GPU is taken on a machine that it has not run on only after a trial; the GPU is made up here."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

import adgan_fast
from adgan_fast import admission, scorer
from adgan_fast.admission import kept, machine, trial
from adgan_fast.admission.kept import Settings
from adgan_fast.core.job import Job
from adgan_fast.engine import choose, named
from adgan_fast.generator.program import Program
from tests.support.jobs import make_job
from tests.support.small import CASE
from tests.support.triton import lowered

pytestmark = pytest.mark.usefixtures("one_thread")

HERE = machine.Machine("NVIDIA H100", "580.1", "2.11", "3.6", "0.1.0", "0123456789abcdef")
FIGURES = "a DCGAN: rms 1.0e-01 of d, 1e-03 is allowed"


class Gpu:
    """What is made up: the machine, what a trial finds of an engine there, and the trials that there were.

    Attributes:
        wrong: by engine, what is wrong with it, or an error that its trial ends in.
    """

    def __init__(self, program: Program, monkeypatch: pytest.MonkeyPatch):
        self.program = program
        self.machine, self.wrong, self.trials = HERE, {}, []
        monkeypatch.setenv("TRITON_INTERPRET", "0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        monkeypatch.setattr(scorer.verify, "verdict", lambda *_: None)
        monkeypatch.setattr(named("eager"), "refuses", lambda job: None)  # which it tries on the device
        monkeypatch.setattr(machine, "of", lambda device: self.machine)
        monkeypatch.setattr(trial, "wrong_and_note", self.trial)

    def trial(self, engine, precision, weights, device) -> tuple[str, str]:
        self.trials.append(Settings(engine.name, precision, weights))
        found = self.wrong.get(engine.name, "")
        if isinstance(found, BaseException):
            raise found
        return found, ""

    def job(self, engine: str = "auto", **settings) -> Job:
        return make_job(CASE, self.program, "cuda", engine=engine, **settings)

    def chosen(self, engine: str = "auto", **settings) -> str:
        return choose(self.job(engine, **settings), scorer.distrust).name

    def another_process(self) -> None:
        admission._verdicts.clear()


@pytest.fixture(scope="module")
def program() -> Program:
    """Made while there is no GPU: PyTorch's export would use it."""
    return lowered(CASE)


@pytest.fixture
def gpu(program: Program, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    pytest.importorskip("triton", reason="Triton is not installed")
    return Gpu(program, monkeypatch)


TRITON = Settings("triton", "float32", "per_seed")


def test_an_engine_is_tried_once_on_a_machine_and_one_log_line_says_so(gpu: Gpu, cache: Path, caplog) -> None:
    caplog.set_level(logging.INFO, "adgan_fast")
    assert gpu.chosen() == "triton" and gpu.trials == [TRITON]
    said = [line for line in caplog.messages if "was tried on" in line]
    assert len(said) == 1 and str(HERE) in said[0]
    assert said[0].startswith("engine 'triton' (float32, per_seed) was tried on NVIDIA H100 (driver 580.1, ")
    assert ": right (" in said[0] and f"kept in {cache}" in said[0]
    assert gpu.chosen() == "triton" and gpu.chosen("triton") == "triton"
    gpu.another_process()
    assert gpu.chosen() == "triton"
    assert gpu.trials == [TRITON]


@pytest.mark.parametrize("field", machine.Machine._fields)
def test_another_machine_is_another_trial(gpu: Gpu, field: str) -> None:
    gpu.chosen()
    gpu.machine = HERE._replace(**{field: "another"})
    gpu.chosen()
    assert gpu.trials == [TRITON, TRITON]


def test_each_precision_and_way_of_owning_weights_is_a_trial_of_its_own(gpu: Gpu) -> None:
    for settings in ({}, {"precision": "bf16"}, {"weights": "frozen"}, {"loss": "l1"}, {"n_seed": 9}, {"seed": 3}):
        gpu.chosen(**settings)
    assert gpu.trials == [TRITON, TRITON._replace(precision="bf16"), TRITON._replace(weights="frozen")]


def test_graphs_that_are_switched_off_are_not_tried(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.chosen()
    monkeypatch.setattr(named("triton"), "graphs", False)
    gpu.chosen()
    assert [settings.engine for _, settings, _ in kept.read()] == ["triton", "triton without CUDA graphs"]


def test_auto_goes_to_the_next_engine_with_a_warning_where_one_is_wrong(gpu: Gpu, caplog) -> None:
    gpu.wrong["triton"] = FIGURES
    assert gpu.chosen() == "grouped"
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith("engine 'triton' is not right on NVIDIA H100 (driver 580.1, torch 2.11, ")
    assert FIGURES in warning and "`adgan-fast check` tries it anew" in warning
    gpu.wrong["grouped"] = FIGURES
    gpu.another_process()
    kept.path().unlink()
    assert gpu.chosen() == "eager"


def test_a_wrong_engine_stays_wrong_in_another_process_and_is_tried_anew_when_asked(gpu: Gpu) -> None:
    gpu.wrong["triton"] = FIGURES
    assert gpu.chosen() == "grouped"
    gpu.another_process()
    gpu.wrong.clear()
    assert gpu.chosen() == "grouped"  # as kept
    assert [settings.engine for settings in gpu.trials] == ["triton", "grouped"]
    gpu.wrong["grouped"] = FIGURES


def test_one_asked_for_by_name_raises_with_the_figures_and_the_remedy(gpu: Gpu) -> None:
    gpu.wrong["triton"] = FIGURES
    for _ in range(2):
        with pytest.raises(
            ValueError, match=rf"engine 'triton' cannot run: is not right on NVIDIA H100.*{FIGURES}"
        ) as e:
            gpu.chosen("triton")
        for remedy in ("`adgan-fast check` tries it anew", "verify=False", "Use engine='auto', or one of 'grouped'"):
            assert remedy in str(e.value)
    assert gpu.chosen("triton", verify=False) == "triton"
    assert gpu.trials == [TRITON]


def test_without_verify_nothing_is_tried(gpu: Gpu) -> None:
    assert gpu.chosen(verify=False) == gpu.chosen("triton", verify=False) == "triton"
    assert gpu.trials == [] and not kept.path().exists()


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: an illegal memory access\nand more"), TypeError("no stages")]
)
def test_an_error_of_any_kind_is_what_is_wrong(gpu: Gpu, error: Exception) -> None:
    gpu.wrong["triton"] = error
    assert gpu.chosen() == "grouped"
    found = kept.find(HERE, TRITON)
    assert found is not None
    assert found.wrong == f"it fails: {type(error).__name__}: {str(error).splitlines()[0]}"


@pytest.mark.parametrize("error", [MemoryError("none left"), torch.OutOfMemoryError("none left")])
def test_want_of_memory_is_no_verdict(gpu: Gpu, error: Exception, caplog) -> None:
    gpu.wrong["triton"] = error
    assert gpu.chosen() == gpu.chosen() == "triton"
    assert gpu.trials == [TRITON, TRITON] and kept.read() == []
    assert "engine 'triton' (float32, per_seed) is not tried on NVIDIA H100" in caplog.text


def test_an_interrupt_is_no_verdict(gpu: Gpu) -> None:
    gpu.wrong["triton"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        gpu.chosen()
    assert kept.read() == []


def test_a_cache_that_cannot_be_written_has_each_process_try_once(gpu: Gpu, cache: Path, caplog) -> None:
    caplog.set_level(logging.INFO, "adgan_fast")
    cache.parent.write_text("a file where the folder would be")
    assert gpu.chosen() == gpu.chosen() == "triton"
    assert gpu.trials == [TRITON]
    assert "not kept" in caplog.text
    gpu.another_process()
    assert gpu.chosen() == "triton" and gpu.trials == [TRITON, TRITON]


def test_engines_that_are_pytorchs_own_work_are_not_tried(gpu: Gpu) -> None:
    assert [gpu.chosen(name) for name in ("eager", "reference")] == ["eager", "reference"]
    assert gpu.trials == []


def test_on_a_cpu_nothing_is_asked(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def never(*_: object) -> None:
        raise AssertionError("asked on a CPU")

    monkeypatch.setattr(machine, "of", never)
    monkeypatch.setattr(kept, "read", never)
    for engine in ("auto", "grouped"):
        adgan_fast.score(CASE.module, CASE.images(1), n_seed=1, steps=1, engine=engine, latent_shape=CASE.latent_shape)
    assert not cache.exists()
