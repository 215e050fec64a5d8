"""The other side of interpreted.py: runs the tests named on stdin; each report goes to stdout as one JSON line."""

from __future__ import annotations

import json
import os
import sys

import pytest


class _Reporter:
    def __init__(self) -> None:
        # Reports alone go to the parent; whatever else is printed joins stderr.
        self.stream = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def pytest_configure(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        print(json.dumps(data, default=str), file=self.stream, flush=True)


if __name__ == "__main__":
    order = json.load(sys.stdin)
    # The parent's cache of last failures is its own.
    sys.exit(pytest.main([*order["arguments"], "-p", "no:cacheprovider", *order["nodeids"]], plugins=[_Reporter()]))
