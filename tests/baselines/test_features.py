"""Feature maps. AlexNet runs on random weights from a seed: its own are not part of the package."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from adgan_fast.baselines import KDE, PCA, AlexNet, Pixels, Shared, WeightsMissing
from adgan_fast.baselines.alexnet import AlexNetConvolutions, load_alexnet
from tests.support.one_class import FIT, TEST, auc

SHAPES = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
IMAGES = torch.from_numpy(FIT)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """A state dict as torchvision writes it, with random numbers (He et al. 2015) and a short classifier."""
    random, found = torch.Generator().manual_seed(0), {}
    for layer, shape in SHAPES.items():
        deviation = (2 / np.prod(shape[1:])) ** 0.5
        found[f"features.{layer}.weight"] = torch.randn(shape, generator=random) * deviation
        found[f"features.{layer}.bias"] = torch.randn(shape[0], generator=random) * 0.1
    return {**found, "classifier.1.weight": torch.zeros(2, 9216), "classifier.1.bias": torch.zeros(2)}


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("alexnet") / "random.pth"
    torch.save(weights, path)
    return str(path)


def test_pixels_are_rows_in_the_range_of_images():
    whole = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    rows = Pixels()(whole)
    assert rows.dtype == np.float64 and rows.shape == (2, 48)
    np.testing.assert_allclose(rows.ravel(), np.arange(96) / 127.5 - 1, atol=1e-7)


def test_principal_components_hold_what_varies_most():
    rows, found = Pixels()(IMAGES), PCA(5).fit(IMAGES)(IMAGES)
    values, axes = np.linalg.eigh(np.cov(rows.T))
    wanted = (rows - rows.mean(0)) @ axes[:, ::-1][:, :5]
    np.testing.assert_allclose(np.abs(found), np.abs(wanted), atol=1e-6)
    np.testing.assert_allclose(found.var(0, ddof=1), values[::-1][:5], rtol=1e-6)


def test_components_of_some_images_alone():
    few = PCA(5, subsample=50, seed=3)
    assert not np.allclose(np.abs(few.fit(IMAGES)(IMAGES)), np.abs(PCA(5).fit(IMAGES)(IMAGES)))
    np.testing.assert_array_equal(few.fit(IMAGES)(IMAGES), PCA(5, subsample=50, seed=3).fit(IMAGES)(IMAGES))


def test_more_components_than_there_can_be_are_refused():
    with pytest.raises(ValueError, match=r"n=65 components need as many images and features, got \(110, 64\)"):
        PCA(65).fit(IMAGES)
    with pytest.raises(ValueError, match="n must be a whole number"):
        PCA(0)


def test_shared_features_are_computed_once_and_are_those_of_fewer_components():
    class Counting(PCA):
        fits = calls = 0

        def fit(self, images):
            self.fits += 1
            return super().fit(images)

        def __call__(self, images):
            self.calls += 1
            return super().__call__(images)

    inner = Counting(20)
    shared = Shared(inner)
    first, all_ = KDE(shared.first(5)).fit(FIT), KDE(shared.first(20)).fit(FIT.copy())
    np.testing.assert_allclose(first.decision_function(TEST), KDE(PCA(5)).fit(FIT).decision_function(TEST), rtol=1e-6)
    all_.decision_function(TEST)
    assert (inner.fits, inner.calls) == (1, 2)
    KDE(shared.first(5)).fit(FIT[:90])  # other images: fitted anew, and nothing of before is kept
    assert (inner.fits, inner.calls) == (2, 3)
    with pytest.raises(ValueError, match="there are 20 features, not 21"):
        shared.first(21)(IMAGES)


def test_images_that_differ_in_one_pixel_are_others():
    shared = Shared(PCA(3))
    shared.fit(IMAGES)
    changed = IMAGES.clone()
    changed[-1, 0, -1, -1] *= -0.5
    assert not np.array_equal(shared(IMAGES)[-1], shared(changed)[-1])


@pytest.mark.usefixtures("one_thread")
def test_the_network_is_alexnet_s_convolutions(weights, file):
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    found = load_alexnet(file)(x)
    for layer, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
        w, b = weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"]
        x = F.conv2d(x, w, b, stride=stride, padding=padding).clamp(min=0)
        if layer in (0, 3):
            x = F.max_pool2d(x, kernel_size=3, stride=2)
    assert found.shape == (2, 256, 13, 13)
    torch.testing.assert_close(found, x)
    assert float(found.mean()) > 0.05  # not all cut off


def test_both_kinds_of_files_are_read_without_a_trace_of_the_classifier(weights, file, tmp_path):
    save_file(weights, tmp_path / "random.safetensors")
    networks = [load_alexnet(path) for path in (file, tmp_path / "random.safetensors")]
    for network in networks:
        assert not network.training and not any(p.requires_grad for p in network.parameters())
        assert set(network.state_dict()) == {name for name in weights if name.startswith("features.")}
        assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features.8.bias": None}, "features.8.bias is missing"),
        (
            {"features.3.weight": torch.zeros(192, 64, 3, 3)},
            r"features.3.weight is \(192, 64, 3, 3\), not \(192, 64, 5",
        ),
        ({"features.12.weight": torch.zeros(1)}, "features.12.weight is unknown"),
        ({"features.0.bias": torch.full((64,), torch.nan)}, "features.0.bias has NaN or Inf"),
    ],
)
def test_a_file_of_other_weights_is_refused_by_name(weights, tmp_path, change, said):
    changed = {name: value for name, value in {**weights, **change}.items() if value is not None}
    save_file(changed, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=said):
        AlexNet(tmp_path / "other.safetensors")


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list, not a state dict"):
        load_alexnet(tmp_path / "list.pth")


class Hostile:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def test_a_file_with_code_is_refused_and_the_code_is_not_run(tmp_path):
    torch.save({"features.0.weight": Hostile(tmp_path / "trace")}, tmp_path / "hostile.pth")
    with pytest.raises(ValueError, match=r"hostile\.pth holds more than tensors.*nothing in it was run"):
        load_alexnet(tmp_path / "hostile.pth")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("path", [None, "nowhere.pth"])
def test_without_weights_the_remedy_is_named(path):
    with pytest.raises(
        WeightsMissing, match=r"alexnet-owt-7be5be79.pth \(https://download.pytorch.org/.*SHA-256 7be5be79"
    ):
        AlexNet(path)


@pytest.mark.usefixtures("one_thread")
def test_features_of_the_network_are_those_of_resized_and_normalised_images(file):
    images, features = IMAGES[:12], AlexNet(file, 3)
    gray = (images.repeat(1, 3, 1, 1) + 1) / 2
    large = F.interpolate(gray, (224, 224), mode="bilinear", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (large - mean[:, None, None]) / std[:, None, None]
    (found,) = features._parts(images)
    wanted = load_alexnet(file)(x).flatten(1).numpy()
    assert found.shape == (12, 43264) and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"1 or 3 channels, got \(2, 2, 8, 8\)"):
        list(features._parts(torch.zeros(2, 2, 8, 8)))


@pytest.mark.usefixtures("one_thread")
def test_a_detector_on_alexnet_s_features_ranks_above_chance(file):
    """Of random weights, so no more is asked of it."""
    detector = KDE(AlexNet(file, 10), bandwidths=(4.0, 8.0, 16.0)).fit(FIT[:40])
    assert auc(detector, every=8) > 0.65


def test_the_network_without_weights_has_none_of_a_classifier():
    assert sum(p.numel() for p in AlexNetConvolutions().parameters()) == sum(
        int(np.prod(shape)) + shape[0] for shape in SHAPES.values()
    )
