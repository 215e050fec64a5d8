"""A Scorer is made ready once, and gives the bits of score and search."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import adgan_fast
from adgan_fast import Scorer, scorer, verify
from adgan_fast.core import starts
from adgan_fast.generator import checks
from tests.support.engines import on_cpu
from tests.support.exports import LATENT, dcgan
from tests.support.families import FAMILIES
from tests.support.paths import ROOT
from tests.support.results import differences
from tests.support.small import CASE, FAST, small

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often what a scorer does once is done."""
    found: Counter[str] = Counter()

    def counted(owner: object, name: str) -> None:
        function = getattr(owner, name)

        def call(*args, **kwargs):
            found[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    monkeypatch.setattr(verify, "_verdicts", {})
    for owner, name in (
        (scorer, "working_copy"), (scorer, "lower"), (scorer, "latent_shape"), (scorer, "choose"),
        (checks, "check_generator"), (checks, "check_loss"), (verify, "disagreement"), (scorer, "Starts"),
        (starts, "uniforms"),
    ):  # fmt: skip
        counted(owner, name)
    return found


@on_cpu
def test_it_has_the_bits_of_score_and_search_call_after_call(engine):
    images, mine = CASE.images(5), Scorer(CASE.module, engine=engine, **FAST)
    for rows in (slice(0, 5), slice(2, 3), slice(0, 0), slice(1, 4)):
        want = adgan_fast.search(CASE.module, images[rows], engine=engine, **FAST)
        assert not differences(mine.search(images[rows]), want)
        assert torch.equal(mine(images[rows]), want.scores)
    found = mine.search(images)
    assert (found.engine, found.config) == (engine, mine.config)


def test_what_the_generator_alone_decides_is_done_once(counts):
    mine = Scorer(CASE.module, **FAST)
    assert counts == {"working_copy": 1}
    mine(CASE.images(1))
    once = counts.copy()
    assert {once[name] for name in ("lower", "choose", "latent_shape", "check_generator", "disagreement")} == {1}
    for number in (1, 3, 0):
        mine(CASE.images(number))
        mine.search(CASE.images(number))
    assert counts == once


def test_it_is_ready_before_the_first_images_where_it_is_told_their_shape(counts):
    mine = Scorer(CASE.module, **FAST).prepare(CASE.image_shape)
    once = counts.copy()
    assert mine.engine is not None and once["disagreement"] == 1
    mine(CASE.images(2))
    assert counts == once


def test_what_is_done_to_the_module_afterwards_changes_no_score():
    gen = copy.deepcopy(CASE.module)
    want, mine = adgan_fast.score(gen, CASE.images(2), **FAST), Scorer(gen, **FAST)
    with torch.no_grad():
        next(iter(gen.parameters())).zero_()  # before the first call
    assert torch.equal(mine(CASE.images(2)), want)
    gen.train()
    gen.requires_grad_(False)
    with torch.no_grad():
        for weight in gen.parameters():
            weight.zero_()
    assert torch.equal(mine(CASE.images(2)), want)
    with pytest.raises(ValueError, match="ignores its latent"):  # the module itself is of no use now
        adgan_fast.score(gen, CASE.images(2), **FAST)


@on_cpu
def test_several_live_side_by_side(engine):
    names = ("DCGAN of 8", "VAE decoder", "groups")
    made = {name: Scorer(FAMILIES[name].module, engine=engine, **FAST) for name in names}
    made["again"] = Scorer(CASE.module, engine=engine, seed=1, **FAST)
    for _ in range(2):
        for name in names:
            case = FAMILIES[name]
            want = adgan_fast.score(case.module, case.images(2), engine=engine, **FAST)
            assert torch.equal(made[name](case.images(2)), want)
        assert not torch.equal(made["again"](CASE.images(2)), made["DCGAN of 8"](CASE.images(2)))


def test_images_of_another_shape_than_the_first_ones_are_refused_with_both():
    mine = Scorer(CASE.module, **FAST)
    mine(CASE.images(1))
    channels, height, width = CASE.image_shape
    both = rf"\(N, {channels}, {height}, {width + 1}\).*\(N, {channels}, {height}, {width}\)"
    with pytest.raises(ValueError, match=both):
        mine(torch.zeros(1, channels, height, width + 1))
    with pytest.raises(ValueError, match=r"this scorer's generator makes"):
        mine.prepare((channels, height + 1, width))


def test_arrays_come_back_as_arrays_and_bytes_are_taken():
    images = (np.random.default_rng(0).random((2, *CASE.image_shape)) * 255).astype(np.uint8)
    found = Scorer(CASE.module, **FAST)(images)
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, adgan_fast.score(CASE.module, images, **FAST))


