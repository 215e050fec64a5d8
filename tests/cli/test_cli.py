"""The command line: what it prints, where, and with which exit status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import adgan_fast
from adgan_fast import ops
from adgan_fast.cli import app, main
from adgan_fast.models import DCGANGenerator
from adgan_fast.training import save_generator

pytestmark = pytest.mark.usefixtures("one_thread")

GENERATORS = '''
import torch
from torch import nn

def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))

def says():
    made = linear()
    made.latent_shape = (6,)
    return made

def flat():
    return nn.Linear(6, 64)

def number():
    return 3

def sized(size):
    return nn.Linear(size, 64)

class Unknown(nn.Module):
    """Unknown to all engines but eager and reference."""
    def __init__(self):
        super().__init__()
        self.linear, self.latent_shape = nn.Linear(6, 64), (6,)

    def forward(self, z):
        return torch.lgamma(self.linear(z).abs() + 1).reshape(-1, 1, 8, 8)

class Nan(Unknown):
    def forward(self, z):
        return super().forward(z) * float("nan")

constant = 3
'''
SMALL = ["--n-seed", "2", "--steps", "2"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module of generators and a saved one; what is imported from it is forgotten again."""
    (tmp_path / "some_generators.py").write_text(GENERATORS)
    save_generator(DCGANGenerator(8, 1, 6, 4, generator=torch.Generator().manual_seed(0)), tmp_path / "g.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "some_generators", raising=False)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    status = main(list(arguments))
    return status, *capsys.readouterr()


def verdicts(out: str) -> dict[str, str]:
    return {found["engine"]: found["verdict"] for found in json.loads(out)["engines"]}


def python_m(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "adgan_fast", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, env={**os.environ, **environment})


# -- info ----------------------------------------------------------------------------------------------------------


def test_info_names_versions_machine_and_every_engine(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = told(capsys, "info")
    assert status == 0 and err == ""
    assert re.search(rf"^torch +{re.escape(torch.__version__)}$", out, re.MULTILINE)
    assert re.search(r"^memory free +\d+\.\d GiB$", out, re.MULTILINE)
    for engine in adgan_fast.engines():
        said = "runs here" if engine.available else f"no: {engine.why_not}"
        assert re.search(rf"^{engine.name} +{re.escape(said)}$", out, re.MULTILINE)


def test_info_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from adgan_fast.cli import info

    monkeypatch.setattr(info, "PACKAGES", (*info.PACKAGES, "no-such-package"))
    found = json.loads(told(capsys, "info", "--json")[1])
    assert found["versions"]["adgan_fast"] == adgan_fast.__version__ and found["versions"]["no-such-package"] is None
    assert found["threads"] == torch.get_num_threads() and found["memory_free_bytes"] > 0
    assert [e["name"] for e in found["engines"]] == [e.name for e in adgan_fast.engines()]
    assert found["instruction_set"] in (None, *adgan_fast.ops.INSTRUCTION_SETS)


# -- check ---------------------------------------------------------------------------------------------------------


def test_every_engine_here_passes_on_a_saved_generator(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = r"\d\.\de[-+]\d\d"
    status, out, err = told(capsys, "check", "g.safetensors", *SMALL)
    assert status == 0 and err == ""
    for engine in adgan_fast.engines():
        if engine.available and engine.name != "triton":
            assert re.search(rf"^{engine.name} +pass\*? +{figure} +{figure} +{figure} +\d+\.\d\d$", out, re.MULTILINE)
        elif not engine.available:
            assert re.search(rf"^{engine.name} +cannot run$", out, re.MULTILINE) and engine.why_not.rstrip(".") in out
    assert re.search(r"^bound +1e-03 +2e-04 +2e-05$", out, re.MULTILINE)


@pytest.mark.parametrize("weights", ["per_seed", "per_sample", "frozen"])
def test_settings_reach_the_engine(
    weights: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adgan_fast import testing

    asked: list[tuple[Any, Any, str]] = []
    right = testing.check_engine

    def check_engine(gen: Any, images: Any, *, engine: str, config: Any) -> Any:
        asked.append((images, config, engine))
        return right(gen, images, engine=engine, config=config)

    monkeypatch.setattr(testing, "check_engine", check_engine)
    more = ["--weights", weights, "--loss", "l1", "--precision", "bf16", "--count", "3", "--device", "cpu"]
    engines = ["--engine", "grouped", "--engine", "eager", "--engine", "grouped"]
    status, _, _ = told(capsys, "check", "some_generators:linear", "--latent-shape", "6", *SMALL, *more, *engines)
    assert status == 0 and [engine for *_, engine in asked] == ["grouped", "eager"]
    images, config, _ = asked[0]
    assert images.shape == (3, 1, 8, 8) and images.abs().max() <= 1 and images.std() > 0.4
    assert (config.n_seed, config.steps, config.weights, config.loss) == (2, 2, weights, "l1")
    assert (config.precision, config.latent_shape, config.device) == ("bf16", (6,), "cpu")
    assert torch.equal(images, asked[1][0])


def test_a_broken_engine_fails_with_the_figures(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = ops.adam_step_
    monkeypatch.setattr(
        ops, "adam_step_", lambda p, m, v, g, old, lrs, *rest: right(p, m, v, g, old, [lrs[0] * 1.1], *rest)
    )
    frozen = ["check", "g.safetensors", *SMALL, "--weights", "frozen", "--engine", "grouped", "--engine", "reference"]
    status, out, _ = told(capsys, *frozen)
    assert status == 1
    assert re.search(r"^grouped +FAIL ", out, re.MULTILINE) and re.search(r"^reference +pass", out, re.MULTILINE)
    assert re.search(r"^grouped FAILS: rms 1\.\de-01 of d, \de-03 is allowed", out, re.MULTILINE)
    status, out, _ = told(capsys, *frozen, "--json")
    assert status == 1 and verdicts(out) == {"grouped": "FAIL", "reference": "pass"}
    assert json.loads(out)["engines"][0]["rms"] > json.loads(out)["bound"]["rms"]


def test_what_only_the_plain_loop_excuses_is_marked(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adgan_fast import testing

    off = testing.Errors(2e-3, 1e-4, 1e-6, 0)
    monkeypatch.setattr(
        testing, "check_engine", lambda *_, engine, config: testing.Check(engine, off, (), testing.FLOAT32, 0.1)
    )
    status, out, _ = told(capsys, "check", "g.safetensors", "--engine", "eager")
    assert status == 0 and re.search(r"^eager +pass\* ", out, re.MULTILINE) and "plain float32 loop" in out


def test_an_engine_that_refuses_the_generator_is_listed_with_the_layer(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = told(capsys, "check", "some_generators:Unknown", *SMALL, "--json")
    found = {each["engine"]: each for each in json.loads(out)["engines"]}
    assert status == 0 and found["eager"]["verdict"] == found["reference"]["verdict"] == "pass"
    assert found["grouped"]["verdict"] == "cannot run" and "lgamma" in found["grouped"]["why_not"]
    status, out, _ = told(capsys, "check", "some_generators:Unknown", *SMALL, "--engine", "grouped")
    assert status == 1 and re.search(r"^grouped cannot run: .*lgamma", out, re.MULTILINE)  # none ran
    assert "Use engine=" not in out


def test_generators_of_every_kind(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = DCGANGenerator(8, 1, 6, 4, generator=torch.Generator().manual_seed(0)).eval()
    torch.export.save(torch.export.export(module, (torch.zeros(2, 6),)), folder / "g.pt2")
    for name in ("g.pt2", "some_generators:says", "some_generators:Unknown"):
        status, out, err = told(capsys, "check", name, *SMALL, "--engine", "eager", "--json")
        assert status == 0 and verdicts(out) == {"eager": "pass"}, err


def test_images_of_every_kind(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    np.save(folder / "i.npy", pixels)
    np.savez(folder / "i.npz", images=pixels[:, None] / np.float32(127.5) - 1)
    (folder / "i-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 8, 0, 0, 0, 8]) + pixels.tobytes())
    (folder / "pictures").mkdir()
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / "pictures" / f"{i}.png")
    seen = []
    for name in ("i.npy", "i.npz", "i-idx3-ubyte", "pictures"):
        status, out, err = told(
            capsys, "check", "some_generators:linear", "--images", name, *SMALL, "--engine", "eager", "--json"
        )
        assert status == 0, err
        seen.append(json.loads(out)["engines"][0]["rms"])
    assert seen[0] == seen[2] == seen[3] > 0  # the latent's shape is found by the images


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(
            ["check"],
            "there is no CUDA device, and without a generator it is a GPU that is checked; name a generator",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which is checked then"),
        ),
        (["check", "nowhere"], "nowhere: no such file; expected a .safetensors or .pt2 file, or module:callable"),
        (["check", "nowhere.safetensors"], "no generator here"),
        (["check", "nowhere.pt2"], "no such file"),
        (["check", "some_generators.py"], "not a safetensors file"),
        (["check", "no_module:x"], "No module named 'no_module'"),
        (["check", "some_generators:nothing"], "some_generators has no nothing"),
        (["check", "some_generators:constant"], "constant is a int; expected a callable"),
        (["check", "some_generators:number"], "number() returned a int, expected a torch.nn.Module"),
        (["check", "some_generators:sized"], "sized is called without arguments, but: missing a required argument"),
        (["check", "a b:c"], "nor a name of the form module:callable"),
        (["check", "some_generators:linear"], "give --latent-shape, or --images"),
        (["check", "some_generators:flat", "--latent-shape", "6"], "expected (1, C, H, W)"),
        (["check", "some_generators:Nan"], "NaN"),
        (["check", "g.safetensors", "--latent-shape", "7"], "does not take a latent of shape (1, 7)"),
        (["check", "g.safetensors", "--latent-shape", "x"], "sizes like 256 or 64,4,4, got 'x'"),
        (["check", "g.safetensors", "--engine", "fast"], "--engine must be one of triton, native"),
        (["check", "g.safetensors", "--weights", "own"], "weights must be one of 'per_seed'"),
        (["check", "g.safetensors", "--loss", "l3"], "loss must be one of"),
        (["check", "g.safetensors", "--n-seed", "0"], "n_seed must be a whole number of at least 1"),
        (["check", "g.safetensors", "--n-seed", "many"], "--n-seed"),
        (["check", "g.safetensors", "--count", "0"], "--count"),
        (["check", "g.safetensors", "--device", "cpux"], "cpux"),
        (["check", "g.safetensors", "--images", "nowhere"], "--images: nowhere: no such file"),
        (["check", "g.safetensors", "--images", "g.safetensors"], "not an idx file"),
        (["check", "g.safetensors", "--images", "large.npy"], "(N, 1, 9, 9)"),
        (["check", "g.safetensors", "--images", "none.npy"], "holds no image"),
        (["check", "g.safetensors", "--bogus"], "--bogus"),
        (["bogus"], "bogus"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_on_stderr(
    arguments: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(folder / "large.npy", np.zeros((1, 1, 9, 9), np.uint8))
    np.save(folder / "none.npy", np.zeros((0, 1, 8, 8), np.uint8))
    status, out, err = told(capsys, *arguments)
    assert status == 2 and out == "" and err.startswith("adgan-fast: error: ") and err.count("\n") == 1
    assert words in err


def test_an_error_in_the_users_own_code_keeps_its_traceback(folder: Path) -> None:
    (folder / "mine.py").write_text("def make():\n    raise RuntimeError('of mine')\n")
    with pytest.raises(RuntimeError, match="of mine"):
        main(["check", "mine:make"])


# -- the program ---------------------------------------------------------------------------------------------------


def test_help_explains_the_commands_and_what_it_runs() -> None:
    found = CliRunner().invoke(app, ["--help"])
    assert found.exit_code == 0 and "info" in found.output and "check" in found.output
    found = CliRunner().invoke(app, ["check", "--help"])
    assert found.exit_code == 0
    words = " ".join(found.output.split())
    assert "adgan-fast check demo-output/generator.safetensors adgan-fast check" in words  # examples
    assert "That runs the code in it." in words and "Exit status" in words
    assert all(f"--{name}" in words for name in ("images", "n-seed", "latent-shape", "json", "precision"))


def test_without_a_command_there_is_help_and_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = told(capsys)
    assert status == 2 and out == "" and "Commands:" in err
    assert told(capsys, "--version")[:2] == (0, f"{adgan_fast.__version__}\n")


def test_memory_that_runs_out_and_an_interrupt_end_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adgan_fast import testing

    for error, status, words in ((MemoryError("needs 9 GiB"), 1, "needs 9 GiB"), (KeyboardInterrupt(), 130, "interr")):

        def fail(*_: Any, error: BaseException = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(testing, "check_engine", fail)
        found, _, err = told(capsys, "check", "g.safetensors", "--engine", "eager")
        assert found == status and words in err and err.strip().count("\n") == 0


def test_it_runs_as_a_module_from_any_folder_on_ascii_alone(folder: Path) -> None:
    ascii_alone = {"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}
    (folder / "größe.py").write_text("def make():\n    return 3\n")
    done = python_m("check", "some_generators:says", *SMALL, "--engine", "eager", cwd=folder, **ascii_alone)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and b"eager" in done.stdout and b"pass" in done.stdout
    done = python_m("check", "größe:make", cwd=folder, **ascii_alone)
    assert done.returncode == 2 and done.stderr.startswith(b"adgan-fast: error: gr??e:make: make() returned a int")
    assert b"Traceback" not in done.stderr


def test_help_loads_nothing_that_only_commands_need(folder: Path) -> None:
    code = (
        "import sys; from adgan_fast.cli import main; assert main(['check', '--help']) == 0\n"
        "print([n for n in ('triton', 'sklearn', 'matplotlib', 'pyarrow', 'adgan_fast.jobs', 'adgan_fast._C') "
        "if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.strip().splitlines()[-1] == "[]", done.stderr
