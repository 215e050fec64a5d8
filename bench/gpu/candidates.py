"""Which tiles of a kernel are tried: by count.py, whose compiled code is counted, and by tune.py, which times them."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping

from adgan_fast.kernels.maps import choices as map_choices
from adgan_fast.kernels.maps.choices import Tiles
from adgan_fast.kernels.maps.geometry import Geometry

from .launches import defaults, launches_of

OPTIONS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "change": {"warps": (4, 8), "inner": (16, 32, 64), "outer": (32, 64, 128), "stages": (1, 2, 3, 4)},
    "update": {"warps": (4, 8), "inner": (32, 64), "outer": (32, 64, 128), "rows": (32, 64), "stages": (2, 3)},
    "product": {"warps": (4, 8), "rows": (16, 64), "outer": (32, 64, 128), "inner": (32, 64), "stages": (1, 2, 3, 4)},
    "vector forward": {"warps": (1, 2), "rows": (1, 2, 4, 8), "outer": (64, 128, 256)},
    "shared": {"warps": (4, 8), "rows": (64, 128, 256), "outer": (64, 128), "inner": (32, 64), "stages": (2, 3, 4)},
}


def candidates(kernel: str, geometry: Geometry, precision: str) -> list[Tiles]:
    """The default first; each only once by what the launch makes of it."""
    default = defaults(geometry, precision)[kernel]
    options = OPTIONS[kernel]
    found = [default, *_configured(kernel, geometry, precision)]
    found += [dataclasses.replace(default, **{name: value}) for name, values in options.items() for value in values]
    sizes = [name for name in ("rows", "inner", "outer") if name in options]
    for first, second in itertools.combinations(sizes, 2):
        pairs = itertools.product(options[first], options[second])
        found += [dataclasses.replace(default, **{first: a, second: b}) for a, b in pairs]
    once: dict[str, Tiles] = {}
    for tiles in found:
        once.setdefault(_effect(kernel, geometry, precision, tiles), tiles)
    return list(once.values())


def _configured(kernel: str, geometry: Geometry, precision: str) -> list[Tiles]:
    key = f"{kernel} {precision} {map_choices.geometry_key(geometry)}"
    files = sorted(map_choices.config_file("").parent.glob("*.json"))
    read = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    return [Tiles(**entries[key]) for entries in read if key in entries]


def _effect(kernel: str, geometry: Geometry, precision: str, tiles: Tiles) -> str:
    mine = launches_of(geometry, precision, 2, {kernel: tiles})
    return repr([(it.case.constexprs, it.case.options) for it in mine if it.kernel == kernel])
