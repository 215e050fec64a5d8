"""What is installed is what is in the tree, with a compiler or without one; and importing it stays light."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.cpp import is_one_instruction_set, together
from tests.support.paths import ROOT

ABOUT = ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "constraints.txt", "Makefile", *ABOUT)
FOLDERS = ("adgan_fast", "kernels", "csrc")
BUILT = shutil.ignore_patterns("__pycache__", "*.so", "*.unbuilt.txt")

# One call of the operator, wherever the package comes from; prints that place and what load_extension() said.
USE_THE_OPERATOR = """
import torch
from adgan_fast import ops
reason = ops.load_extension()
p, m, v, g = (torch.ones(2, 3) for _ in range(4))
ops.adam_step_([p], [m], [v], [g], [], [0.1], 0.5, 0.999, 1e-8, 1, False)
torch.testing.assert_close(p, torch.full((2, 3), 0.9))
import adgan_fast.kernels
print(ops.__file__, adgan_fast.kernels.__file__, reason, sep="\\n")
"""


def run(command, cwd, check=True, input=None, **environment):
    """`command` with only those ADGAN and CXX variables that are given; the output is shown if it fails."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("ADGAN_") and k not in ("CXX", "CC")}
    done = subprocess.run(command, cwd=cwd, env={**env, **environment}, input=input, text=True, capture_output=True)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def use(package_root, cwd):
    """The three lines of USE_THE_OPERATOR, with the package in `package_root` before any other."""
    done = run([sys.executable, "-c", USE_THE_OPERATOR], cwd, PYTHONPATH=str(package_root))
    ops_file, kernels_file, reason = done.stdout.strip().splitlines()
    assert Path(ops_file).parents[1] == Path(kernels_file).parents[1] == package_root / "adgan_fast"
    return reason


def wheel(tree, out, flag, **environment):
    command = ["-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", str(out), "."]
    run([sys.executable, *command], tree, ADGAN_FAST_BUILD_EXT=flag, **environment)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture
def tree(tmp_path):
    """A copy of the source tree without build products."""
    return copied(tmp_path / "tree")


def copied(copy):
    copy.mkdir(parents=True)
    for name in FILES:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=BUILT)
    return copy


def with_one_source(copy, text):
    """A copy of the source tree in which this is all of the C++: nothing else to compile, so seconds less."""
    copied(copy)
    for source in (copy / "csrc").rglob("*.cpp"):
        source.unlink()
    (copy / "csrc/only.cpp").write_text(text)
    return copy


