"""bench.gpu on a machine without a GPU: its parts run, one that fails stops no other, and its model counts right."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.gpu import checks
from bench.gpu import run as gpu
from bench.gpu import table as gpu_table
from bench.race import gate
from bench.studies import precision
from tests.support.paths import ROOT

pytest.importorskip("triton", reason="Triton is not installed")


def smoke(out: Path, parts: str, *more: str) -> tuple[int, dict[str, Any]]:
    """Exit status and gpu.json of a smoke run."""
    status = gpu.main(["--smoke", "--parts", parts, "--out", str(out), *more])
    return status, json.loads((out / "gpu.json").read_text())


BAD_PARTS = """
import os, time

def raises(part):
    part.add("case", "name", "figure", 1.0, "s")
    raise RuntimeError("as it should")

def hangs(part):
    part.add("case", "name", "figure", 2.0, "s")
    time.sleep(600)

def crashes(part):
    os.abort()
"""


def test_parts_that_fail_hang_or_crash_are_reported_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad_parts.py").write_text(BAD_PARTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    bad = {
        "raises": gpu.PartEntry("bad_parts:raises", 30),
        "hangs": gpu.PartEntry("bad_parts:hangs", 2.5),
        "crashes": gpu.PartEntry("bad_parts:crashes", 30),
    }
    monkeypatch.setattr(gpu, "PARTS", bad | {"machine": gpu.PARTS["machine"]})
    status, found = smoke(tmp_path / "out", "")
    assert status == 1
    parts = found["parts"]
    assert [(name, part["status"]) for name, part in parts.items()] == [
        ("raises", "failed"), ("hangs", "timed out"), ("crashes", "failed"), ("machine", "ok"),
    ]  # fmt: skip
    assert "as it should" in parts["raises"]["error"]
    assert [row["value"] for row in parts["raises"]["rows"] + parts["hangs"]["rows"]] == [1.0, 2.0]  # kept all the same
    assert 10 <= parts["hangs"]["seconds"] < 30
    rates = {row["engine"]: row["value"] for row in parts["machine"]["rows"] if row["metric"] == "rate"}
    assert set(rates) == {"copy", "bf16", "tf32", "float32"} and min(rates.values()) > 0
    printed = capsys.readouterr().out
    for line in ("PART raises FAILED", "PART hangs TIMED OUT", "PART crashes FAILED", "1 of 4 parts done"):
        assert line in printed
    assert printed.endswith((tmp_path / "out" / "gpu.txt").read_text() + "\n")


SAID = """\
[gw0] [ 33%] PASSED tests/a.py::test_a[cuda]
[gw1] [ 66%] FAILED tests/a.py::test_b[of two words]
tests/b.py::test_c[cuda] SKIPPED (no)                                     [100%]
=================================== FAILURES ===================================
FAILED tests/a.py::test_b[of two words] - assert 0
"""


def test_outcomes_of_tests_are_read_from_what_pytest_prints() -> None:
    assert checks.outcomes(SAID.replace("]\n", "] \n")) == [
        ("tests/a.py::test_a[cuda]", "PASSED"),
        ("tests/a.py::test_b[of two words]", "FAILED"),
        ("tests/b.py::test_c[cuda]", "SKIPPED"),
    ]


def test_a_part_without_time_is_left_out(tmp_path: Path) -> None:
    status, found = smoke(tmp_path, "machine", "--minutes", "0.05")
    assert status == 1 and found["parts"]["machine"]["status"] == "skipped"


def test_a_smoke_run_measures_searches_and_tunes_behind_the_gate(tmp_path: Path) -> None:
    status, found = smoke(tmp_path, "admission,gate-bf16,tune")
    assert status == 0, (tmp_path / "gpu.log").read_text()
    rows = {name: part["rows"] for name, part in found["parts"].items()}
    assert next(iter(rows)) == next(iter(gpu.PARTS)) == "admission"
    (admitted,) = rows["admission"]
    assert (admitted["engine"], admitted["metric"]) == ("triton float32 frozen", "admitted_after")
    gates = [row["value"] for row in rows["gate-bf16"] if row["metric"] == "gate_rms"]
    assert len(gates) == 4 and all(0 < rms < 2e-2 for rms in gates)
    assert [row["key"].split(" groups1 ")[0] for row in rows["tune"]] == ["vector forward bf16", "product bf16"]
    assert all(row["value"] >= 1 and set(row["tiles"]) >= {"inner", "outer", "warps"} for row in rows["tune"])
    assert not (ROOT / "kernels" / "configs" / "smoke.json").exists()


def test_a_red_gate_leaves_no_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.gpu import engine as gpu_engine
    from bench.gpu.part import Part

    part = Part(
        "cpu", True, True, "", "", str(tmp_path / "rows"), str(tmp_path / "none"), str(tmp_path), "", math.inf
    )  # fmt: skip
    wrong = lambda images, starts: (torch.ones(len(images), len(starts)),) * 2  # noqa: E731
    monkeypatch.setattr(gpu_engine, "contenders", lambda: {"triton": FakeContender(wrong)})
    gpu_engine.speed(part, "float32")
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert not [row for row in rows if row.get("metric") in ("images_per_second", "seconds")]
    assert all("gate red" in row["failed"] for row in rows if "failed" in row)
    assert [row for row in rows if "failed" in row]


def test_the_references_of_all_gates_are_made_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.gpu import engine as gpu_engine
    from bench.gpu.part import Part

    part = Part("cpu", True, True, "", "", "", "", str(tmp_path), "", math.inf)
    gpu_engine.references(part)
    monkeypatch.setattr(gpu_engine.gate, "reference", lambda *_: pytest.fail("made anew"))
    contender = FakeContender(lambda images, starts: (torch.ones(len(images), len(starts)),) * 2)
    monkeypatch.setattr(gpu_engine, "contenders", lambda: {"triton": contender})
    found = dataclasses.replace(part, rows_file=str(tmp_path / "rows"))
    gpu_engine.gates(found, "bf16")
    assert (tmp_path / "rows").read_text().count('"gate_rms"') == 4


class FakeContender:
    def __init__(self, run: Any) -> None:
        self.run = run

    def start(self, case: Any) -> Any:
        return self.run


def test_the_names_of_parts_are_taken_by_how_they_begin() -> None:
    assert gpu.chosen("gate,machine") == ["machine", "gate-float32", "gate-bf16", "gate-tf32"]
    assert gpu.chosen("") == list(gpu.PARTS)
    with pytest.raises(ValueError, match="no part is called 'nonsense'"):
        gpu.chosen("nonsense")


def test_a_checkout_needs_no_installation(tmp_path: Path) -> None:
    """With what `pip install -e` left behind taken away, the kernels are found by PYTHONPATH alone."""
    code = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]; "
        "import adgan_fast.kernels.maps.geometry as g; print(g.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=gpu.environment("cpu"), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == ROOT / "kernels" / "maps" / "geometry.py"
    alone = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=alone, capture_output=True).returncode


# -- the model -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program() -> Any:
    from adgan_fast.generator.rules import lower
    from adgan_fast.models import DCGANGenerator

    return lower(DCGANGenerator(32, 1, 256, 64).eval(), (256,))


def test_the_model_gives_the_designs_bytes_a_parameter(program: Any) -> None:
    from bench.gpu import model as gpu_model

    lines = gpu_model.decisions(program, 5, 64, gpu_model.H200)[1:]
    assert [line[1] for line in lines] == ["204", "136", "68", "48", "24", "18"]
    assert lines[0][2] == "5.18"  # ms an image: 204 bytes · 1,705,856 · 64 / 4.3e12


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_models_state_is_what_each_form_moves(program: Any, precision: str) -> None:
    """Of Δ 3b(k - 1) a weight, of stored moments 4c(k - 1) more, as kernels/maps/general.py and vector.py say."""
    from adgan_fast.engine.triton.lift import lift
    from bench.gpu import model as gpu_model

    vector, wide, narrow = (chain.geometry for chain in lift(program)[1])
    delta, moment = (4, 4) if precision == "float32" else (2, 2)
    for geometry, weights in ((wide, 256 * 128 * 16), (narrow, 128 * 64 * 16)):
        for form, each in (("rebuild", 3 * delta * 4), ("stored", (3 * delta + 4 * moment) * 4)):
            calls = gpu_model.of_map("", geometry, 5, precision, form=form)
            assert sum(call.state for call in calls) == each * weights
            assert sum(call.updates for call in calls) == 5 * weights
    calls = gpu_model.of_map("", vector, 5, precision, opened=0.5)
    assert sum(call.state for call in calls) == 3 * delta * 4 * 256 * 4096 / 2
    dense = 2 * 8_388_608 + 8_388_608  # θ₀, Δ and one gradient
    forward = [c for c in gpu_model.of_map("", wide, 5, precision, form="stored") if (c.call, c.step) == ("forward", 3)]
    assert [call.kernel for call in forward] == ["shared", "change"]
    assert sum(sum(call.products.values()) for call in forward) == dense


def test_a_launch_takes_as_long_as_its_slowest_resource_and_launches_add_up() -> None:
    from bench.gpu.model import Call, by_kernel

    rates = {"copy": 100.0, "tf32": 30.0, "bf16": 40.0, "float32": 10.0, "lanes": 64.0}
    matrix = Call("layer", "forward", 2, "change", 60.0, 40.0, {"tf32x3": 5.0, "bf16": 20.0}, issued=3.0)
    assert matrix.memory_seconds(rates) == 1.0 and matrix.issue_seconds(rates) == 1.5
    assert matrix.matrix_seconds(rates) == matrix.seconds(rates) == 2.0
    memory = Call("layer", "forward", 3, "change", 300.0)
    assert memory.seconds(rates) == 3.0
    assert by_kernel([matrix, memory], rates, 10) == {"change": (40.0, 20.0, 15.0, 50.0)}


def test_the_table_of_an_empty_run_says_so() -> None:
    skipped = {"status": "skipped", "error": "no time left", "seconds": 0, "rows": []}
    found = gpu_table.lines({"smoke": False, "parts": {"tests": skipped}})
    assert found == ["PART tests SKIPPED: no time left", "0 of 1 parts done in 0 s."]


# -- tuned tiles ---------------------------------------------------------------------------------------------------


def test_tuned_tiles_are_read_where_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adgan_fast.kernels.maps import choices as map_choices

    from bench.gpu import tune as gpu_tune

    monkeypatch.setattr(map_choices, "__file__", str(tmp_path / "maps" / "choices.py"))
    file = map_choices.config_file("NVIDIA H200 (SXM)")
    assert file == tmp_path / "configs" / "nvidia-h200-sxm.json"
    gpu_tune.write(file, {"change bf16 a": {"rows": 64, "inner": 32, "outer": 64, "warps": 8, "stages": 2}})
    gpu_tune.write(file, {"change bf16 b": {"rows": 16, "inner": 32, "outer": 64, "warps": 8, "stages": 2}})
    map_choices._config.cache_clear()
    try:
        found = map_choices._config("NVIDIA H200 (SXM)")
        assert set(found) == {"change bf16 a", "change bf16 b"}
        assert map_choices.Tiles(**found["change bf16 b"]).rows == 16
        assert map_choices._config("another GPU") == {}
        with gpu_tune.using({"change bf16 b": map_choices.Tiles(32, 16, 16, 4, 2)}):
            assert map_choices._config("NVIDIA H200 (SXM)")["change bf16 b"]["rows"] == 32
        assert map_choices._config("NVIDIA H200 (SXM)")["change bf16 b"]["rows"] == 16
    finally:
        map_choices._config.cache_clear()


def tuned_by(measure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: bool = False) -> dict[str, Any]:
    """The row of a kernel of a smoke run, with `measure(number of the choice)` in place of what is measured."""
    from bench.gpu import tune as gpu_tune
    from bench.gpu.part import Part

    numbers, tasks = itertools.count(), gpu_tune._tasks
    monkeypatch.setattr(gpu_tune, "_tasks", lambda part: [task for task in tasks(part) if task.kernel == "product"])
    monkeypatch.setattr(gpu_tune, "OPTIONS", {kernel: {"outer": (32, 64, 128)} for kernel in gpu_tune.OPTIONS})
    monkeypatch.setattr(gpu_tune, "_measure", lambda *_: (torch.ones(1), measure(next(numbers))))
    folder = str(tmp_path)
    gpu_tune.tune(Part("cpu", True, quick, "", "", str(tmp_path / "rows"), "", folder, folder, math.inf))
    (row,) = map(json.loads, (tmp_path / "rows").read_text().splitlines())
    return row


def test_tiles_that_do_not_fit_are_named_in_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import triton

    def measure(number: int) -> float:
        if number == 1:
            raise triton.OutOfResources(300000, 232448, "shared memory")
        if number == 2:
            raise triton.CompilationError("def kernel(x):\n    return", None, "too large\nby far")
        return 1.0

    row = tuned_by(measure, tmp_path, monkeypatch)
    assert row["metric"] == "speedup" and row["value"] == 1.0
    assert [choice["tiles"]["outer"] for choice in row["unfit"]] == [32, 128]
    first, second = (choice["error"] for choice in row["unfit"])
    assert first.startswith("OutOfResources: out of resource: shared memory, Required: 300000")
    assert second == "CompilationError: too large"


def test_a_quick_run_times_the_tiles_that_the_count_favours_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adgan_fast.kernels.maps.choices import Tiles

    from bench.gpu import tune as gpu_tune

    default, other = Tiles(64, 64, 64, 4, 3), Tiles(16, 32, 32, 4, 2)
    monkeypatch.setattr(gpu_tune, "_counted", lambda *_: [other, default, other])
    row = tuned_by(lambda number: 1.0 - number / 2, tmp_path, monkeypatch, quick=True)
    assert [(choice["tiles"], choice["seconds"]) for choice in row["measured"]] == [
        (dataclasses.asdict(default), 1.0), (dataclasses.asdict(other), 0.5),
    ]  # fmt: skip
    assert row["tiles"] == dataclasses.asdict(other) and row["value"] == 2.0


def test_another_error_of_tiles_is_the_kernels_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(number: int) -> float:
        if number:
            raise RuntimeError("an illegal memory access\nand more")
        return 1.0

    row = tuned_by(measure, tmp_path, monkeypatch)
    assert "metric" not in row and row["failed"] == "RuntimeError: an illegal memory access"


# -- precision -----------------------------------------------------------------------------------------------------


def test_the_precision_table_passes_what_is_exact_and_names_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    monkeypatch.setattr(precision, "ENOUGH", 12)
    from adgan_fast import SearchConfig
    from adgan_fast.training import WGANConfig

    settings = WGANConfig(latent=8, width=4, steps=3, batch_size=16, objective="gp", checkpoint_every=0, sample_every=0)
    gen = precision.trained("digits", None, 8, settings)
    config = SearchConfig(n_seed=3, steps=3)
    task = precision.task(gen, "digits", None, 8, 12, config, "cpu")
    assert task.anomalous.tolist() == [False] * 6 + [True] * 6
    first, line = precision.table(task, [("grouped", "float32")])
    assert (first.engine, first.precision, first.spearman) == ("reference", "float64", 1.0)
    assert line.failures == "" and line.rms < 1e-3 and line.spearman > 0.999
    assert len(line.cells) == len(first.cells) == len(precision.HEADS)
    wanted = precision.reference(task)
    wrong = precision.compare(task, gate.ReferenceLosses(wanted.initial, wanted.final.flip(0)), "grouped", "float32")
    assert "rms" in wrong.failures and "Spearman" in wrong.failures
