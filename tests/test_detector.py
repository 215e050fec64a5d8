"""Detector: normal or not, from a threshold on normal images held out."""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import zipfile
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from torch import nn

import adgan_fast
from adgan_fast import Detector, SearchConfig
from adgan_fast.baselines import NotFittedError
from adgan_fast.training import (
    CheckpointError,
    DCAEConfig,
    InverseConfig,
    SVDDConfig,
    load_generator,
    train,
)
from adgan_fast.windows import Windows
from tests.support.one_class import ANOMALOUS, FIT, TEST
from tests.support.wgan import SMALL, TRAINING

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = SearchConfig(n_seed=2, steps=2)
TINY = dataclasses.replace(SMALL, steps=2, checkpoint_every=0)


def plain(seed=0):
    random = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(12, 32), nn.LeakyReLU(0.2), nn.Linear(32, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    for weight in net.parameters():
        weight.data = torch.randn(weight.shape, generator=random) / 4
    net.latent_shape = (12,)
    return net


def squares(reconstruction, image):
    return ((reconstruction - image) ** 2).flatten(1).sum(1)


@pytest.fixture(scope="module")
def fitted():
    """A detector that trained its own generator, as a user has it; not to be changed."""
    torch.set_num_threads(1)
    return Detector(training=TRAINING, n_seed=4).fit(FIT)


@pytest.fixture(scope="module")
def calibrated():
    """A detector on a module of the user's own."""
    return Detector(plain(), config=FEW).fit(FIT[:40])


def test_it_tells_other_digits_from_its_own(fitted):
    labels = fitted.predict(TEST)
    assert labels.dtype == np.int64 and set(labels) == {0, 1}
    assert labels[~ANOMALOUS].mean() < 0.3  # about 0.1 is promised, on average; these are 44 images
    assert labels[ANOMALOUS].mean() > 0.6


def test_the_threshold_is_that_of_images_the_training_has_not_seen():
    detector = Detector(training=TINY, config=FEW).fit(FIT)
    generator = train(np.delete(FIT, detector.held_out_, axis=0), TINY).generator
    for name, value in generator.state_dict().items():
        assert torch.equal(value, detector.generator_.state_dict()[name]), name
    scores = adgan_fast.score(generator, FIT[detector.held_out_], config=FEW).astype(np.float64)
    np.testing.assert_array_equal(detector.decision_scores_, scores)
    assert len(detector.held_out_) == 22  # a fifth of 110
    assert detector.threshold_ == np.sort(scores)[-2]  # one of 22 is above: (1 + 1) / 23 <= 0.1
    assert detector.labels_.sum() == 1 == detector.predict(FIT[detector.held_out_]).sum()


def test_labels_are_what_predict_says_of_the_images_held_out(fitted):
    held_out = FIT[fitted.held_out_]
    np.testing.assert_array_equal(fitted.labels_, fitted.predict(held_out))
    np.testing.assert_array_equal(fitted.decision_scores_, fitted.decision_function(held_out))


def test_what_is_held_out_is_drawn_by_the_seed():
    first, again, other = (Detector(training=TINY, config=FEW).fit(FIT[:50], seed=seed).held_out_ for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert len(first) == len(set(first)) == 10


@pytest.mark.parametrize(
    ("held_out", "n"), [(0.5, 25), (None, 10), (FIT[60:80], 20), (torch.as_tensor(FIT[60:80]), 20)]
)
def test_what_is_held_out_can_be_a_share_or_given(held_out, n):
    detector = Detector(training=TINY, config=FEW).fit(FIT[:50], held_out=held_out)
    assert len(detector.decision_scores_) == len(detector.calibration_) == n
    if n == 20:
        assert detector.held_out_ is None
        scores = adgan_fast.score(detector.generator_, FIT[60:80], config=FEW)
        np.testing.assert_array_equal(detector.decision_scores_, scores.astype(np.float64))


def test_with_a_generator_all_images_calibrate(calibrated):
    np.testing.assert_array_equal(calibrated.held_out_, np.arange(40))
    np.testing.assert_array_equal(calibrated.decision_scores_, adgan_fast.score(plain(), FIT[:40], config=FEW))


def test_scores_are_float64_and_higher_is_more_anomalous(fitted):
    scores = fitted.decision_function(TEST[:3])
    assert scores.dtype == np.float64 and scores.shape == (3,)
    np.testing.assert_array_equal(scores, fitted.score_samples(TEST[:3]))
    np.testing.assert_array_equal(scores, fitted.decision_function(torch.as_tensor(TEST[:3])))
    np.testing.assert_array_equal(scores[1:2], fitted.decision_function(TEST[1:2]))  # alone, as beside others
    assert fitted.decision_function(TEST)[ANOMALOUS].mean() > fitted.decision_function(TEST)[~ANOMALOUS].mean()


def test_predict_proba_is_one_minus_the_p_value(fitted):
    found, p_values = fitted.predict_proba(TEST[:60]), fitted.p_values(TEST[:60])
    assert found.shape == (60, 2)
    np.testing.assert_array_equal(found, np.stack([p_values, 1 - p_values], 1))
    np.testing.assert_array_equal(p_values <= 0.1, fitted.predict(TEST[:60]) == 1)


def test_a_level_has_its_threshold_or_says_how_many_images_it_takes(fitted):
    assert fitted.threshold(0.1) == fitted.threshold_
    assert fitted.threshold(0.3) < fitted.threshold_ < fitted.threshold(0.05)
    with pytest.raises(ValueError, match=r"22 calibration images are too few for a level of 0\.01, which needs 99"):
        fitted.threshold(0.01)


def test_drift_is_seen_of_other_images_and_not_of_those_alike(fitted):
    assert fitted.drift(TEST[~ANOMALOUS]).p_value > 0.01
    changed = fitted.drift(TEST[ANOMALOUS][:40])
    assert changed.p_value < 0.01 and changed.above > 0.8


def test_the_rate_of_false_alarms_is_at_most_the_contamination(fitted):
    """On digits: held-out eights and those not used, pooled and split anew 300 times."""
    pool = np.concatenate([fitted.decision_scores_, fitted.decision_function(TEST[~ANOMALOUS])])
    random, rates = np.random.default_rng(0), []
    for _ in range(300):
        mixed = random.permutation(pool)
        rates.append(np.mean(mixed[30:] > adgan_fast.Calibration(mixed[:30]).threshold(0.1)))
    assert np.mean(rates) <= 0.1 + 3 * np.std(rates) / np.sqrt(300)
    assert np.mean(rates) > 0.03


# -- images without a score ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*hold NaN or Inf:RuntimeWarning")
def test_an_image_without_a_score_is_neither_normal_nor_anomalous(calibrated):
    spoilt = TEST[:3].copy()
    spoilt[1, 0, 2, 2] = np.nan
    assert np.isnan(calibrated.decision_function(spoilt)).tolist() == [False, True, False]
    assert np.isnan(calibrated.predict_proba(spoilt)).all(1).tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"1 of 3 images have no score \(NaN\), the first is image 1"):
        calibrated.predict(spoilt)
    sound = calibrated.predict(TEST[:3])
    for label in (-1, 0, 1):
        np.testing.assert_array_equal(calibrated.predict(spoilt, unscored=label), [sound[0], label, sound[2]])
    with pytest.raises(ValueError, match="1 of 3 are NaN or Inf"):
        calibrated.drift(spoilt)


class OneLayer(nn.Module):
    latent_shape = (2,)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 64))

    def forward(self, z):
        return (z @ self.weight).reshape(-1, 1, 8, 8)


