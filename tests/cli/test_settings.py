"""Options from the fields of settings classes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from adgan_fast import SearchConfig
from adgan_fast.cli import app
from adgan_fast.cli.given import Mistake
from adgan_fast.cli.settings import chosen
from adgan_fast.cli.train import OBJECTIVES
from adgan_fast.training.objectives import OBJECTIVES as TRAINED

LOSSES = "import torch\n\ndef mine(a, b):\n    return (a - b).abs().flatten(1).sum(1)\n"


def help_of(command: str) -> str:
    found = CliRunner().invoke(app, [command, "--help"])
    assert found.exit_code == 0
    return " ".join(found.output.split())


def test_every_field_of_the_search_and_of_every_training_is_an_option() -> None:
    score, train = help_of("score"), help_of("train")
    for field in dataclasses.fields(SearchConfig):
        assert f"--{field.name.replace('_', '-')} " in score
    assert {kind for kind, _ in OBJECTIVES.values()} == set(TRAINED)
    for kind, _ in OBJECTIVES.values():
        for field in dataclasses.fields(kind):
            assert f"--{field.name.replace('_', '-')} " in train


def test_help_says_defaults_and_where_they_differ() -> None:
    score, train = help_of("score"), help_of("train")
    assert "[default: 64]" in score and "[default: 0.5,0.999]" in score and "when None" not in score + train
    assert "[default: 256; of dcae, svdd 32]" in train and "of gmmn 256]" in train
    for words in (score, train):
        assert "Exit status: 0 done" in words and "adgan-fast" in words and "Nothing that is read as data runs" in words
    assert "That runs the code in it" in score


def test_texts_become_the_values_of_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_losses.py").write_text(LOSSES)
    np.save("starts.npy", np.ones((3, 6), np.float32))
    given: dict[str, Any] = {
        "betas": "0.1,0.2", "latent_shape": "64,4,4", "loss": "own_losses:mine", "starts": "starts.npy", "n_seed": 3,
        "eps": None, "strict": True,
    }  # fmt: skip
    config = SearchConfig(**chosen(SearchConfig, given, "score"))
    assert config.betas == (0.1, 0.2) and config.latent_shape == (64, 4, 4) and config.n_seed == 3 and config.strict
    assert callable(config.loss) and isinstance(config.starts, torch.Tensor) and config.starts.shape == (3, 6)
    assert config.eps == SearchConfig().eps


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"betas": "a,b"}, "--betas must be numbers with commas between them, got 'a,b'"),
        ({"loss": "no_such_module_here:x"}, "--loss: no_such_module_here:x: No module named"),
        ({"starts": "nowhere.npy"}, "--starts: nowhere.npy: not a .npy file of numbers"),
        ({"n_critic": 3, "clip": 1.0}, "--n-critic, --clip is no setting of score"),
    ],
)
def test_what_is_wrong_is_said_by_the_option(given: dict[str, Any], words: str) -> None:
    with pytest.raises(Mistake, match=words):
        chosen(SearchConfig, given, "score")


def test_starts_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "s.npy"
    np.save(path, np.array([print], object), allow_pickle=True)
    with pytest.raises(Mistake, match="file of numbers"):
        chosen(SearchConfig, {"starts": str(path)}, "score")
