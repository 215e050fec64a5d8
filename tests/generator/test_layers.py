"""The one table of layers: what each row allows, and that every place that must know a layer knows them all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from torch import nn

from adgan_fast.engine import batched
from adgan_fast.engine.native import encode
from adgan_fast.generator import rules
from adgan_fast.generator.layers import LAYERS, Dims, LayerType, Size, check_layer, layer_type
from adgan_fast.generator.program import POSITIONS, Unlowered
from adgan_fast.generator.rules import lower
from tests.fuzz.generators import draw
from tests.support.families import FAMILIES

ROOT = Path(__file__).parents[2]
Table = Mapping[str, LayerType]


def test_what_a_row_does_not_allow_is_refused_by_name():
    window = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    check_layer("conv2d", (0, 1, None), window)
    check_layer("permute", (0,), {"dims": (2, 0, 1)})
    for op, inputs, attrs, said in [
        ("group_norm", (0,), {}, "layer 'group_norm' has no row in generator/layers.py"),
        ("conv2d", (0, 1), window, r"layer 'conv2d' takes 3 inputs \(x, weight, bias\), got 2"),
        ("conv2d", (0, None, 1), window, "layer 'conv2d' needs its input weight"),
        ("conv2d", (0, 1, 2), window | {"slope": 0.1}, "layer 'conv2d' has the attributes .*got .*slope"),
        ("relu", (0,), {"slope": 0.1}, r"layer 'relu' has the attributes \[\], got \['slope'\]"),
        ("conv2d", (0, 1, 2), window | {"stride": 1}, "attribute stride of layer 'conv2d' must be of type .*got 1"),
        ("conv2d", (0, 1, 2), window | {"stride": (1, 2, 3)}, "attribute stride of layer 'conv2d'"),
        ("conv2d", (0, 1, 2), window | {"groups": True}, "attribute groups of layer 'conv2d'"),
        ("leaky_relu", (0,), {"slope": 1}, "attribute slope of layer 'leaky_relu' must be of type <class 'float'>"),
        ("permute", (0,), {"dims": (0.0, 1)}, "attribute dims of layer 'permute'"),
    ]:
        with pytest.raises(ValueError, match=said):
            check_layer(op, inputs, attrs)


def test_a_rule_that_makes_what_the_table_does_not_hold_is_told_by_name(monkeypatch):
    monkeypatch.setitem(rules.RULES, "aten.relu.default", lambda at, x: at.emit("group_norm", (at.value(x),)))
    with pytest.raises(Unlowered, match=r"layer 'group_norm' has no row in generator/layers\.py"):
        lower(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Unflatten(1, (1, 2, 2))).eval(), (3,))


@pytest.mark.parametrize("op", LAYERS)
def test_a_row_fits_together(op):
    kind = LAYERS[op]
    assert kind.optional | kind.weights <= set(kind.inputs)
    assert len(set(kind.inputs)) == len(kind.inputs)
    assert set(kind.attrs.values()) <= {int, float, Size, Dims}
    if kind.linear_map:
        assert kind.inputs[:2] == ("x", "weight") and kind.weights == {"weight", "bias"}


# -- the places of docs/extending.md -----------------------------------------------------------------------------


OPERATORS = {
    "upsample_nearest": "upsample_nearest2d", "scale_shift": "neg", "gelu_tanh": "gelu", "standardize": "layer_norm",
    "resample": "upsample_bilinear2d", "take": "index_select", "stop": "detach",
}  # fmt: skip
"""An ATen operator of each layer that is not called as its own is."""


def without_rule(table: Table) -> set[str]:
    """The layers for whose operator no rule is registered."""
    known = {target.split(".")[1] for target in rules.RULES if target.startswith("aten.")}
    return {op for op in table if OPERATORS.get(op, op) not in known}


def of_lift() -> set[str]:
    pytest.importorskip("triton", reason="Triton is not installed")
    from adgan_fast.engine.triton.lift import GEOMETRIES

    return set(GEOMETRIES)


def of_cpp() -> set[str]:
    return set(re.findall(r"\bX\(\w+, (\w+), -?\d", (ROOT / "csrc/core/layers.h").read_text(encoding="utf-8")))


def of_families() -> Iterator[str]:
    for case in FAMILIES.values():
        yield from (layer.op for layer in lower(case.module.eval(), case.latent_shape).layers)


def of_fuzz() -> Iterator[str]:
    """Of the first generators drawn, until each layer has been seen."""
    unseen = set(LAYERS)
    for seed in range(200):
        gen, latent_shape, _ = draw(seed)
        try:
            found = {layer.op for layer in lower(gen.eval(), latent_shape).layers}
        except Unlowered:
            continue
        yield from found
        unseen -= found
        if not unseen:
            return


def linear_maps(table: Table) -> set[str]:
    return {op for op, kind in table.items() if kind.linear_map}


PLACES: dict[str, Callable[[Table], set[str]]] = {
    "adgan_fast/generator/rules": without_rule,
    "adgan_fast/engine/batched.py": lambda table: set(table) - set(batched._RUN),
    "csrc/core/layers.h": lambda table: set(table) - of_cpp(),
    "adgan_fast/engine/native/encode.py": lambda table: set(table) - set(encode.OPS),
    "tests/support/families": lambda table: set(table) - set(of_families()),
    "tests/fuzz/generators.py": lambda table: set(table) - set(of_fuzz()),
    "adgan_fast/generator/program.py": lambda table: linear_maps(table) - set(POSITIONS),
    "adgan_fast/engine/triton/lift.py": lambda table: linear_maps(table) - of_lift(),
}
"""By file: the layers of a table that it must know, and does not."""
OF_MAPS = {"adgan_fast/generator/program.py", "adgan_fast/engine/triton/lift.py"}


@pytest.mark.parametrize("place", PLACES)
def test_every_place_knows_every_layer_and_would_name_a_new_one(place):
    assert PLACES[place](LAYERS) == set()
    activation = layer_type("x", beta=float)
    linear_map = layer_type("x weight", weights="weight", linear_map=True)
    copy = {**LAYERS, "new_activation": activation, "new_map": linear_map}
    assert PLACES[place](copy) == ({"new_map"} if place in OF_MAPS else {"new_activation", "new_map"})


def test_no_place_knows_a_layer_that_is_not_in_the_table():
    assert set(batched._RUN) == set(encode.OPS) == of_cpp() == set(LAYERS)
    assert set(POSITIONS) == linear_maps(LAYERS)


def test_the_page_lists_the_places():
    page = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    section = page.split("## A layer\n")[1].split("\n## ")[0]
    listed = re.findall(r"^\d\. `([^`]+)`", section, re.MULTILINE)
    assert listed == ["adgan_fast/generator/layers.py", *PLACES]
    assert all((ROOT / place).exists() for place in listed)
