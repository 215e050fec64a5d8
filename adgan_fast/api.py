"""score and search: a Scorer that is used once."""

from __future__ import annotations

from typing import Any

from .config import SearchConfig
from .core.residuals import Weighting
from .generator.working_copy import Generator
from .result import SearchResult
from .scorer import Images, Scorer, as_given, weighting


def score(gen: Generator, images: Images, *, config: SearchConfig | None = None, **overrides: Any) -> Images:
    """Anomaly score of each image: the mean final reconstruction loss over its starts; higher is more anomalous.

    Algorithm 1 of Deecke et al. 2018. A score depends on (gen, image, config) alone.

    Args:
        gen: generator (B, *latent) → (B, C, H, W): a module, an ExportedProgram, or the path of a saved .pt2.
            It is not changed, and runs as in eval mode.
        images: (N, C, H, W), or (N, H, W) where C = 1; floats in [-1, 1], or uint8 (scaled as x / 127.5 − 1);
            tensor or ndarray.
        config: settings; fields of SearchConfig may also be given by name, and take precedence.

    Returns:
        (N,) scores, in the generator's dtype, a tensor on the images' device or an ndarray as `images` is. NaN, with a
        warning, for an image that holds NaN or Inf.

    Raises:
        ValueError: naming the field, the shapes or the range that is wrong; or an engine that cannot run this.
        TypeError: if images or gen are of another type.
        MemoryError: if not even one pair fits.
    """
    return as_given(Scorer(gen, config=config, **overrides)._run(images, ["scores"])["scores"], images)


def search(
    gen: Generator,
    images: Images,
    *,
    maps: bool | Weighting = False,
    config: SearchConfig | None = None,
    **overrides: Any,
) -> SearchResult:
    """The whole outcome of the search: losses, latents and reconstructions beside the scores.

    Arguments and errors as for `score`. Latents take N · S · latent numbers of memory.

    Args:
        maps: whether to keep where images and reconstructions differ: (N, H, W), squared differences (for loss ``"l1"``
            absolute ones) summed over channels. ``"mean"``, as True: over all starts alike, so that with the losses l2
            and l1 a map adds up to the score; ``"weighted"``: by the reciprocal of each start's final loss. The search
            takes up to 64 MiB more for it (S · H · W numbers an image where that is more). `adgan_fast.maps` smooths
            and measures them.
    """
    scorer = Scorer(gen, config=config, **overrides)
    return scorer._result(scorer._run(images, None, weighting(maps)))