def test_warnings_point_at_the_callers_line_and_the_one_about_the_range_comes_once():
    positive = nn.Sequential(small(), nn.Sigmoid())
    mine, broken = Scorer(positive, **FAST), torch.full((2, 2, 2, 2), float("nan"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mine(torch.zeros(1, 2, 2, 2, dtype=torch.uint8))
        mine(torch.zeros(1, 2, 2, 2, dtype=torch.uint8))
        mine(broken)
        mine.search(broken)
        adgan_fast.score(positive, broken, **FAST)
    told = [(str(one.message)[:20], one.filename) for one in caught if one.category is RuntimeWarning]
    assert [words for words, _ in told] == ["generator Sequential", *3 * ["2 of 2 images hold N"]]
    assert {file for _, file in told} == {__file__}


@pytest.mark.parametrize("kind", ["independent", "given"])
def test_a_part_of_a_run_has_the_bits_of_the_whole_run(kind):
    images = CASE.images(6)
    each = torch.randn(6, 2, *CASE.latent_shape, generator=torch.Generator().manual_seed(3))
    settings = {"starts": kind if kind == "independent" else each, "steps": 1, "n_seed": 2}
    want, mine = adgan_fast.score(CASE.module, images, **settings), Scorer(CASE.module, **settings)
    for first, last in ((4, 6), (0, 3), (3, 4)):
        part = mine.part(images[first:last], ["scores"], first, 6)
        assert torch.equal(part.tensors["scores"], want[first:last])
    if kind == "given":
        with pytest.raises(ValueError, match="for 6 images; images has 3"):
            mine(images[:3])


def test_a_loss_that_calls_one_is_told():
    def loss(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        inner(image)
        return (reconstruction - image).square().flatten(1).sum(1)

    inner = Scorer(CASE.module, **FAST)
    with pytest.raises(RuntimeError, match="cannot be called by a loss or a generator"):
        Scorer(CASE.module, loss=loss, **FAST)(CASE.images(1))


# -- sent elsewhere -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ready", [False, True], ids=["before its first images", "after"])
def test_it_can_be_pickled(ready):
    mine = Scorer(CASE.module, **FAST)
    want = adgan_fast.score(CASE.module, CASE.images(2), **FAST)
    if ready:
        mine(CASE.images(1))
    other = pickle.loads(pickle.dumps(mine))
    assert other.config == mine.config and other.engine is None
    assert torch.equal(other(CASE.images(2)), want)
    assert torch.equal(mine(CASE.images(2)), want)
    assert torch.equal(pickle.loads(pickle.dumps(other))(CASE.images(2)), want)


def test_the_engine_that_was_chosen_goes_with_it(monkeypatch):
    mine = Scorer(CASE.module, **FAST)
    with monkeypatch.context() as patch:
        patch.setattr(verify, "verdict", lambda engine, job: None if engine.name == "eager" else "is not wanted")
        mine(CASE.images(1))
    assert mine.engine == "eager"
    other = pickle.loads(pickle.dumps(mine))
    found = other.search(CASE.images(1))
    assert found.engine == "eager" and found.config.engine == "auto"


@pytest.mark.parametrize("kind", ["exported", "saved"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_one_of_an_exported_program_can_be_pickled(kind, dynamic, tmp_path):
    shapes = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if dynamic else {}
    gen = torch.export.export(dcgan().eval(), (torch.zeros(2, LATENT),), **shapes)
    if kind == "saved":
        torch.export.save(gen, tmp_path / "gen.pt2")
        gen = tmp_path / "gen.pt2"
    images = torch.zeros(2, 3, 8, 8)
    want = adgan_fast.score(gen, images, **FAST)
    sent = pickle.dumps(Scorer(gen, **FAST))
    assert torch.equal(pickle.loads(sent)(images), want)


def test_another_process_gives_the_same_bits(tmp_path: Path):
    mine, images = Scorer(CASE.module, **FAST), CASE.images(3)
    torch.save(images, tmp_path / "images.pt")
    (tmp_path / "scorer.pickle").write_bytes(pickle.dumps(mine))
    program = (
        "import pickle, sys, torch; torch.set_num_threads(1); "
        "scorer = pickle.load(open(sys.argv[1] + '/scorer.pickle', 'rb')); "
        "torch.save(scorer(torch.load(sys.argv[1] + '/images.pt')), sys.argv[1] + '/scores.pt')"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=ROOT)
    assert torch.equal(torch.load(tmp_path / "scores.pt"), mine(images))
