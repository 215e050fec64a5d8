"""SearchConfig: the paper's defaults, and errors that name the field."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from adgan_fast import SearchConfig


def test_defaults_are_those_of_the_paper():
    config = SearchConfig()
    assert (config.n_seed, config.steps, config.lr_z, config.lr_weights) == (64, 5, 0.25, 5e-5)
    assert (config.betas, config.eps, config.weights, config.loss) == ((0.5, 0.999), 1e-8, "per_seed", "l2")
    assert (config.starts, config.prior, config.seed, config.latent_shape) == ("shared", "normal", 0, None)
    assert (config.engine, config.precision, config.device, config.chunk) == ("auto", "float32", None, None)
    assert config.progress is False


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SearchConfig().steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_seed", 0), ("n_seed", -1), ("n_seed", 2.0), ("n_seed", True), ("n_seed", "64"), ("n_seed", None),
        ("steps", -1), ("steps", 1.5), ("steps", False),
        ("seed", -1), ("seed", 2**64), ("seed", 0.5),
        ("lr_z", -0.1), ("lr_z", float("nan")), ("lr_z", float("inf")), ("lr_z", "0.25"), ("lr_z", True),
        ("lr_weights", -1e-9), ("lr_weights", float("nan")), ("lr_weights", None),
        ("eps", 0.0), ("eps", -1e-8), ("eps", float("nan")), ("eps", float("inf")),
        ("betas", (0.5,)), ("betas", (0.5, 0.9, 0.9)), ("betas", (0.5, 1.0)), ("betas", (-0.1, 0.9)),
        ("betas", 0.5), ("betas", ("a", "b")), ("betas", (0.5, float("nan"))), ("betas", None),
        ("weights", "shared"), ("weights", None), ("weights", ["frozen"]),
        ("loss", "mse"), ("loss", None), ("loss", 2),
        ("starts", "random"), ("starts", None), ("starts", torch.zeros(2, 3, dtype=torch.long)),
        ("starts", np.zeros((2, 3))),
        ("prior", "gaussian"), ("prior", None),
        ("engine", "fast"), ("engine", None),
        ("precision", "fp16"), ("precision", torch.float32),
        ("latent_shape", ()), ("latent_shape", (0,)), ("latent_shape", (3, -1)), ("latent_shape", (2.0,)),
        ("latent_shape", "ab"), ("latent_shape", 2.5), ("latent_shape", 0),
        ("chunk", 0), ("chunk", -3), ("chunk", 1.5), ("chunk", "auto"),
        ("device", "warp9"), ("device", 1.5), ("device", []),
        ("progress", "yes"), ("strict", "yes"),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused_by_the_name_of_its_field(field, value):
    with pytest.raises(ValueError, match=field):
        SearchConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_seed", 1), ("n_seed", np.int64(3)), ("steps", 0), ("seed", 2**64 - 1), ("lr_z", 0), ("lr_weights", 0.0),
        ("lr_z", np.float32(0.5)), ("betas", [0.0, 0.0]), ("weights", "frozen"),
        ("loss", lambda r, x: r.sum((1, 2, 3))),
        ("starts", torch.zeros(1, 3)), ("prior", "uniform"), ("latent_shape", (3, 1, 1)), ("latent_shape", [3]),
        ("latent_shape", 7), ("chunk", 5), ("device", "cpu"), ("device", torch.device("cpu")),
        ("eps", 1e-30), ("progress", True),
    ],
)  # fmt: skip
def test_the_edges_of_what_makes_sense_are_taken(field, value):
    SearchConfig(**{field: value})


def test_lists_and_numbers_become_tuples():
    assert SearchConfig(betas=[0.5, 0.9]).betas == (0.5, 0.9)
    assert SearchConfig(latent_shape=[3, 1, 1]).latent_shape == (3, 1, 1)
    assert SearchConfig(latent_shape=7).latent_shape == (7,)


def test_replace_checks_again_and_leaves_the_first_as_it_was():
    config = SearchConfig(steps=3)
    assert config.replace(n_seed=2) == SearchConfig(steps=3, n_seed=2)
    assert config.n_seed == 64
    with pytest.raises(ValueError, match="steps"):
        config.replace(steps=-1)


def test_an_unknown_setting_is_named_beside_the_known_ones():
    with pytest.raises(TypeError, match=r"n_seeds.*n_seed"):
        SearchConfig().replace(n_seeds=3)