# Runs of setup.py, each in a process of its own that has torch already: to import it takes seconds.
RUN_SETUP = """
import json, os, runpy, sys
import setuptools, torch.utils.cpp_extension
for folder, arguments, environment, output in json.load(sys.stdin):
    if os.fork() == 0:
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT), 1)
        os.dup2(1, 2)
        os.chdir(folder)
        os.environ.update(environment)
        sys.argv[:], sys.path[0] = ["setup.py", *arguments], folder
        runpy.run_path("setup.py", run_name="__main__")
        sys.exit()
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def run_setups(tmp_path, runs):
    """Status and output of `setup.py *arguments` for each (tree, arguments, environment): see `run`."""
    outputs = [tmp_path / f"output{i}" for i in range(len(runs))]
    given = [
        (str(tree), list(map(str, arguments)), environment, str(output))
        for (tree, arguments, environment), output in zip(runs, outputs, strict=True)
    ]
    done = run([sys.executable, "-u", "-c", RUN_SETUP], tmp_path, input=json.dumps(given))
    said = [out.read_text(encoding="utf-8", errors="surrogateescape") for out in outputs]
    return list(zip(map(int, done.stdout.split()), said, strict=True))


def modules(tree):
    """Where every module of the tree is installed."""
    own = {p.relative_to(tree).as_posix() for p in (tree / "adgan_fast").rglob("*.py")}
    kernels = {"adgan_fast/kernels/" + p.relative_to(tree / "kernels").as_posix() for p in tree.glob("kernels/**/*.py")}
    return own | kernels


def data(tree):
    """Files that are not modules and are installed too."""
    tuned = {"adgan_fast/" + p.relative_to(tree).as_posix() for p in tree.glob("kernels/configs/*.json")}
    page = {p.relative_to(tree).as_posix() for p in tree.glob("adgan_fast/report/templates/*")}
    assert len(page) == 3
    return {"adgan_fast/py.typed"} | tuned | page


def test_wheel_holds_the_tree_and_nothing_else(tree, tmp_path):
    (tree / "kernels/configs").mkdir(exist_ok=True)
    (tree / "kernels/configs/some-gpu.json").write_text("{}\n")  # tuned tiles, as bench.gpu writes them
    path = wheel(tree, tmp_path / "out", flag="0")
    assert path.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert names == modules(tree) | data(tree)
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
        (license,) = (archive.read(name) for name in archive.namelist() if name.endswith("/licenses/LICENSE"))
    assert "Requires-Dist: torch>=2.11" in metadata
    assert "License-Expression: MIT" in metadata
    assert license == (tree / "LICENSE").read_bytes()
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "site")
    assert "was not built" in use(tmp_path / "site", tmp_path)


def test_wheel_with_the_extension_serves_every_python_and_names_no_folder(tree, tmp_path):
    # At a tenth of the time: without optimisation, since the shipped flags are those of `make`, and in few pieces.
    sources = [source for source in (tree / "csrc").rglob("*.cpp") if not is_one_instruction_set(source)]
    together([source.rename(source.with_suffix(".inl")) for source in sources], tree / "csrc")
    compiler = tmp_path / "quick"
    compiler.write_text('#!/bin/sh\nexec c++ "$@" -O0\n')
    compiler.chmod(0o755)
    path = wheel(tree, tmp_path / "out", flag="1", CXX=str(compiler))
    assert "-cp310-abi3-" in path.name
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        archive.extractall(tmp_path / "site")
    (library,) = names - modules(tree) - data(tree)
    assert library == "adgan_fast/_C.abi3.so"
    assert str(tree).encode() not in (tmp_path / "site" / library).read_bytes()
    assert use(tmp_path / "site", tmp_path) == "None"


def test_sdist_holds_what_a_build_needs(tree, tmp_path):
    (tree / "kernels/configs").mkdir(exist_ok=True)
    (tree / "kernels/configs/some-gpu.json").write_text("{}\n")
    command = [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(tmp_path / "out")]
    run(command, tree, ADGAN_FAST_BUILD_EXT="0")
    (path,) = (tmp_path / "out").glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {p.relative_to(tree).as_posix() for folder in FOLDERS for p in (tree / folder).rglob("*") if p.is_file()}
    assert needed <= names
    assert {"pyproject.toml", "setup.py", "constraints.txt", "adgan_fast/py.typed", *ABOUT} <= names


def test_without_a_compiler_the_package_works_and_says_why(tree, tmp_path):
    site = tmp_path / "site"
    done = run([sys.executable, "setup.py", "build", "--build-lib", str(site)], tree, CXX="/nonexistent/c++")
    assert "going on without the C++ extension: no C++ compiler" in done.stderr
    assert not list(site.rglob("*.so"))
    reason = use(site, tmp_path)
    assert "no C++ compiler" in reason
    assert "ADGAN_FAST_BUILD_EXT=1" in reason


def test_without_a_compiler_a_strict_build_fails(tree, tmp_path):
    command = [sys.executable, "setup.py", "build", "--build-lib", str(tmp_path / "site")]
    done = run(command, tree, check=False, CXX="/nonexistent/c++", ADGAN_FAST_BUILD_EXT="1")
    assert done.returncode != 0
    assert "'/nonexistent/c++' was not found" in done.stderr


BAD_VARIABLES = {
    "nothing": ("CXX", "", "the variable CXX is no command: ''; unset it"),
    "blank": ("CXX", " ", "the variable CXX is no command: ' '; unset it"),
    "a quote not closed": ("CXX", "c++ 'x", 'the variable CXX is no command: "c++ \'x"; unset it'),
    "no program": ("CXX", str(ROOT / "README.md"), "README.md' was not found, or cannot be run"),
    "a folder": ("CXX", str(ROOT), "was not found, or cannot be run"),
    "no text": ("CXX", os.fsdecode(b"\xff++"), "'\\udcff++' was not found"),
    "no compiler": ("CXX", shutil.which("true"), "made no file"),
    **{
        name: (name, "'-x", f'the compilation failed ({name}="\'-x": No closing quotation)')
        for name in ("CC", "CFLAGS", "LDSHARED")
    },
}


def test_a_variable_of_the_environment_that_means_nothing_is_named(tmp_path):
    cases = [*((what, "") for what in BAD_VARIABLES), ("nothing", "1"), ("no compiler", "1"), ("CFLAGS", "1")]
    runs = []
    for i, (what, flag) in enumerate(cases):
        name, value, _ = BAD_VARIABLES[what]
        tree = with_one_source(tmp_path / str(i) / "tree", "int ok;\n")
        command = ["build_ext", "--build-lib", tmp_path / str(i) / "site"]
        runs.append((tree, command, {"ADGAN_FAST_BUILD_EXT": flag, name: value}))
    for i, ((what, flag), (status, said)) in enumerate(zip(cases, run_setups(tmp_path, runs), strict=True)):
        message = BAD_VARIABLES[what][2]
        assert (status != 0) == (flag == "1"), (what, said)
        line = said.strip().splitlines()[-1]
        assert message in line, what
        strict = "adgan_fast: the C++ extension was not built: "
        assert line.startswith(strict if flag else "adgan_fast: going on without"), what
        assert flag == "1" or message in (tmp_path / str(i) / "site/adgan_fast/_C.unbuilt.txt").read_text(), what


def test_a_failed_compilation_stops_a_strict_build_only(tmp_path):
    """Elsewhere, and in the tree, without ninja."""
    without_ninja = {"PATH": hidden_ninja(tmp_path)}
    cases = [(flag, in_tree) for flag in ("", "1") for in_tree in (False, True)]
    runs, packages = [], []
    for i, (flag, in_tree) in enumerate(cases):
        tree = with_one_source(tmp_path / str(i) / "tree", "this is not C++\n")
        site = tmp_path / str(i) / "site"
        packages.append((tree if in_tree else site) / "adgan_fast")
        if in_tree:
            (packages[i] / "_C.abi3.so").write_text("of an earlier build")
        command = ["build_ext", *(["--inplace"] if in_tree else ["--build-lib", site])]
        runs.append((tree, command, {"ADGAN_FAST_BUILD_EXT": flag, **(without_ninja if in_tree else {})}))
    for (flag, in_tree), package, (status, said) in zip(cases, packages, run_setups(tmp_path, runs), strict=True):
        assert (status != 0) == (flag == "1"), (flag, in_tree, said)
        assert "the compilation failed" in said, (flag, in_tree)
        assert (package / "_C.unbuilt.txt").exists() == (flag == ""), (flag, in_tree)
        assert flag == "1" or not (package / "_C.abi3.so").exists(), (flag, in_tree)


def test_a_warning_of_the_compiler_stops_the_build_of_make_alone(tmp_path):
    """A user's build goes on, be it a strict one: a newer compiler may warn of what none warned of before."""
    runs = []
    for i, flags in enumerate(("", "-Werror")):
        tree = with_one_source(tmp_path / str(i) / "tree", "static int unused;\n")
        command = ["build_ext", "--build-lib", tmp_path / str(i) / "site"]
        runs.append((tree, command, {"ADGAN_FAST_BUILD_EXT": "1", "CFLAGS": flags}))
    (users, users_said), (make, make_said) = run_setups(tmp_path, runs)
    assert users == 0, users_said
    assert make != 0, make_said
    assert "-Werror" in run(["make", "-n", ".venv/.installed-strict"], tree).stdout


