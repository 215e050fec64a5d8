"""csrc/core by itself, without PyTorch: small programs in C++ (the .cpp files beside this one), compiled and run."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adgan_fast.engine.native.encode import encode, unknown
from adgan_fast.generator.rules import lower
from tests.support.cpp import COMPILER, is_one_instruction_set, together
from tests.support.families import FAMILIES, dcgan
from tests.support.generators import Case

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
FLAGS = runpy.run_path(str(CSRC / "flags.py"))
CORE = sorted((CSRC / "core").rglob("*.cpp"))
KERNELS = [source for source in CORE if is_one_instruction_set(source)]
REST = [source for source in CORE if source not in KERNELS]
ADAM = [CSRC / "core/adam.cpp", CSRC / "core/cpu.cpp", CSRC / "core/kernels/kernels.cpp"]

pytestmark = pytest.mark.skipif(shutil.which(COMPILER[0]) is None, reason=f"there is no C++ compiler {COMPILER[0]!r}")


def command(flags: list[str]) -> list[str]:
    return [*COMPILER, *flags, f"-I{CSRC}", "-pthread"]


def objects_of(folder: Path, flags: list[str], sources: list[Path]) -> list[Path]:
    """Each compiled to a file in `folder`."""
    objects = [folder / f"{source.stem}.o" for source in sources]

    def compile_one(source: Path, made: Path) -> None:
        subprocess.run([*command(flags), "-c", str(source), "-o", str(made)], check=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, sources, objects))
    return objects


def compiled(
    folder: Path, flags: list[str], sources: list[Path], kernels: Sequence[Path] = (), made: Sequence[Path] = ()
) -> Path:
    """A program in `folder`: of `sources` in one piece, of `kernels`, and of what is `made` already."""
    objects = objects_of(folder, flags, [together(sources, folder), *kernels])
    subprocess.run([*command(flags), *map(str, [*objects, *made]), "-o", str(folder / "program")], check=True)
    return folder / "program"


@pytest.fixture(scope="session")
def shipped_kernels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The kernels as they are shipped, compiled once for all processes of this run."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of the run; the worker's is below it
    folder = folder / "shipped_kernels"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            objects_of(folder, FLAGS["SHIPPED"], KERNELS)
            (folder / "done").touch()
    return [folder / f"{source.stem}.o" for source in KERNELS]


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
def test_a_search_allocates_nothing(shipped_kernels, tmp_path):
    """Neither new nor malloc from a search's begin to its end: any generator, mode, loss and instruction set."""
    flags = ["-O0", *FLAGS["LANGUAGE"]]
    program = compiled(tmp_path, flags, [HERE / "allocations.cpp", *REST], made=shipped_kernels)
    given, count = as_text({**FAMILIES, "in whole vectors": dcgan(16, 3, 16, 16)})
    done = subprocess.run([program], input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) >= count * 3 * 4 * 3


def test_adam_has_the_same_bits_with_every_instruction_set(shipped_kernels, tmp_path):
    program = compiled(tmp_path, FLAGS["SHIPPED"], [HERE / "adam_sets.cpp", *ADAM], made=shipped_kernels)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def watched(tmp_path: Path, sources: list[Path], kernels: Sequence[Path] = (), given: str = "") -> str:
    """Compile, quickly, and run a program under the thread sanitizer, and see it end well; what it printed."""
    nothing = tmp_path / "nothing.cpp"
    nothing.write_text("int main() {}\n", encoding="utf-8")
    try:
        compiled(tmp_path, ["-O0", "-fsanitize=thread"], [nothing])
    except subprocess.CalledProcessError:
        pytest.skip("the compiler has no thread sanitizer")
    program = compiled(tmp_path, ["-O0", *FLAGS["LANGUAGE"], "-fsanitize=thread"], sources, kernels)
    done = subprocess.run([program], input=given, capture_output=True, text=True, timeout=300)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("the thread sanitizer does not run on this kernel")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_team_does_each_part_once(tmp_path):
    program = compiled(tmp_path, ["-O2", *FLAGS["LANGUAGE"]], [HERE / "team.cpp"])
    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_a_team_has_no_race(tmp_path):
    watched(tmp_path, [HERE / "team.cpp"])


def test_threads_that_share_an_image_have_no_race(tmp_path):
    given, count = as_text({**FAMILIES, "many channels": dcgan(32, 3, 20, 16)})
    said = watched(tmp_path, [HERE / "shared_image.cpp", *REST], KERNELS, given)
    assert said == f"{count} programs\n"


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
    kernels = (
        "map_forward",
        "map_backward",
        "rows_by_weights",
        "dense_dots",
        "outer_products",
        "rank1_forward",
        "rank1_backward",
        "rank1_update",
        "adam",
        "activate",
    )
    without = [name for name in kernels if not any(n for f, n in fused.items() if f.startswith(name))]
    assert not without, fused
