"""What a verdict holds for."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

import pytest
import torch

import adgan_fast
from adgan_fast.admission import machine

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def asked_anew() -> None:
    for function in (machine.driver, machine.sources):
        function.cache_clear()


def test_a_machine_is_its_gpu_driver_and_software(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\nGCC version: 12\n"
    )
    monkeypatch.setattr(machine, "DRIVERS", (tmp_path / "none", tmp_path / "version"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU at {device}")
    monkeypatch.setattr(metadata, "version", lambda name: f"version of {name}")
    found = machine.of(torch.device("cuda:1"))
    assert found[:5] == ("a GPU at cuda:1", "570.86.15", torch.__version__, "version of triton", adgan_fast.__version__)
    assert len(found.sources) == 64
    assert "a GPU at cuda:1 (driver 570.86.15, torch " in str(found)


def test_without_a_kernel_module_the_cuda_version_that_is_served_stands_for_the_driver(monkeypatch) -> None:
    monkeypatch.setattr(machine, "DRIVERS", ())
    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: 13000, raising=False)
    assert machine.driver() == "of CUDA 13000"


def test_triton_may_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", none)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert machine._triton() == "none"


@pytest.mark.parametrize(
    "file", ["kernels/maps/general_kernels.py", "kernels/configs/some-gpu.json", "adgan_fast/engine/descent.py"]
)
def test_a_change_of_a_kernel_of_tuned_tiles_or_of_an_engine_is_another_machine(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a copy of the package, found in its place."""
    package = Path(adgan_fast.__file__).parent
    for name in machine.SOURCES:
        inside = package / name
        source = inside if inside.is_dir() else package.parent / name  # kernels/ lies beside it in a checkout
        copied = tmp_path / ("kernels" if name == "kernels" else f"adgan_fast/{name}")
        shutil.copytree(source, copied, ignore=shutil.ignore_patterns("__pycache__"))

    class Spec:
        def __init__(self, name: str):
            last = name.removeprefix("adgan_fast.")
            self.submodule_search_locations = [
                str(tmp_path / ("kernels" if last == "kernels" else f"adgan_fast/{last}"))
            ]

    before = machine.sources()
    machine.sources.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", Spec)
    assert machine.sources() == before
    with open(tmp_path / file, "a") as changed:
        changed.write("\n")
    machine.sources.cache_clear()
    assert machine.sources() != before