def hidden_ninja(tmp_path):
    """A PATH on which the compiler is, and ninja is not."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("c++", "g++", "gcc", "cc", "as", "ld"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return str(folder)


@pytest.fixture
def no_torch(tmp_path):
    """A folder that, in PYTHONPATH, hides the installed torch as build isolation does."""
    (tmp_path / "hidden/torch").mkdir(parents=True)
    (tmp_path / "hidden/torch/__init__.py").write_text("raise ImportError\n")
    return str(tmp_path / "hidden")


def test_an_isolated_build_without_torch_goes_on_and_says_why(tree, tmp_path, no_torch):
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path / "site")]
    done = run(command, tree, PYTHONPATH=no_torch)
    assert "--no-build-isolation" in done.stderr
    assert "torch was not importable" in (tmp_path / "site/adgan_fast/_C.unbuilt.txt").read_text()


def test_a_flag_that_means_nothing_is_refused(tree, no_torch):
    command = [sys.executable, "setup.py", "--version"]
    done = run(command, tree, check=False, PYTHONPATH=no_torch, ADGAN_FAST_BUILD_EXT="yes")
    assert done.returncode != 0
    assert "ADGAN_FAST_BUILD_EXT must be unset, 0 or 1, got 'yes'" in done.stderr


NOT_HIDDEN = """
import pkgutil, adgan_fast, adgan_fast.data
for package in (adgan_fast, adgan_fast.data):
    found = {module.name for module in pkgutil.iter_modules(package.__path__)}
    print(sorted(found & set(package.__all__)), len(found))
import adgan_fast.engine.native.engine, adgan_fast.engine.triton.engine as triton
print(callable(adgan_fast.engines), triton.Triton.__module__)
"""


def test_no_public_name_is_also_the_name_of_a_module(tmp_path):
    """Else whichever is bound last hides the other: `import adgan_fast.<name>.<module> as m` would fail."""
    lines = run([sys.executable, "-c", NOT_HIDDEN], tmp_path).stdout.splitlines()
    assert [line.split("]")[0] + "]" for line in lines[:2]] == ["[]", "[]"], lines
    assert all(int(line.split()[-1]) >= 9 for line in lines[:2])  # modules were found at all
    assert lines[2] == "True adgan_fast.engine.triton.engine"


IMPORT_ALONE = """
import sys, torch
before = set(sys.modules)
import adgan_fast, adgan_fast.ops
heavy = ("triton", "jax", "matplotlib", "sklearn", "adgan_fast._C", "adgan_fast.kernels")
print([name for name in set(sys.modules) - before if name.startswith(heavy)])
print([path for path in torch.ops.loaded_libraries if "_C." in path])
print(torch.cuda.is_initialized())
print(sorted(name for name in set(sys.modules) - before if name.split(".")[0] == "kernels"))
"""


def test_importing_the_package_loads_no_triton_no_extension_and_no_cuda(tmp_path):
    assert run([sys.executable, "-c", IMPORT_ALONE], tmp_path).stdout.split("\n") == ["[]", "[]", "False", "[]", ""]
