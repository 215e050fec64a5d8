"""AlexNet's convolutions (Krizhevsky et al. 2012), in the layout of the ImageNet weights that are usually had."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

SIDE = 224
"""Height and width of the images that it was trained on."""

WEIGHTS_FILE = "alexnet-owt-7be5be79.pth"
WEIGHTS_URL = f"https://download.pytorch.org/models/{WEIGHTS_FILE}"
WEIGHTS_SHA256 = "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"


class WeightsMissing(FileNotFoundError):
    """AlexNet's features were asked for without its weights, which are not part of this package."""

    def __init__(self, path: Path | None) -> None:
        given = "none were given" if path is None else f"there is no file {path}"
        super().__init__(
            f"AlexNet's features need its ImageNet weights, and {given}: pass weights=, the path of torchvision's "
            f"{WEIGHTS_FILE} ({WEIGHTS_URL}, SHA-256 {WEIGHTS_SHA256}) or of the same tensors as .safetensors"
        )


class AlexNetConvolutions(nn.Module):
    """Images (B, 3, H, W) to the fifth convolution after its ReLU; (B, 256, 13, 13) for H = W = 224.

    The one-column network of Krizhevsky 2014, which is the one whose weights torchvision has: convolutions of 64, 192,
    384, 256 and 256 maps, the first with stride 4, ReLU after each, max pooling of 3 by 3 with stride 2 after the first
    two. The pooling and the linear layers that follow are left out. `features` counts layers as torchvision does: its
    names of weights fit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W) to (B, 256, h, w)."""
        return self.features(x)


def load_alexnet(path: str | os.PathLike[str]) -> AlexNetConvolutions:
    """The network with the weights in a file: .safetensors, or what `torch.save` wrote of a state dict.

    No code in the file is run. Entries `classifier.*` are ignored. On the CPU, in float32 and eval mode.

    Raises:
        WeightsMissing: there is no such file.
        ValueError: an entry is missing, unknown, of another shape or not finite, each by its name; or a file that holds
            more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsMissing(path)
    given = _read(path)
    with torch.device("meta"):
        network = AlexNetConvolutions()
    wanted = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    kept = {name: value for name, value in given.items() if not name.startswith("classifier.")}
    wrong = [f"{name} is missing" for name in wanted if name not in kept]
    for name, value in kept.items():
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        if name not in wanted:
            wrong.append(f"{name} is unknown")
        elif shape != wanted[name]:
            wrong.append(f"{name} is {shape}, not {wanted[name]}")
        elif not bool(torch.isfinite(value).all()):
            wrong.append(f"{name} has NaN or Inf")
    if wrong:
        raise ValueError(f"{path} does not hold AlexNet's weights: {'; '.join(wrong)}")
    network.load_state_dict({name: value.float() for name, value in kept.items()}, assign=True)
    return network.eval().requires_grad_(False)


def _read(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than tensors, or is damaged: nothing in it was run") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a state dict")
    return {str(name): value for name, value in found.items()}