def huge(reconstruction, image):
    """Beyond float32 for a dark image alone."""
    return squares(reconstruction, image) * torch.where(image.mean((1, 2, 3)) < -0.9, 1e38, 1.0)


@pytest.mark.filterwarnings("ignore:.*scores are NaN or Inf:RuntimeWarning")
def test_a_score_of_inf_is_no_score():
    detector = Detector(OneLayer(), config=FEW, loss=huge, steps=0, engine="eager").fit(FIT[:20])
    dark = np.concatenate([FIT[:1], np.full((1, 1, 8, 8), -1, np.float32)])
    scores = detector.decision_function(dark)
    assert np.isinf(adgan_fast.score(OneLayer(), dark, config=detector.config)[1])
    assert np.isfinite(scores[0]) and np.isnan(scores[1])
    with pytest.raises(ValueError, match="the first is image 1"):
        detector.predict(dark)
    with pytest.raises(ValueError, match="1 of 21 are NaN or Inf: leave those images out"):
        Detector(OneLayer(), config=FEW, loss=huge, steps=0, engine="eager").fit(np.concatenate([FIT[:20], dark[1:]]))


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 0.6, 1, -0.1, "auto", None, True, float("nan")])
def test_a_contamination_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match=r"contamination must be a number above 0 and at most 0\.5"):
        Detector(contamination=value)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"training": SVDDConfig()}, ValueError, "SVDDConfig makes none"),
        ({"training": InverseConfig()}, ValueError, "InverseConfig makes none"),
        ({"training": {"steps": 3}}, TypeError, "config must be one of"),
        ({"generator": plain(), "training": TINY}, ValueError, "a generator is given"),
        ({"n_seeds": 3}, TypeError, "unknown setting n_seeds"),
        ({"n_seed": 0}, ValueError, "n_seed must be"),
        ({"starts": "independent"}, ValueError, "depend on the place of an image"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(settings, error, said):
    with pytest.raises(error, match=said):
        Detector(**settings)


def test_what_cannot_be_calibrated_is_refused_before_anything_is_trained(monkeypatch):
    def never(*args, **settings):
        raise AssertionError("trained")

    monkeypatch.setattr("adgan_fast.detector.train", never)
    detector = Detector(training=TINY, config=FEW)
    for n in (1, 2, 40):
        with pytest.raises(ValueError, match=r"calibration images are too few for a level of 0\.1, which needs 9"):
            detector.fit(FIT[:n])
    with pytest.raises(ValueError, match="at least one image"):
        detector.fit(FIT[:0])
    with pytest.raises(ValueError, match="hold NaN or Inf"):
        detector.fit(np.full((60, 1, 8, 8), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"held_out must have the shape of images, \(N, 1, 8, 8\)"):
        detector.fit(FIT[:50], held_out=np.zeros((20, 1, 16, 16), np.float32))
    for share in (0, 1, -0.5, "half", True):
        with pytest.raises(ValueError, match="held_out must be a share above 0 and below 1, or images"):
            detector.fit(FIT[:50], held_out=share)
    with pytest.raises(ValueError, match="seed must be a whole number"):
        detector.fit(FIT[:50], seed=-1)
    with pytest.raises(AssertionError, match="trained"):
        detector.fit(FIT[:50])


def test_a_given_generator_has_nothing_to_hold_out_and_needs_images_enough():
    with pytest.raises(ValueError, match="held_out= is for a training"):
        Detector(plain(), config=FEW).fit(FIT[:20], held_out=0.5)
    with pytest.raises(ValueError, match="8 calibration images are too few"):
        Detector(plain(), config=FEW).fit(FIT[:8])


def test_starts_of_single_images_are_refused():
    starts = torch.zeros(20, 2, 12)
    with pytest.raises(ValueError, match=r"starts of shape \(20, 2, 12\) are of single images"):
        Detector(plain(), config=FEW, starts=starts).fit(FIT[:20])
    windows = Windows(8)  # one of an image
    with pytest.raises(ValueError, match=r"starts of shape \(1, 2, 12\) are of single images"):
        Detector(plain(), config=FEW, starts=starts[:1], windows=windows).fit(FIT[:20])
    Detector(plain(), config=FEW, starts=starts[0]).fit(FIT[:20])


@pytest.mark.parametrize("ask", ["decision_function", "score_samples", "predict", "predict_proba", "p_values", "drift"])
def test_before_fit_there_is_no_answer(ask):
    with pytest.raises(NotFittedError, match="call fit first"):
        getattr(Detector(plain()), ask)(FIT[:2])


def test_before_fit_there_is_no_threshold_and_nothing_to_save(tmp_path):
    with pytest.raises(NotFittedError, match="call fit first"):
        Detector().threshold(0.1)
    with pytest.raises(NotFittedError, match="call fit first"):
        Detector().save(tmp_path / "detector")
    assert not (tmp_path / "detector").exists()


def test_images_of_another_shape_are_refused(calibrated):
    with pytest.raises(ValueError, match="shape"):
        calibrated.predict(np.zeros((2, 1, 16, 16), np.float32))


def test_a_fit_that_fails_leaves_the_last_one():
    detector = Detector(plain(), config=FEW).fit(FIT[:20])
    before = detector.threshold_
    with pytest.raises(ValueError, match="too few"):
        detector.fit(FIT[:3])
    assert detector.threshold_ == before and len(detector.predict(FIT[:2])) == 2


def test_a_training_that_was_cut_off_goes_on(tmp_path):
    whole = Detector(training=TINY, config=FEW).fit(FIT[:50])
    Detector(training=dataclasses.replace(TINY, steps=1), config=FEW).fit(FIT[:50], out=tmp_path)
    again = Detector(training=TINY, config=FEW).fit(FIT[:50], out=tmp_path)
    np.testing.assert_array_equal(again.decision_scores_, whole.decision_scores_)


# -- saved and loaded ------------------------------------------------------------------------------------------------


def same(first, second):
    np.testing.assert_array_equal(first.decision_function(TEST[:5]), second.decision_function(TEST[:5]))
    np.testing.assert_array_equal(first.decision_scores_, second.decision_scores_)
    np.testing.assert_array_equal(first.held_out_, second.held_out_)
    assert first.threshold_ == second.threshold_ and first.contamination == second.contamination
    assert first.config.replace(device=None) == second.config.replace(device=None)


@pytest.mark.parametrize("kind", ["trained", "own", "double", "own double", "program", "decoder"])
def test_a_saved_detector_gives_the_same_bits(kind, tmp_path, fitted, calibrated):
    if kind == "trained":
        detector = fitted
    elif kind == "own":
        detector = calibrated
    elif kind == "program":  # a saved program, by its path
        program = torch.export.export(plain().eval(), (torch.zeros(2, 12),))
        torch.export.save(program, tmp_path / "net.pt2")
        detector = Detector(tmp_path / "net.pt2", config=FEW).fit(FIT[:20])
    elif kind == "decoder":
        training = DCAEConfig(latent=4, width=2, steps=2, batch_size=8, checkpoint_every=0, sample_every=0)
        detector = Detector(training=training, config=FEW, weights="per_sample").fit(FIT[:50])
    else:
        generator = plain() if kind == "own double" else load_double()
        detector = Detector(generator.double(), config=FEW).fit(FIT[:20])
    folder = detector.save(tmp_path / "detector")
    loaded = Detector.load(folder)
    same(loaded, detector)
    same(Detector.load(loaded.save(tmp_path / "again")), detector)


def test_a_detector_that_has_scored_nothing_is_saved_again_where_its_generator_says_all(tmp_path, fitted, calibrated):
    loaded = Detector.load(fitted.save(tmp_path / "d"))
    same(Detector.load(loaded.save(tmp_path / "again")), fitted)
    with pytest.raises(ValueError, match="before it has scored an image"):
        Detector.load(calibrated.save(tmp_path / "own")).save(tmp_path / "more")


def load_double():
    """Numbers that float32 does not hold."""
    generator = adgan_fast.models.DCGANGenerator(8, 1, 4, 2, generator=torch.Generator().manual_seed(0)).double()
    for weight in generator.parameters():
        weight.data += torch.rand_like(weight) * 1e-12
    return generator


def test_no_file_of_a_saved_detector_is_a_pickle(tmp_path, calibrated, fitted):
    for name, detector in (("own", calibrated), ("trained", fitted)):
        folder = detector.save(tmp_path / name)
        assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".pt2"}
        for path in folder.glob("*.pt2"):
            with zipfile.ZipFile(path) as archive:
                kinds = {PurePosixPath(entry).suffix for entry in archive.namelist()}
            assert ".json" in kinds and not kinds & {".pt", ".pkl", ".pth"}  # where PyTorch puts pickles
    assert list((tmp_path / "own").glob("*.pt2"))


def test_a_saved_generator_of_the_package_is_one_of_a_training(tmp_path, fitted):
    generator = load_generator(fitted.save(tmp_path))
    for name, value in fitted.generator_.state_dict().items():
        assert torch.equal(generator.state_dict()[name], value)


def test_what_is_done_to_the_generator_after_fit_is_not_saved(tmp_path):
    generator = adgan_fast.models.DCGANGenerator(8, 1, 4, 2, generator=torch.Generator().manual_seed(0))
    detector = Detector(generator, config=FEW).fit(FIT[:20])
    before = detector.decision_function(TEST[:3])
    with torch.no_grad():
        for weight in generator.parameters():
            weight.zero_()
    np.testing.assert_array_equal(Detector.load(detector.save(tmp_path)).decision_function(TEST[:3]), before)


def test_starts_and_settings_are_kept(tmp_path):
    starts = torch.randn(3, 12, generator=torch.Generator().manual_seed(1))
    detector = Detector(plain(), config=FEW, starts=starts, loss="l1", latent_shape=(12,), betas=(0.4, 0.9)).fit(
        FIT[:20]
    )
    same(Detector.load(detector.save(tmp_path)), detector)


def test_a_loss_that_is_a_function_has_to_be_given_again(tmp_path):
    detector = Detector(plain(), config=FEW, loss=squares).fit(FIT[:20])
    folder = detector.save(tmp_path / "with")
    with pytest.raises(ValueError, match=r"the function .*squares, which no file holds: give it as loss="):
        Detector.load(folder)
    same(Detector.load(folder, loss=squares), detector)
    for other in (huge, "l1"):
        with pytest.raises(ValueError, match=r"was calibrated with the loss .*squares, not with"):
            Detector.load(folder, loss=other)
    without = Detector(plain(), config=FEW).fit(FIT[:20]).save(tmp_path / "without")
    with pytest.raises(ValueError, match="no function: leave loss= out"):
        Detector.load(without, loss=squares)


def test_saving_again_leaves_no_old_program(tmp_path):
    for seed in (0, 1):
        detector = Detector(plain(seed), config=FEW).fit(FIT[:20])
        detector.save(tmp_path)
    assert len(list(tmp_path.glob("*.pt2"))) == 1
    same(Detector.load(tmp_path), detector)


class Untraceable(nn.Module):
    latent_shape = (2,)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 64))

    def forward(self, z):
        if float(z.detach().sum()) > 1e9:  # which a capture does not know
            z = z / 2
        return torch.tanh(z @ self.weight).reshape(-1, 1, 8, 8)


