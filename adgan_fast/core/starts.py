"""Starts of the search: a prior sampled by a counter-based generator, so that a start depends on its key alone.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns (seed, stream, start, block)
into bits; the normal prior is the inverse of the normal distribution at those uniforms (Wichura 1988, algorithm
AS 241), with a logarithm built from +, −, ×, / alone. IEEE arithmetic rounds those alike everywhere, so a start has
the same bits on every machine, whatever its maths library.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch

from ..config import SearchConfig

_MASK = np.uint64(0xFFFFFFFF)
_ROUND = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY = (0x9E3779B9, 0xBB67AE85)


def philox(counter: np.ndarray, key: int) -> np.ndarray:
    """Philox4x32-10: counters (n, 4) uint32 and a 64-bit key (its low word first) to (n, 4) uint32."""
    c0, c1, c2, c3 = (counter[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        low, high = _ROUND[0] * c0, _ROUND[1] * c2
        c0, c1, c2, c3 = (
            (high >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            high & _MASK,
            (low >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            low & _MASK,
        )
        k0, k1 = (k0 + _KEY[0]) & 0xFFFFFFFF, (k1 + _KEY[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def uniforms(seed: int, image: int | None, n_seed: int, size: int, first: int = 0) -> np.ndarray:
    """Uniforms in (0, 1) of starts [first, n_seed), float64, (n_seed − first, size); `image` None: for all images.

    Counter words: block of two numbers, start, and image + 1 in 64 bits (0: shared). So start j is the same whatever
    others are drawn.
    """
    blocks = -(-size // 2)
    stream = 0 if image is None else image + 1
    counter = np.empty((n_seed - first, blocks, 4), np.uint32)
    counter[..., 0] = np.arange(blocks, dtype=np.uint32)
    counter[..., 1] = np.arange(first, n_seed, dtype=np.uint32)[:, None]
    counter[..., 2] = stream & 0xFFFFFFFF
    counter[..., 3] = stream >> 32
    words = philox(counter.reshape(-1, 4), seed).astype(np.uint64)
    bits = (words[:, 0::2] << np.uint64(20)) | (words[:, 1::2] >> np.uint64(12))  # 52 bits: plus ½ stays exact
    return ((bits.astype(np.float64) + 0.5) * 2.0**-52).reshape(n_seed - first, -1)[:, :size]


# Coefficients of AS 241 (PPND16): numerator and denominator of each range, lowest power first.
_CENTRE = (
    (
        3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
        4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3,
    ),
    (
        1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
        2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3,
    ),
)  # fmt: skip
_NEAR = (
    (
        1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
        1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4,
    ),
    (
        1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
        1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9,
    ),
)  # fmt: skip
_FAR = (
    (
        6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
        2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7,
    ),
    (
        1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
        7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15,
    ),
)  # fmt: skip


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: np.ndarray) -> np.ndarray:
    above, below = (_horner(powers, x) for powers in coefficients)
    return above / below


def _horner(powers: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    value = np.full_like(x, powers[-1])
    for power in powers[-2::-1]:
        value = value * x + power
    return value


def _log(x: np.ndarray) -> np.ndarray:
    """Natural logarithm from basic arithmetic: x = m·2^e with m near 1, then the series of 2·artanh."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < math.sqrt(0.5)
    mantissa = np.where(small, 2 * mantissa, mantissa)
    exponent = (exponent - small).astype(np.float64)
    ratio = (mantissa - 1) / (mantissa + 1)  # |ratio| < 0.172, so twelve odd terms leave less than a rounding
    series = _horner(tuple(2.0 / (2 * i + 1) for i in range(12)), ratio * ratio)
    return exponent * 0.6931471805599453 + ratio * series


def inverse_normal(uniform: np.ndarray) -> np.ndarray:
    """The x of each u in (0, 1) with Φ(x) = u, float64 (AS 241, relative error about 1e-16)."""
    centred = uniform - 0.5
    middle = _ratio(_CENTRE, 0.180625 - centred * centred) * centred
    tail = np.sqrt(-_log(np.minimum(uniform, 1 - uniform)))
    outer = np.where(tail <= 5, _ratio(_NEAR, tail - 1.6), _ratio(_FAR, tail - 5))
    return np.where(np.abs(centred) <= 0.425, middle, np.copysign(outer, centred))


