"""Adds the C++ extension to what pyproject.toml declares.

The environment variable ADGAN_FAST_BUILD_EXT says what happens where the extension cannot be built:

* unset: best effort. The package is installed without it and works (more slowly); the reason is printed and kept in
  the package, where `adgan_fast.ops.load_extension()` finds it;
* 1: strict. The installation fails;
* 0: skip. The extension is not tried.
"""

import os
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

try:
    from torch.utils.cpp_extension import BuildExtension, CppExtension, include_paths
except ImportError:  # build isolation hides the installed torch: see [build-system] in pyproject.toml
    BuildExtension, CppExtension, include_paths = build_ext, None, list

ROOT = Path(__file__).resolve().parent
FLAG = os.environ.get("ADGAN_FAST_BUILD_EXT", "")
if FLAG not in ("", "0", "1"):
    sys.exit(f"ADGAN_FAST_BUILD_EXT must be unset, 0 or 1, got {FLAG!r}")
STRICT = FLAG == "1"


def unbuildable() -> str:
    """Why the extension cannot even be tried here, or an empty string."""
    if sys.platform == "win32":
        return "it is built with GCC or Clang only"
    if CppExtension is None:
        return "torch was not importable during the build (install torch first and build with --no-build-isolation)"
    command = os.environ.get("CXX", "c++")
    try:
        compiler = shlex.split(command)[0]
    except (ValueError, IndexError):  # a quote that is not closed; nothing at all
        return f"the variable CXX is no command: {command!r}; unset it, or let it name a C++ compiler"
    if shutil.which(compiler) is None:
        return f"no C++ compiler ({compiler!r} was not found, or cannot be run; the variable CXX names another)"
    return ""


def unreadable() -> str:
    """Which variables that a build splits into words cannot be split, for an error of setuptools that names none."""
    names = ("CC", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "LDSHARED", "LDCXXSHARED", "AR", "ARFLAGS")
    found = []
    for name in names:
        try:
            shlex.split(os.environ.get(name, ""))
        except ValueError as error:
            found.append(f"{name}={os.environ[name]!r}: {error}")
    return "; ".join(found)


class BuildNative(BuildExtension):
    """Builds the extension, or leaves a note in its place that says why it is not there."""

    def run(self):
        in_tree = self.inplace or self.editable_mode  # asked before run(), which changes it on the way
        reason = unbuildable()
        if not reason:
            try:
                super().run()
            except (BaseError, CCompilerError, RuntimeError, OSError, subprocess.CalledProcessError) as error:
                reason = f"the compilation failed ({error})"
            except ValueError as error:
                reason = f"the compilation failed ({unreadable() or error})"
        if not reason and not all(Path(self.get_ext_fullpath(each.name)).exists() for each in self.extensions):
            reason = f"the compilation failed (the C++ compiler, CXX={os.environ.get('CXX', 'c++')!r}, made no file)"
        if reason and STRICT:
            sys.exit(f"adgan_fast: the C++ extension was not built: {reason}. ADGAN_FAST_BUILD_EXT=1 asked for it.")
        package = ROOT / "adgan_fast" if in_tree else Path(self.build_lib) / "adgan_fast"
        note = package / "_C.unbuilt.txt"
        note.unlink(missing_ok=True)
        if reason:
            print(f"adgan_fast: going on without the C++ extension: {reason}.", file=sys.stderr)
            for old in package.glob("_C.*so"):
                old.unlink()  # of an earlier build: it may not fit the rest of the package
            package.mkdir(parents=True, exist_ok=True)
            note.write_text(reason + "\n", encoding="utf-8", errors="backslashreplace")  # a name may be no text


def extension():
    flags = runpy.run_path(str(ROOT / "csrc" / "flags.py"))
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.cpp"))
    make = CppExtension or Extension
    return make(
        "adgan_fast._C",
        sources,
        depends=sorted(
            str(path.relative_to(ROOT)) for suffix in ("h", "inl") for path in (ROOT / "csrc").rglob(f"*.{suffix}")
        ),
        include_dirs=[str(ROOT / "csrc")],
        extra_compile_args=[
            *flags["SHIPPED"],
            *flags["WARNINGS"],
            *flags["TORCH"],
            *flags["system_includes"](include_paths()),
            "-g0",
            "-fvisibility=hidden",
            f"-fmacro-prefix-map={ROOT}/=",  # error messages name csrc/..., not the folder it was built in
        ],
        py_limited_api=True,
        optional=False,  # BuildNative says what a failure means; setuptools would pass over it in silence
    )


setup(
    ext_modules=[] if FLAG == "0" else [extension()],
    cmdclass={"build_ext": BuildNative},
    # One wheel for every CPython from 3.10 on; a wheel without the extension is for any Python and machine.
    options={} if FLAG == "0" else {"bdist_wheel": {"py_limited_api": "cp310"}},
)
