"""``adgan-fast check`` without a generator, and what ``adgan-fast info`` says of a GPU; the GPU is made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from adgan_fast import admission
from adgan_fast.admission import machine
from adgan_fast.admission.kept import Settings, Verdict, keep
from adgan_fast.cli import main
from adgan_fast.config import WEIGHTS

HERE = machine.Machine("NVIDIA H100", "580.1", "2.11", "3.6", "0.1.0", "0123456789abcdef")
FIGURES = "a DCGAN: rms 1.0e-01 of d, 1e-03 is allowed"


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is wrong with an engine there, by its name."""
    wrong: dict[str, str] = {}

    def anew(engine, config, device):
        if wrong.get(engine.name) == "it cannot":
            raise ValueError(f"engine {engine.name!r} cannot run: it cannot")
        if wrong.get(engine.name) == "no memory":
            return None
        assert device == torch.device("cuda")
        found = Verdict(wrong.get(engine.name, ""), "", 2.5, "2026-11-26T10:00:00+00:00")
        keep(HERE, admission.settings_of(engine, config), found)
        return found

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: HERE.gpu)
    monkeypatch.setattr(machine, "of", lambda device: HERE)
    monkeypatch.setattr(admission, "anew", anew)
    return wrong


def test_every_engine_of_a_gpu_is_tried_with_every_way_of_owning_weights(gpu, capsys) -> None:
    assert main(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(HERE)
    assert [line.split() for line in lines[2:]] == [
        [name, "float32", weights, "right", "2.5"] for name in admission.ADMITTED for weights in WEIGHTS
    ]


def test_what_is_wrong_is_printed_and_fails(gpu, capsys) -> None:
    gpu["triton"] = FIGURES
    assert main(["check", "--weights", "frozen", "--precision", "bf16"]) == 1
    out = capsys.readouterr().out
    assert "WRONG" in out and f"triton (bf16, frozen): {FIGURES}" in out
    assert main(["check", "--engine", "grouped"]) == 0


@pytest.mark.parametrize(
    ("why", "said"), [("it cannot", "engine 'triton' cannot run: it cannot"), ("no memory", "memory")]
)
def test_what_is_not_tried_is_named(why: str, said: str, gpu, capsys) -> None:
    gpu["triton"] = why
    assert main(["check", "--weights", "frozen"]) == 0
    out = capsys.readouterr().out
    assert "not tried" in out and said in out
    assert main(["check", "--engine", "triton"]) == 1


def test_as_json(gpu, capsys) -> None:
    gpu["grouped"] = FIGURES
    assert main(["check", "--weights", "frozen", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["machine"] == HERE._asdict()
    assert [(row["engine"], row["weights"], row["wrong"]) for row in found["verdicts"]] == [
        ("triton", "frozen", ""), ("grouped", "frozen", FIGURES),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "eager"], "without a generator --engine must be one of triton, grouped, got 'eager'"),
        (["--weights", "own"], "weights must be one of 'per_seed'"),
        (["--device", "cpu"], "it is a GPU that is checked, got --device cpu"),
        (["--device", "cudax"], "--device: "),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], words: str, gpu, capsys) -> None:
    assert main(["check", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and err.count("\n") == 1


def test_info_says_what_is_known_of_a_gpu(gpu, capsys) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for name in admission.ADMITTED:
        assert f"{name}   not yet checked: it will be before its first use".split() in [
            x.split() for x in out.splitlines()
        ]
    gpu["triton"] = FIGURES
    keep(HERE._replace(driver="another"), Settings("grouped", "float32", "frozen"), Verdict("", "", 1.0, ""))
    main(["check", "--engine", "triton", "--weights", "frozen"])
    capsys.readouterr()
    main(["info"])
    tail = capsys.readouterr().out.splitlines()[-2:]
    assert tail[0].split(maxsplit=1) == ["triton", f"float32, frozen: WRONG: {FIGURES}"]
    assert tail[1].split(maxsplit=1) == ["grouped", "not yet checked: it will be before its first use"]
    main(["info", "--json"])
    (verdict,) = json.loads(capsys.readouterr().out)["tried_on_gpu"]
    assert (verdict["engine"], verdict["wrong"]) == ("triton", FIGURES)
