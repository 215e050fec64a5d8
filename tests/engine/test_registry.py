"""An engine is named once, where it is made: one that a user registers works wherever an engine is named."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from torch import nn

import adgan_fast
from adgan_fast import scorer
from adgan_fast.cli import main
from adgan_fast.core import registry
from adgan_fast.core.job import Job
from adgan_fast.engine import register
from adgan_fast.engine.reference import Reference
from adgan_fast.testing import check_engine
from tests.support.families import FAMILIES

pytestmark = pytest.mark.usefixtures("one_thread", "table_of_its_own")
CASE = FAMILIES["VAE decoder"]
SMALL = {"n_seed": 2, "steps": 1}


@pytest.fixture
def table_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_engines", dict(registry._engines))


class Mine(Reference):
    """An engine of a user's own; it keeps the jobs that it is asked about."""

    name = "mine"

    def __init__(self, needs_program: bool = False) -> None:
        self.needs_program, self.asked = needs_program, list[Job]()

    def refuses(self, job: Job) -> str | None:
        self.asked.append(job)
        return None


def test_a_registered_engine_works_by_its_name():
    with pytest.raises(ValueError, match=r"engine must be one of 'auto', 'triton'.*got 'mine'"):
        adgan_fast.SearchConfig(engine="mine")
    register(Mine())
    config = adgan_fast.SearchConfig(engine="mine", **SMALL)
    want = adgan_fast.search(CASE.module, CASE.images(2), engine="reference", **SMALL)
    found = adgan_fast.search(CASE.module, CASE.images(2), config=config)
    assert found.engine == "mine" and torch.equal(found.losses, want.losses)
    assert torch.equal(adgan_fast.score(CASE.module, CASE.images(2), engine="mine", **SMALL), want.scores)
    info = next(info for info in adgan_fast.engines() if info.name == "mine")
    assert info.available and info.exact and info.why_not == ""
    assert check_engine(CASE.module, CASE.images(2), engine="mine", **SMALL).passed


def test_an_engine_that_the_users_module_registers_works_on_the_command_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "module_of_an_engine.py").write_text(
        "from adgan_fast.engine import register\n"
        "from adgan_fast.engine.reference import Reference\n"
        "from torch import nn\n"
        "class Mine(Reference):\n"
        "    name = 'mine'\n"
        "register(Mine())\n"
        "def generator():\n"
        "    return nn.Sequential(nn.Linear(4, 16), nn.Unflatten(1, (1, 4, 4)))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    small = ["--latent-shape", "4", "--n-seed", "2", "--steps", "1", "--engine", "mine"]
    assert main(["check", "module_of_an_engine:generator", *small]) == 0
    assert re.search(r"^mine +pass ", capsys.readouterr().out, re.MULTILINE)
    assert main(["info"]) == 0
    assert "mine" in capsys.readouterr().out


def test_auto_tries_a_registered_engine_before_the_one_it_is_said_to_be_faster_than(caplog):
    caplog.set_level(logging.INFO, "adgan_fast")
    register(Mine(), before="triton")
    assert [info.name for info in adgan_fast.engines()][:2] == ["mine", "triton"]
    assert adgan_fast.search(CASE.module, CASE.images(1), **SMALL).engine == "mine"
    assert "engine 'mine' on cpu" in caplog.text


def test_auto_takes_an_engine_that_is_less_exact_only_where_that_is_permitted():
    class Rough(Mine):
        name, exact = "rough", False

    register(Rough(), before="triton")
    assert adgan_fast.search(CASE.module, CASE.images(1), **SMALL).engine != "rough"
    assert adgan_fast.search(CASE.module, CASE.images(1), precision="bf16", **SMALL).engine == "rough"


def test_an_engine_is_asked_about_no_job_without_the_program_that_it_needs():
    class Reads(Mine):
        name = "reads"

        def refuses(self, job: Job) -> str | None:
            return None if job.lowered.layers else "it has no layers"

    class Refuses(Mine):
        name = "refuses"

        def refuses(self, job: Job) -> str | None:
            return "it never runs"

    register(Reads(needs_program=True))
    register(Refuses())
    with pytest.raises(ValueError, match=r"'refuses' cannot run: it never runs\. Use .* one of 'eager', 'reference'"):
        adgan_fast.search(CASE.module, CASE.images(1), engine="refuses", **SMALL)


def test_auto_leaves_an_engine_alone_that_is_registered_without_a_place():
    mine = Mine()
    register(mine)
    assert adgan_fast.search(CASE.module, CASE.images(1), **SMALL).engine != "mine"
    assert not mine.asked


@pytest.mark.parametrize("name", ["mine", "auto", "native", "reference"])
def test_a_name_is_taken_once(name):
    register(Mine())
    twin = Mine()
    twin.name = name
    with pytest.raises(ValueError, match=f"the name '{name}' is taken"):
        register(twin)
    assert [info.name for info in adgan_fast.engines()].count(name) == (name != "auto")


@pytest.mark.parametrize("name", [None, "", 3])
def test_a_name_that_is_none_is_refused(name):
    mine = Mine()
    mine.name = name
    with pytest.raises(ValueError, match="name must be a text"):
        register(mine)


def test_an_engine_before_one_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no engine 'faster'"):
        register(Mine(), before="faster")
    assert "mine" not in registry.names()


def test_what_is_no_engine_is_refused_with_what_it_lacks():
    class Half:
        name, exact = "half", True

        def run(self, job: Job) -> None: ...

    with pytest.raises(TypeError, match="Half is not an engine: it has no needs_program, why_not, refuses, bytes_of_p"):
        register(Half())  # type: ignore[arg-type]


def test_a_class_in_place_of_an_engine_is_refused_with_what_to_do():
    with pytest.raises(TypeError, match=r"an engine is an object, got the class Mine: register\(Mine\(\)\)"):
        register(Mine)  # type: ignore[arg-type]
    assert "mine" not in registry.names()


def test_a_job_has_a_program_where_the_engine_asks_for_one(monkeypatch):
    mine = Mine(needs_program=True)
    register(mine)
    adgan_fast.score(CASE.module, CASE.images(1), engine="mine", **SMALL)
    assert mine.asked[0].program is not None
    mine.needs_program = False
    monkeypatch.setattr(scorer, "lower", lambda *given: pytest.fail("the generator was lowered for nobody"))
    adgan_fast.score(CASE.module, CASE.images(1), engine="mine", **SMALL)
    assert mine.asked[-1].program is None


class Unknown(nn.Module):
    """No engine with a program runs it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 16)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.lgamma(self.linear(z).abs() + 1).reshape(-1, 1, 4, 4)


def test_an_engine_that_needs_a_program_is_not_asked_where_there_is_none():
    mine = Mine(needs_program=True)
    register(mine)
    with pytest.raises(ValueError, match=r"engine 'mine' cannot run: .*lgamma"):
        adgan_fast.score(Unknown(), torch.zeros(1, 1, 4, 4), engine="mine", **SMALL)
    assert not mine.asked
