"""Lets Python find `adgan_fast.kernels` in a checkout that is not installed: it is the folder kernels/ at its root.

Python imports a module of this name by itself where its folder is in PYTHONPATH; `bench.gpu` puts it there for the
processes it starts, and `PYTHONPATH=.:bench/gpu/checkout python -m pytest tests` works in the same way.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from typing import Any

KERNELS = Path(__file__).resolve().parents[3] / "kernels"


class Kernels:
    """The finder of that one package; the modules in it are found by its path."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != "adgan_fast.kernels":
            return None
        return importlib.util.spec_from_file_location(
            name, KERNELS / "__init__.py", submodule_search_locations=[str(KERNELS)]
        )


sys.meta_path.insert(0, Kernels)