def draw(
    seed: int, image: int | None, n_seed: int, latent_shape: tuple[int, ...], prior: str, first: int = 0
) -> torch.Tensor:
    """Starts [first, n_seed) of an image (`image` None: those shared by all): (n_seed − first, *latent_shape) float64.

    prior ``"normal"`` is N(0, I), ``"uniform"`` the cube [-1, 1].
    """
    uniform = uniforms(seed, image, n_seed, math.prod(latent_shape), first)
    values = inverse_normal(uniform) if prior == "normal" else 2 * uniform - 1
    return torch.from_numpy(values).reshape(n_seed - first, *latent_shape)


class Starts:
    """The starts of a run, by image: drawn, or a user's tensor. Made on the CPU in float64, handed out as asked.

    config.starts is "shared", "independent", or a tensor (S, *latent) or (N, S, *latent).

    Attributes:
        n_seed: S.
    """

    def __init__(
        self,
        config: SearchConfig,
        latent_shape: tuple[int, ...],
        *,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self._draw = lambda image, first, last: draw(config.seed, image, last, latent_shape, config.prior, first)
        self._device, self._dtype = device, dtype
        self._first = 0  # of those that are drawn
        self._given: torch.Tensor | None = None
        self._common: torch.Tensor | None = None
        self.n_seed = config.n_seed
        if isinstance(config.starts, torch.Tensor):
            self._take(config.starts.detach().clone(), latent_shape)
        elif config.starts == "shared":
            self._common = self._draw(None, 0, config.n_seed).to(device, dtype)

    def _take(self, starts: torch.Tensor, latent_shape: tuple[int, ...]) -> None:
        rank = len(latent_shape)
        good = starts.dim() in (rank + 1, rank + 2) and tuple(starts.shape[starts.dim() - rank :]) == latent_shape
        if not good:
            raise ValueError(
                f"starts has shape {tuple(starts.shape)}; the generator's latent shape {latent_shape} asks for "
                f"(S, *{latent_shape}) or (N, S, *{latent_shape})"
            )
        self.n_seed = starts.shape[-rank - 1]
        if self.n_seed == 0:
            raise ValueError(f"starts has shape {tuple(starts.shape)}: no start at all")
        if starts.dim() == rank + 1:
            self._common = starts.to(self._device, self._dtype)
        else:
            self._given = starts
        if not bool(torch.isfinite(starts).all()):
            raise ValueError("starts holds NaN or Inf")

    def check_images(self, n_images: int) -> None:
        """ValueError where a user gave starts of each image, and of another number of images than a run has."""
        if self._given is not None and len(self._given) != n_images:
            raise ValueError(
                f"starts has shape {tuple(self._given.shape)} for {len(self._given)} images; images has {n_images}"
            )

    @property
    def common(self) -> torch.Tensor | None:
        """The starts that all images share, (S, *latent), or None where each image has its own."""
        return self._common

    def of_first(self, n_images: int, dtype: torch.dtype) -> torch.Tensor:
        """Every start of images [0, n) as the run has it, rounded to its dtype: (n, S, *latent) in another one."""
        return self.of_images(list(range(n_images))).to(dtype)

    def of_images(self, images: list[int], start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Starts [start, stop) of the images with these indices: (n, stop − start, *latent) on the run's device."""
        stop = self.n_seed if stop is None else stop
        if self._common is not None:
            part = self._common[start:stop]
            return part.expand(len(images), *part.shape)
        if self._given is not None:
            return self._given[images, start:stop].to(self._device, self._dtype)
        first, last = self._first + start, self._first + stop
        return torch.stack([self._draw(image, first, last) for image in images]).to(self._device, self._dtype)

    def part(self, start: int, stop: int) -> Starts:
        """Starts [start, stop) of each image, as starts of their own."""
        found = copy.copy(self)
        found.n_seed, found._first = stop - start, self._first + start
        found._common = None if self._common is None else self._common[start:stop]
        found._given = None if self._given is None else self._given[:, start:stop]
        return found