def test_a_generator_that_cannot_be_exported_is_said_to_be_one(tmp_path, calibrated, monkeypatch):
    detector = Detector(Untraceable(), config=FEW, engine="reference").fit(FIT[:12])
    with pytest.raises(
        ValueError, match=r"cannot be saved: generator Untraceable cannot be exported: .*Keep the calib"
    ):
        detector.save(tmp_path / "detector")
    assert not (tmp_path / "detector").exists()
    monkeypatch.setattr("adgan_fast.detector_files.exported", lambda module, shape: other_program())
    with pytest.raises(ValueError, match="exported and read back, scores otherwise in the last bits"):
        calibrated.save(tmp_path / "detector")


def other_program():
    from adgan_fast.generator.export import exported

    return exported(plain(7), (12,))


def test_a_training_is_not_replaced_by_a_detector(tmp_path, calibrated):
    train(FIT[:20], TINY, out=tmp_path)
    with pytest.raises(FileExistsError, match="holds a training"):
        calibrated.save(tmp_path)
    with pytest.raises(CheckpointError, match="holds no detector"):
        Detector.load(tmp_path)


def test_damage_is_seen(tmp_path, calibrated):
    with pytest.raises(FileNotFoundError):
        Detector.load(tmp_path / "nowhere")
    path = calibrated.save(tmp_path / "entry") / "checkpoint.json"
    head = json.loads(path.read_text())
    del head["meta"]["contamination"]
    path.write_text(json.dumps(head))
    with pytest.raises(CheckpointError, match="missing or malformed"):
        Detector.load(tmp_path / "entry")
    (program,) = calibrated.save(tmp_path / "program").glob("*.pt2")
    data = bytearray(program.read_bytes())
    data[len(data) // 2] ^= 1
    program.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        Detector.load(tmp_path / "program")
    program.unlink()
    with pytest.raises(FileNotFoundError, match="named by the detector"):
        Detector.load(tmp_path / "program")


def test_another_engine_than_that_of_the_calibration_is_said(tmp_path, calibrated, caplog):
    folder = calibrated.save(tmp_path)
    path = folder / "checkpoint.json"
    head = json.loads(path.read_text())
    head["meta"]["engine"] = "triton"
    path.write_text(json.dumps(head))
    loaded = Detector.load(folder)
    with caplog.at_level(logging.WARNING, "adgan_fast"):
        loaded.predict(TEST[:1])
        loaded.predict(TEST[:1])
    said = [record.message for record in caplog.records if "calibrated by the engine triton" in record.message]
    assert len(said) == 1 and f"runs by {calibrated._engine} here" in said[0]


def test_a_detector_can_be_pickled(calibrated):
    same(pickle.loads(pickle.dumps(calibrated)), calibrated)
