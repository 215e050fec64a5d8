"""Tests of Triton kernels run in two kinds of process, and plain ``pytest`` runs both.

Triton decides at its import whether kernels are compiled or interpreted. Tests that take the fixture ``device`` run
once for each of its values: ``"cpu"``, under the interpreter, and, where there is a GPU, ``"cuda"``, compiled. All
other tests of the folder kernels/ need the compiler too. Tests whose kind is not this process's run in a child process
that is of their kind, and their reports are handed on as if they had run here. Other tests run in either. Under
pytest-xdist each worker has a child of its own, which runs what that worker is given.

conftest.py makes these hooks those of the whole suite.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from adgan_fast.engine.triton.engine import interpreter_fault

_KERNELS = Path(__file__).parents[1] / "kernels"
_INTERPRETING = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where kernels take their tensors from: the CPU under the interpreter, and the GPU if there is one."""
    if request.param == "cpu" and importlib.util.find_spec("triton") is not None and (fault := interpreter_fault()):
        pytest.skip(fault)
    return torch.device(request.param)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"], indirect=True)


def _is_elsewhere(item: pytest.Item) -> bool:
    """Whether a test is of the other kind than this process."""
    callspec = getattr(item, "callspec", None)
    device = None if callspec is None else callspec.params.get("device")
    if device == "cpu":
        return not _INTERPRETING
    return _INTERPRETING and (device == "cuda" or _KERNELS in item.path.parents)


class _Child:
    """A pytest run in a process of the other kind: it collects ``items``, and runs those that it is asked for."""

    def __init__(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        self.config = session.config
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the child)
        order = {"nodeids": [item.nodeid for item in items], "arguments": ["--rootdir", str(session.config.rootpath)]}
        order["arguments"] += [a for a in session.config.invocation_params.args if str(a).startswith("--hypothesis-")]
        if session.config.inipath is not None:
            order["arguments"] += ["-c", str(session.config.inipath)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.interpreted_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=session.config.rootpath,
            env={**os.environ, "TRITON_INTERPRET": "0" if _INTERPRETING else "1"},
        )
        assert self.process.stdin is not None
        self._say(order)

    def _say(self, what: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a child that died at once says why in its log
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()

    def reports(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[pytest.TestReport]:
        """Run `item`; its fixtures are kept as far as `nextitem` needs them, if that is of the child's kind too."""
        follows = nextitem is not None and _is_elsewhere(nextitem)
        self._say([item.nodeid, nextitem.nodeid if nextitem is not None and follows else None])
        assert self.process.stdout is not None
        for line in self.process.stdout:
            data: dict[str, Any] = json.loads(line)
            report = self.config.hook.pytest_report_from_serializable(config=self.config, data=data)
            if report.nodeid == item.nodeid:
                yield report
                if report.when == "teardown":
                    return
        self.process.wait()
        self.log.seek(0)
        yield pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={},
            outcome="failed",
            longrepr=f"the child process ended ({self.process.returncode}) before this test did:\n"
            + self.log.read().decode(errors="replace")[-4000:],
            when="call",
        )

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.log.close()


_CHILD_KEY = pytest.StashKey[_Child]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if not _is_elsewhere(item):
        return None
    session = item.session
    if _CHILD_KEY not in session.stash:
        elsewhere = [i for i in session.items if _is_elsewhere(i)]
        session.stash[_CHILD_KEY] = _Child(session, elsewhere)
        session.config.add_cleanup(session.stash[_CHILD_KEY].close)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in session.stash[_CHILD_KEY].reports(item, nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    session._setupstate.teardown_exact(nextitem)  # what an item of the same file that ran here has left for this one
    return True


def patch_the_language_once() -> None:
    """Under the interpreter, a kernel's calls of other functions leave Triton's language as the kernel's call made it.

    Triton puts the same functions in the place of its language's again at every call, which is a quarter of its time.
    """
    if not _INTERPRETING or importlib.util.find_spec("triton") is None:
        return
    interpreter, language = map(importlib.import_module, ("triton.runtime.interpreter", "triton.language"))
    if not hasattr(interpreter, "_patch_lang") or not hasattr(interpreter, "_LangPatchScope"):
        return  # another version of Triton
    patch, active = interpreter._patch_lang, []

    def patch_what_is_new(fn: Any) -> Any:
        wanted = [each for each in fn.__globals__.values() if each is language or each is language.core]
        if wanted and all(any(each is known for known in active) for each in wanted):
            return interpreter._LangPatchScope()  # of no changes
        scope = patch(fn)
        restore, before = scope.restore, len(active)
        active.extend(wanted)

        def restored() -> None:
            restore()
            del active[before:]

        scope.restore = restored
        return scope

    interpreter._patch_lang = patch_what_is_new
