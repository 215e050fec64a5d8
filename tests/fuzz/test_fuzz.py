"""A few cases of the fuzz (fuzz.py), the same on every run. `python -m tests.fuzz SEED COUNT` tries others."""

from __future__ import annotations

import dataclasses
import importlib.util

import pytest
import torch

import adgan_fast
from adgan_fast.engine.triton import lift as triton_lift
from tests.fuzz.cases import Case, case_of, search
from tests.fuzz.check import Oracle, Report, check, wrong_with

pytestmark = pytest.mark.usefixtures("one_thread")

AVAILABLE = tuple(e.name for e in adgan_fast.engines() if e.available and e.name in ("native", "grouped", "eager"))
CASES = 60
TRITON = (1, 2, 15, 26, 36)  # with private weights of maps, but for 15


def test_engines_agree_with_the_reference_on_generators_that_nobody_thought_of():
    report = Report()
    for seed in range(CASES):
        check(seed, report, AVAILABLE)
    assert not report.faults, str(report)
    assert len(report.set_aside) <= 0.05 * CASES, str(report)
    for engine in AVAILABLE:
        assert report.refused(engine) <= 0.1 * CASES, str(report)


def small(case: Case) -> Case:
    """One image, two starts and two steps of a case: interpreted kernels are slow."""
    starts = case.starts[:1, :2]
    settings = {**case.settings, "steps": min(2, case.settings["steps"]), "starts": starts, "n_seed": starts.shape[1]}
    return dataclasses.replace(case, images=case.images[:1], settings=settings, starts=starts)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("seed", TRITON)
def test_triton_agrees_with_the_reference(seed: int, device: torch.device, monkeypatch: pytest.MonkeyPatch):
    for least in ("LEAST_OUTPUTS", "LEAST_WEIGHTS"):  # every map is large enough
        monkeypatch.setattr(triton_lift, least, 1)
    case = small(case_of(seed))
    wrong = wrong_with(search(case, "triton", device=device), case, Oracle(case))
    assert not wrong, f"{'; '.join(wrong)}\n{case}"
