"""Python source of a generator, drawn line by line and run as it is drawn.

So a failing generator can be read, and copied. Each line makes one variable from those before it. Since it is run at
once, the next line knows the shapes that it has to fit, and what has grown too large is scaled down. All weights and
all choices follow from one seed.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

MOST_NUMBERS = 2500  # in an activation, a weight, or an image's plane
LARGE = 8.0  # values beyond it are scaled down: they would leave no gradient behind a tanh
SMALL = 1e-3  # values below it are now and then scaled up: their digits count then

Shape = tuple[int, ...]


class Unsuited(Exception):
    """A line that does not fit what there is so far: another one is drawn."""


class Drawn(nn.Module):
    """A generator whose forward is drawn source."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("home", torch.zeros(()))  # not used: it says where, and in what, one without weights runs
        self.source = ""
        self.function: Callable[[nn.Module, torch.Tensor], torch.Tensor] = lambda self, z: z

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.function(self, z)


@dataclasses.dataclass(frozen=True)
class Weight:
    """A parameter or buffer, as source, that a later line may use once more."""

    text: str
    shape: Shape


class Source:
    """A generator as far as it is drawn. `x` is the variable that the next line builds on."""

    def __init__(self, seed: int, latent_shape: Shape) -> None:
        self.random = random.Random(seed)
        self.torch_random = torch.Generator().manual_seed(seed)
        self.module = Drawn()
        self.setup: list[str] = []
        self.lines: list[str] = []
        self.weights: list[Weight] = []
        z = torch.randn(1, *latent_shape, generator=self.torch_random)
        self.names = {"self": self.module, "torch": torch, "nn": nn, "F": F, "z": z}
        self.x, self.count = "z", 0

    # -- choices ---------------------------------------------------------------------------------------------------

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def pick(self, *options):
        return self.random.choice(options)

    def whole(self, least: int, most: int) -> int:
        return self.random.randint(least, max(least, most))

    # -- what there is -----------------------------------------------------------------------------------------------

    def shape_of(self, name: str) -> Shape:
        """Of one sample."""
        return tuple(self.names[name].shape[1:])

    @property
    def shape(self) -> Shape:
        return self.shape_of(self.x)

    @property
    def variables(self) -> list[str]:
        return [name for name in self.names if name[0] in "vz"]

    def reduced(self) -> str:
        """x, or now and then an earlier variable of its shape."""
        same = [name for name in self.variables if self.shape_of(name) == self.shape]
        return self.pick(*same) if self.chance(0.1) else self.x

    # -- additions -----------------------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """Run `text`, an expression, and let x be what it gives; Unsuited where it is no good."""
        name = f"v{self.count + 1}"
        with torch.no_grad():
            try:
                value = eval(text, self.names)
            except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
                raise Unsuited(f"{text}: {error}") from error
        fits = value.dim() >= 2 and value.shape[0] == 1 and 0 < value.numel() <= MOST_NUMBERS
        if not fits or not bool(value.isfinite().all()):
            raise Unsuited(text)
        self.count += 1
        self.names[name] = value
        self.lines.append(f"{name} = {text}")
        self.x = name
        most = float(value.abs().max())
        if most > LARGE or (0 < most < SMALL and self.chance(0.5)):
            self.line(f"{name} * {LARGE / 4 / most:.3g}")

    def make(self, text: str, randomise: Callable[[torch.Tensor], None] | None = None) -> str:
        """An attribute of the module, with all that is in it randomised; its name as source."""
        name = f"m{len(self.setup)}"
        made = eval(text, self.names)
        buffer = isinstance(made, torch.Tensor) and not isinstance(made, nn.Parameter)
        statement = f"self.register_buffer({name!r}, {text})" if buffer else f"self.{name} = {text}"
        exec(statement, self.names)
        self.setup.append(statement)
        held = getattr(self.module, name)
        with torch.no_grad():
            if isinstance(held, torch.Tensor):
                (randomise or self.normal)(held)
            else:
                for path, tensor in held.named_parameters():
                    (randomise or self.normal)(tensor)
                    self.weights.append(Weight(f"self.{name}.{path}", tuple(tensor.shape)))
        if isinstance(held, torch.Tensor):
            self.weights.append(Weight(f"self.{name}", tuple(held.shape)))
        return f"self.{name}"

    def normal(self, tensor: torch.Tensor) -> None:
        fan_in = max(1, math.prod(tensor.shape[1:])) if tensor.dim() in (2, 4) else 10
        tensor.copy_(torch.randn(tensor.shape, generator=self.torch_random) * 1.2 / math.sqrt(fan_in))

    def near_one(self, tensor: torch.Tensor) -> None:
        tensor.copy_(0.6 + 0.8 * torch.rand(tensor.shape, generator=self.torch_random))

    def tensor(self, shape: Shape, randomise: Callable[[torch.Tensor], None] | None = None) -> str:
        """A new parameter or buffer, or one that is there already, of a shape; as source."""
        there = [w.text for w in self.weights if w.shape == shape]
        if there and randomise is None and self.chance(0.4):
            return self.pick(*there)
        sizes = ", ".join(map(str, shape))
        zeros = f"torch.zeros({sizes})" if shape else "torch.zeros(())"
        if len(shape) == 2 and self.chance(0.15):
            zeros = f"torch.zeros({shape[1]}, {shape[0]}).t()"  # not contiguous
        if self.chance(0.25):
            return self.make(zeros, randomise)
        return self.make(f"nn.Parameter({zeros})", randomise)

    def vector(self, size: int) -> str:
        return self.tensor((size,))

    def finished(self) -> Drawn:
        """The module. Weights may not be laid out as PyTorch would."""
        body = "\n    ".join([*self.lines, f"return {self.x}"])
        source = f"def forward(self, z):\n    {body}\n"
        names = {"torch": torch, "F": F}
        exec(source, names)
        self.module.function = names["forward"]
        self.module.source = "".join(f"{statement}\n" for statement in self.setup) + source
        if self.chance(0.1) and all(len(weight.shape) < 5 for weight in self.weights):
            self.module.to(memory_format=torch.channels_last)
            self.module.source += "# .to(memory_format=torch.channels_last)\n"
        for weight in self.module.parameters():
            weight.requires_grad_(not self.chance(0.1))
        return self.module.train(self.chance(0.5))
