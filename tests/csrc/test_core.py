"""csrc/core by itself, without PyTorch: small programs in C++ (the .cpp files beside this one), compiled and run."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adgan_fast.engine.native.encode import encode, unknown
from adgan_fast.generator.rules import lower
from tests.support.families import FAMILIES, dcgan
from tests.support.generators import Case

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
FLAGS = runpy.run_path(str(CSRC / "flags.py"))
CORE = sorted((CSRC / "core").rglob("*.cpp"))
ADAM = [CSRC / "core/adam.cpp", CSRC / "core/cpu.cpp", *sorted((CSRC / "core/kernels").glob("*.cpp"))]
COMPILER = shlex.split(os.environ.get("CXX", "c++"))

pytestmark = pytest.mark.skipif(shutil.which(COMPILER[0]) is None, reason=f"there is no C++ compiler {COMPILER[0]!r}")


def compiled(folder: Path, flags: list[str], sources: list[Path]) -> Path:
    """A program in `folder`."""
    command = [*COMPILER, *flags, f"-I{CSRC}", "-pthread"]
    objects = [folder / f"{i}.o" for i in range(len(sources))]

    def compile_one(pair: tuple[Path, Path]) -> None:
        subprocess.run([*command, "-c", str(pair[0]), "-o", str(pair[1])], check=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, zip(sources, objects, strict=True)))
    subprocess.run([*command, *map(str, objects), "-o", str(folder / "program")], check=True)
    return folder / "program"


def compiler_for_aarch64() -> list[str] | None:
    if shutil.which("aarch64-linux-gnu-g++"):
        return ["aarch64-linux-gnu-g++"]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-linux-gnu"]
    return None


def as_text(cases: dict[str, Case]) -> tuple[str, int]:
    """Those of some generators that C++ takes, as allocations.cpp reads them; how many."""
    programs = {name: lower(case.module.eval(), case.latent_shape) for name, case in cases.items()}
    taken = {name: encode(program) for name, program in programs.items() if unknown(program) is None}
    rows = [[name, *(" ".join(map(str, [len(row), *row])) for row in encoded)] for name, encoded in taken.items()]
    return "\n".join(line for row in rows for line in row), len(taken)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is replaced in the way of glibc")
def test_a_search_allocates_nothing(tmp_path):
    """Neither new nor malloc from a search's begin to its end: any generator, mode, loss and instruction set."""
    program = compiled(tmp_path, ["-O0", *FLAGS["LANGUAGE"]], [HERE / "allocations.cpp", *CORE])
    given, count = as_text({**FAMILIES, "in whole vectors": dcgan(16, 3, 16, 16)})
    done = subprocess.run([program], input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) >= count * 3 * 4 * 3


def test_adam_has_the_same_bits_with_every_instruction_set(tmp_path):
    program = compiled(tmp_path, FLAGS["SHIPPED"], [HERE / "adam_sets.cpp", *ADAM])
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def watched(tmp_path: Path, sources: list[Path], given: str = "") -> None:
    """Compile, quickly, and run a program under the thread sanitizer, and see it end well."""
    try:
        program = compiled(tmp_path, ["-O0", *FLAGS["LANGUAGE"], "-fsanitize=thread"], sources)
    except subprocess.CalledProcessError:
        pytest.skip("the compiler has no thread sanitizer")
    done = subprocess.run([program], input=given, capture_output=True, text=True, timeout=300)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("the thread sanitizer does not run on this kernel")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_team_does_each_part_once(tmp_path):
    program = compiled(tmp_path, ["-O2", *FLAGS["LANGUAGE"]], [HERE / "team.cpp"])
    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_a_team_has_no_race(tmp_path):
    watched(tmp_path, [HERE / "team.cpp"])


def test_threads_that_share_an_image_have_no_race(tmp_path):
    given, _ = as_text({**FAMILIES, "many channels": dcgan(32, 3, 20, 16)})
    watched(tmp_path, [HERE / "shared_image.cpp", *CORE], given)


@pytest.mark.skipif(
    compiler_for_aarch64() is None,
    reason="there is no compiler for aarch64: neither aarch64-linux-gnu-g++ nor the Python package ziglang",
)
def test_the_baseline_kernels_are_vectors_on_aarch64(tmp_path):
    """Compiled, not run: every file of the core, and fused multiply-adds of four floats where the time goes."""
    compiler = [*(compiler_for_aarch64() or []), *FLAGS["SHIPPED"], "-fPIC", f"-I{CSRC}"]
    assembly = {}
    for source in CORE:
        out = tmp_path / f"{source.stem}.s"
        subprocess.run([*compiler, "-S", str(source), "-o", str(out)], check=True)
        assembly[source.stem] = out.read_text(errors="replace")
    fused: dict[str, int] = {}
    function = ""
    for line in assembly["kernels_baseline"].splitlines():
        if found := re.match(r"_ZN\w*baseline\w*?\d+([a-z]\w*?)E\w*:", line):
            function = found[1]
        fused[function] = fused.get(function, 0) + bool(re.search(r"\bfml[as]\s+v\d+\.4s", line))
    kernels = ("map_forward", "map_backward", "rank1_forward", "rank1_backward", "rank1_update", "adam", "activate")
    without = [name for name in kernels if not any(n for f, n in fused.items() if f.startswith(name))]
    assert not without, fused
