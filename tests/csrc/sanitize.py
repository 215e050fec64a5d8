"""Run the op tests over an extension built with the address and undefined-behaviour sanitizers (``make sanitize``).

The package is copied to a temporary folder, and the extension compiled into the copy: the installed one stays as it is.
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = runpy.run_path(str(ROOT / "csrc" / "flags.py"))
FLAGS = [
    "-O1", "-g", "-fPIC", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer",
    *SHIPPED["LANGUAGE"], *SHIPPED["ARITHMETIC"], *SHIPPED["TORCH"], *SHIPPED["system_includes"](include_paths()),
    f"-I{ROOT / 'csrc'}",
]  # fmt: skip
TESTS = ["tests/ops", "tests/engine/native"]
# Those that compare with the slow reference say nothing more under a sanitizer; random programs stay, and each layer in
# one of its settings.
SKIPPED = "agrees or matches_torch_optim or packag or (image_and_gradients and not between)"


def build(compiler: str, folder: Path) -> None:
    """Compile csrc/ into folder/_C.abi3.so."""
    sources = sorted((ROOT / "csrc").rglob("*.cpp"))
    objects = [folder / f"{i}.o" for i in range(len(sources))]

    def compile_one(pair: tuple[Path, Path]) -> None:
        subprocess.run([compiler, *FLAGS, "-c", str(pair[0]), "-o", str(pair[1])], check=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, zip(sources, objects, strict=True)))
    libraries = [f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"]
    target = str(folder / "_C.abi3.so")
    subprocess.run(
        [compiler, "-shared", "-fsanitize=address,undefined", *map(str, objects), *libraries, "-o", target], check=True
    )
    for path in objects:
        path.unlink()


def main() -> int:
    compiler = os.environ.get("CXX", "g++")
    runtimes = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so")
    ]
    with tempfile.TemporaryDirectory() as temporary:
        package = Path(temporary) / "adgan_fast"
        shutil.copytree(ROOT / "adgan_fast", package, ignore=shutil.ignore_patterns("_C.*", "__pycache__"))
        shutil.copytree(ROOT / "kernels", package / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
        build(compiler, package)
        environment = {
            **os.environ,
            "LD_PRELOAD": " ".join(runtimes),
            "PYTHONPATH": os.pathsep.join([temporary, str(ROOT)]),  # the copy of the package, and tests/support
            "ASAN_OPTIONS": "detect_leaks=0",  # Python's own, by the thousand
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        where = "import adgan_fast, sys; sys.exit(not adgan_fast.__file__.startswith(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", where, temporary], check=True, env=environment, cwd=temporary)
        command = [
            sys.executable, "-m", "pytest", "-q", "-n", "auto", "-p", "no:cacheprovider",
            "-c", str(ROOT / "pyproject.toml"), "-o", "pythonpath=", "-k", f"not ({SKIPPED})",
            *(str(ROOT / test) for test in TESTS),
        ]  # fmt: skip
        # Not in the tree: `python -m` puts the folder it runs in before all others.
        return subprocess.run(command, env=environment, cwd=temporary).returncode


if __name__ == "__main__":
    sys.exit(main())
