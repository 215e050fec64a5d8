"""Random command lines of ``adgan-fast score``: each a right result, or one line that names what is wrong.

A case follows from one integer. What is right is told by `adgan_fast.score` on the images in memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pyarrow import parquet

import adgan_fast
from adgan_fast import jobs
from adgan_fast.cli import main
from adgan_fast.models import DCGANGenerator
from adgan_fast.training import load_generator, save_generator

COUNT, LATENT = 5, 6
ENGINES = [each.name for each in adgan_fast.engines() if each.available and each.name != "triton"]

# Of each option texts with their value, and texts that are wrong with the word that the message has to hold.
GOOD: dict[str, list[tuple[str, Any]]] = {
    "n_seed": [("1", 1), ("2", 2), ("3", 3)],
    "steps": [("0", 0), ("1", 1), ("2", 2), ("6", 6)],
    "lr_z": [("0", 0.0), ("0.25", 0.25), ("1e-3", 1e-3), ("1", 1.0)],
    "lr_weights": [("0", 0.0), ("5e-5", 5e-5), ("0.01", 0.01)],
    "betas": [("0.5,0.999", (0.5, 0.999)), ("0,0", (0.0, 0.0)), ("0.9, 0.9", (0.9, 0.9))],
    "eps": [("1e-8", 1e-8), ("1", 1.0), ("1.2e-38", 1.2e-38)],
    "weights": [(each, each) for each in ("per_seed", "per_sample", "frozen")],
    "loss": [(each, each) for each in ("l2", "l1", "laplacian")],
    "prior": [("normal", "normal"), ("uniform", "uniform")],
    "starts": [("shared", "shared"), ("independent", "independent"), ("s.npy", "s.npy"), ("n.npy", "n.npy")],
    "seed": [("0", 0), ("7", 7), (str(2**64 - 1), 2**64 - 1)],
    "latent_shape": [("6", (6,))],
    "engine": [(each, each) for each in ("auto", *ENGINES)],
    "precision": [(each, each) for each in ("float32", "tf32", "bf16")],
    "device": [("cpu", "cpu")],
    "chunk": [("1", 1), ("100", 100)],
    "strict": [("", True)],
}
BAD: dict[str, list[tuple[str, str]]] = {
    "n_seed": [("0", "n_seed"), ("-1", "n_seed"), ("two", "--n-seed"), ("1.5", "--n-seed"), ("", "--n-seed")],
    "steps": [("-1", "steps"), ("1e3", "--steps")],
    "lr_z": [("-1", "lr_z"), ("nan", "lr_z"), ("inf", "lr_z"), ("fast", "--lr-z")],
    "lr_weights": [("-0.1", "lr_weights"), ("nan", "lr_weights")],
    "betas": [("0.5", "betas"), ("0.5,1", "betas"), ("-1,0", "betas"), ("a,b", "--betas"), ("0,0,0", "betas")],
    "eps": [("0", "eps"), ("1e-39", "eps"), ("nan", "eps")],
    "weights": [("own", "weights"), ("", "weights"), ("PER_SEED", "weights")],
    "loss": [("l3", "loss"), ("no_module:x", "--loss"), ("", "loss"), ("os:nothing", "--loss"), ("a b:c", "--loss")],
    "prior": [("flat", "prior")],
    "starts": [("none", "starts"), ("no.npy", "--starts"), ("", "starts"), ("w.npy", "starts"), ("i.npy", "starts")],
    "seed": [("-1", "seed"), (str(2**64), "seed"), ("0x10", "--seed")],
    "latent_shape": [("0", "--latent-shape"), ("7", "latent"), ("6,", "--latent-shape"), ("x", "--latent-shape")],
    "engine": [("warp", "engine"), ("", "engine")],
    "precision": [("float16", "precision")],
    "device": [("abacus", "device"), ("cpu:x", "device"), ("meta", "")],
    "chunk": [("0", "chunk"), ("some", "--chunk")],
    "size": [("9", "--size"), ("8x", "--size"), ("0", "--size")],
    "resize": [("squash", "resize"), ("", "resize")],
    "column": [("image", "column")],
    "keep": [("all", "keep")],
    "shard": [("0", "--shard"), ("x", "--shard")],
    "bogus": [("1", "--bogus")],
}  # fmt: skip
IMAGES = ["images", "images/*.png", "images.npy", "images.npz", "images.parquet", "images.tar", "idx3"]
NO_IMAGES = [
    ("nowhere", "nowhere"),
    ("none/", "no image"),
    ("g.safetensors", "not an idx file"),
    ("large.npy", "(1, 9, 9)"),
]
GENERATORS = ["g.safetensors", "g.pt2"]
NO_GENERATORS = [("nowhere.pt2", "no such file"), ("images.npy", "safetensors"), ("images.tar", "safetensors")]


def make(folder: Path) -> None:
    """The files that the cases name."""
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8), dtype=np.uint8)
    generator = DCGANGenerator(8, 1, LATENT, 4, generator=torch.Generator().manual_seed(0)).eval()
    save_generator(generator, folder / "g.safetensors")
    torch.export.save(torch.export.export(generator, (torch.zeros(2, LATENT),)), folder / "g.pt2")
    (folder / "images").mkdir()
    (folder / "none").mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "images" / f"{index}.png")
    encoded = [(folder / "images" / f"{index}.png").read_bytes() for index in range(COUNT)]
    np.save(folder / "images.npy", pixels)
    np.save(folder / "large.npy", np.zeros((2, 9, 9), np.uint8))
    np.savez(folder / "images.npz", images=pixels)
    parquet.write_table(pa.table({"image": encoded}), folder / "images.parquet")
    with tarfile.open(folder / "images.tar", "w") as tar:
        for index in range(COUNT):
            tar.add(folder / "images" / f"{index}.png", f"{index}.png")
    (folder / "idx3").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, COUNT, 0, 0, 0, 8, 0, 0, 0, 8]) + pixels.tobytes())
    normal = np.random.default_rng(1).standard_normal
    np.save(folder / "s.npy", normal((2, LATENT)).astype(np.float32))
    np.save(folder / "n.npy", normal((COUNT, 2, LATENT)).astype(np.float32))
    np.save(folder / "w.npy", normal((2, LATENT + 1)).astype(np.float32))
    np.save(folder / "i.npy", np.ones((2, LATENT), np.int64))
    np.save(folder / "f.npy", normal((COUNT + 1, 2, LATENT)).astype(np.float32))


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line, with the settings of the right result; or `wrong`, a word that has to be in the error."""

    arguments: tuple[str, ...]
    settings: dict[str, Any]
    wrong: str | None


