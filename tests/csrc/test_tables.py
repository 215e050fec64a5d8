"""What Python and C++ both number stands once in each, and the same: layers, kinds of values, modes, arguments.

The lists of csrc/core/layers.h and modes.h are read as text, so that these tests need neither a compiler nor the
extension.
"""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from adgan_fast import ops
from adgan_fast.config import WEIGHTS
from adgan_fast.engine.native.encode import KINDS, OPS, arity
from tests.support.cpp import COMPILER, is_one_instruction_set, together

CSRC = Path(__file__).parents[2] / "csrc"
CORE = CSRC / "core"
FLAGS = runpy.run_path(str(CSRC / "flags.py"))

FAMILIES = {
    "MAPS": "map",
    "NORMS": "norm",
    "ACTIVATIONS": "activation",
    "ARITHMETIC": "arithmetic",
    "PRODUCTS": "product",
    "REDUCTIONS": "reduction",
    "BANDED": "banded",
    "GATHERS": "gather",
    "JOINS": "join",
}


def entries(header: str, name: str) -> list[list[str]]:
    """The arguments of each X(...) of a list, in order."""
    text = (CORE / header).read_text(encoding="utf-8").replace("\\\n", " ")
    definition = re.search(rf"#define ADGAN_{name}\(X\)(.*)", text)
    assert definition, f"{header} has no list ADGAN_{name}"
    return [re.split(r",\s*", found) for found in re.findall(r"\bX\(([^)]*)\)", definition[1])]


def layers() -> list[list[str]]:
    """All of layers.h, in the order of its enum."""
    listed = (CORE / "layers.h").read_text(encoding="utf-8").replace("\\\n", " ")
    order = re.search(r"#define ADGAN_LAYERS\(X\)(.*)", listed)
    assert order
    families = re.findall(r"ADGAN_(\w+)\(X\)", order[1])
    assert set(families) == set(FAMILIES)
    found = []
    for family in families:
        for row in entries("layers.h", family):
            assert row[0] == FAMILIES[family], f"{row[1]} stands in the list of another family"
            found.append(row[1:])
    return found


def test_layers_and_what_each_brings_are_the_same_in_python_and_in_cpp():
    cpp = [(name, *map(int, numbers)) for name, *numbers in layers()]
    assert cpp == [(name, *arity(name)) for name in OPS]


@pytest.mark.parametrize(
    ("name", "python"),
    [
        ("VALUE_KINDS", KINDS),
        ("WEIGHTS", WEIGHTS),
        ("LOSSES", ops.NATIVE_LOSSES),
        ("INSTRUCTION_SETS", ops.INSTRUCTION_SETS),
    ],
)
def test_kinds_and_modes_are_the_same_in_python_and_in_cpp(name, python):
    assert [entry for (entry,) in entries("modes.h", name)] == list(python)


OPERATORS = ("native_search", "native_gradients", "native_profile", "native_bytes")


@pytest.mark.parametrize("operator", OPERATORS)
def test_arguments_have_the_same_names_and_order_in_the_schema_and_in_cpp(operator):
    source = (CSRC / "ops_native.cpp").read_text(encoding="utf-8")
    signature = re.search(rf"\b{operator}\(([^)]*)\) \{{", source)
    assert signature, operator
    cpp = [argument.split()[-1] for argument in signature[1].split(",")]
    schema = getattr(torch.ops.adgan_fast, operator).default._schema
    assert cpp == [argument.name for argument in schema.arguments]


def test_the_struct_of_arguments_has_the_order_of_the_schema():
    source = (CSRC / "ops_native.cpp").read_text(encoding="utf-8")
    struct = re.search(r"struct Arguments \{(.*?)\};", source, re.DOTALL)
    assert struct
    members = re.findall(r"(\w+)(?: = [^,;]+)?[,;]", struct[1])
    assert tuple(members) == ops.SearchArguments._fields


# How many switches of which files must know a new layer of each family; `traits` of layers.h takes it from the list.
MUST_KNOW = {
    "map": {"map_layout.cpp": 1},
    "norm": {"plan_nodes.cpp": 1},
    "activation": {"plan_builder.cpp": 1, "activations.inl": 2},
    "arithmetic": {"arithmetic.inl": 2},
    "product": {"plan_reductions.cpp": 1},
    "reduction": {"plan_reductions.cpp": 1},
    "banded": {"plan_reductions.cpp": 1},
    "gather": {"plan_gathers.cpp": 1},
    "join": {"plan_gathers.cpp": 1},
}


@pytest.mark.skipif(shutil.which(COMPILER[0]) is None, reason=f"there is no C++ compiler {COMPILER[0]!r}")
def test_the_compiler_names_each_place_that_must_know_a_new_layer(tmp_path):
    """As an error in the build that `make` does: no switch over layers has a `default:`."""
    shutil.copytree(CSRC, tmp_path / "csrc")
    header = tmp_path / "csrc/core/layers.h"
    text = header.read_text(encoding="utf-8")
    for name, family in FAMILIES.items():
        row = f"X({family}, new_{family}, 1, 0, 0)"
        text, count = re.subn(rf"(#define ADGAN_{name}\(X\))", rf"\1 {row}", text)
        assert count == 1
    header.write_text(text, encoding="utf-8")
    flags = [*FLAGS["LANGUAGE"], *FLAGS["WARNINGS"], "-Werror", f"-I{tmp_path / 'csrc'}", "-fsyntax-only"]

    # The kernels of one instruction set: the others are the same.
    sources = [
        source
        for source in (tmp_path / "csrc/core").rglob("*.cpp")
        if source.stem == "kernels_baseline" or not is_one_instruction_set(source)
    ]
    done = subprocess.run([*COMPILER, *flags, str(together(sources, tmp_path))], capture_output=True, text=True)
    errors = done.stderr
    assert done.returncode != 0 and "not handled in switch" in errors, errors
    assert all("not handled in switch" in line for line in errors.splitlines() if " error: " in line), errors
    found: dict[str, dict[str, int]] = {family: {} for family in MUST_KNOW}
    places = set(re.findall(r"(\w+\.\w+):(\d+):\d+: error: .*\bnew_(\w+)\b.* not handled in switch", errors))
    for file, _, family in places:
        found[family][file] = found[family].get(file, 0) + 1
    assert found == MUST_KNOW
