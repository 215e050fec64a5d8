"""Where the Triton engine is taken, and what it refuses."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch
from torch import nn

import adgan_fast
from tests.support.triton import ENGINE, TINY, job_of_tiny, search

pytestmark = pytest.mark.usefixtures("one_thread")


def test_auto_takes_it_on_a_gpu_and_never_under_the_interpreter(device: torch.device, caplog) -> None:
    caplog.set_level(logging.INFO, "adgan_fast")
    found = adgan_fast.search(TINY.module, TINY.images(1), n_seed=1, steps=1, device=device)
    assert (found.engine == "triton") == (device.type == "cuda")
    if device.type == "cpu":
        assert "asked for by name" in caplog.text
        assert search(TINY, device, n_seed=1, steps=0).engine == "triton"


def test_float64_is_refused(device: torch.device) -> None:
    with pytest.raises(
        ValueError, match=r"'triton' cannot run: it computes in float32, not in torch.float64.*'grouped'"
    ):
        adgan_fast.search(TINY.double(), TINY.images(1), engine="triton", device=device)


def test_a_layer_that_is_not_known_is_named(device: torch.device) -> None:
    gen = nn.Sequential(nn.Linear(3, 4), nn.Softshrink(), nn.Unflatten(1, (1, 2, 2)))
    with pytest.raises(ValueError, match=r"'triton' cannot run: layer '1 \(Softshrink\)': op aten\.gt"):
        adgan_fast.search(gen, torch.zeros(1, 1, 2, 2), engine="triton", device=device)


class TestWithoutTheInterpreter:
    @pytest.fixture(autouse=True)
    def compiled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRITON_INTERPRET", "0")

    def test_a_machine_without_a_gpu_is_told_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert "no CUDA device" in ENGINE.why_not()
        info = next(info for info in adgan_fast.engines() if info.name == "triton")
        assert info.exact and not info.available and info.why_not == ENGINE.why_not()
        with pytest.raises(ValueError, match=r"'triton' cannot run: there is no CUDA device.*engine='auto'"):
            adgan_fast.score(TINY.module, TINY.images(1), engine="triton")

    def test_a_missing_triton_has_a_remedy_where_there_is_a_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert ENGINE.why_not() == "Triton is not installed; pip install 'adgan-fast[triton]'"
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert "no CUDA device" in ENGINE.why_not()

    def test_a_generator_on_the_cpu_is_refused(self) -> None:
        assert ENGINE.refuses(job_of_tiny("cpu")) == "it runs on a CUDA device, not on cpu"

    def test_an_old_gpu_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Turing")
        monkeypatch.setattr(torch.version, "hip", None)
        assert ENGINE.refuses(job_of_tiny("cuda")) == "Turing is older than compute capability 8.0"
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        assert ENGINE.refuses(job_of_tiny("cuda")) is None


@pytest.mark.parametrize(
    ("triton", "numpy", "fails"),
    [("3.6.0", "2.4.0", True), ("3.6.0+git1", "2.10.1", True), ("3.6.0", "2.3.5", False), ("3.7.0", "2.4.6", False)],
)
def test_an_interpreter_that_fails_with_this_numpy_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, triton: str, numpy: str, fails: bool
) -> None:
    monkeypatch.setattr("triton.__version__", triton)
    monkeypatch.setattr("numpy.__version__", numpy)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    if not fails:
        assert ENGINE.why_not() is None
        return
    named = f"the interpreter of Triton {triton} (TRITON_INTERPRET=1) fails with NumPy {numpy}"
    assert ENGINE.why_not() == f"{named}; pip install 'triton>=3.7' or 'numpy<2.4'"
    with pytest.raises(ValueError, match=re.escape(f"'triton' cannot run: {named}")):
        adgan_fast.score(TINY.module, TINY.images(1), engine="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert ENGINE.why_not() is None  # compiled kernels do not care


def test_listing_the_engines_loads_no_triton() -> None:
    script = "import sys, adgan_fast; adgan_fast.engines(); sys.exit('triton' in sys.modules)"
    compiled = {**os.environ, "TRITON_INTERPRET": "0"}
    assert subprocess.run([sys.executable, "-c", script], check=False, env=compiled).returncode == 0
