"""Fixtures and hooks of the whole suite. What tests share beside them is in support/."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from tests.support.interpreted import device, patch_the_language_once, pytest_generate_tests, pytest_runtest_protocol

__all__ = ["device", "pytest_generate_tests", "pytest_runtest_protocol"]  # fixture and hooks of the whole suite

# The same examples on every run, and a failing one told as it is found: to shrink it would take minutes.
# `pytest --hypothesis-profile=explore` looks for new ones, and shrinks them.
settings.register_profile(
    "fixed",
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "explore", settings.get_profile("fixed"), derandomize=False, phases=tuple(Phase), print_blob=True
)
settings.load_profile("fixed")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Of `pytest -n auto`: the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pytest_configure(config: pytest.Config) -> None:
    if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
        # Else each worker would have as many threads as there are cores. No bit of a result depends on it.
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    patch_the_language_once()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread: what is this small is fastest so. The number is restored."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def threads() -> Iterator[None]:
    """For tests that set the number of threads: it is restored."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def sigint_heard() -> Iterator[None]:
    """The signal is heard even where this process was started with it ignored, as a shell does for its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