def command_of(seed: int) -> Command:
    """The command line of a case: in two of three there is nothing wrong, in the others one thing."""
    random = np.random.default_rng(seed)
    generator, images = (str(random.choice(each)) for each in (GENERATORS, IMAGES))
    names = [str(name) for name in random.choice(list(GOOD), random.integers(0, 7), replace=False)]
    given = {name: GOOD[name][random.integers(len(GOOD[name]))] for name in names}
    texts, wrong = {name: text for name, (text, _) in given.items()}, None
    if random.integers(3) == 0:
        what = random.integers(len(BAD) + 2)
        if what == 0:
            images, wrong = NO_IMAGES[random.integers(len(NO_IMAGES))]
        elif what == 1:
            generator, wrong = NO_GENERATORS[random.integers(len(NO_GENERATORS))]
        else:
            name = list(BAD)[what - 2]
            texts[name], wrong = BAD[name][random.integers(len(BAD[name]))]
            if name == "column" and images == "images.parquet":
                images = "images"
    options = [part for name, text in texts.items() for part in _option(name, text)]
    if random.integers(2):
        options += ["--shard", str(random.integers(1, 7))] if "shard" not in texts else []
    if random.integers(4) == 0:
        options += ["--resize", "crop"] if "resize" not in texts else []
    return Command((generator, images, *options), {name: value for name, (_, value) in given.items()}, wrong)


def _option(name: str, text: str) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    return [option] if name == "strict" else [f"{option}={text}"]


def fault_of(command: Command, out: Path) -> str:
    """What the command does wrong in the folder of `make`, or ""; `out` must not be there."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        status = main(["score", *command.arguments, "--out", str(out), "-q"])
    error = stderr.getvalue()
    if command.wrong is not None:
        lines = [line for line in error.splitlines() if line.startswith("adgan-fast: error: ")]
        if status not in (1, 2) or len(lines) != 1 or command.wrong not in lines[0] or stdout.getvalue():
            return f"exit {status}, expected an error with {command.wrong!r}: {error}"
        return ""
    if "cannot run: disagrees" in error and command.settings.get("precision", "float32") != "float32":
        return (
            "" if status == 2 else error
        )  # less exact arithmetic may miss the bound: an engine by name is refused then
    if status != 0:
        return f"exit {status}: {error}"
    settings = dict(command.settings)
    if str(settings.get("starts", "")).endswith(".npy"):
        settings["starts"] = torch.from_numpy(np.load(settings["starts"]))
    generator = "g.pt2" if command.arguments[0] == "g.pt2" else load_generator("g.safetensors")
    want = adgan_fast.score(generator, np.load("images.npy"), **settings)
    found = jobs.read(out)["score"].to_numpy()
    return "" if np.array_equal(found, want, equal_nan=True) else f"scores {found}, expected {want}"
