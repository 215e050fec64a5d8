"""The other side of interpreted.py: collects the tests of stdin's first line, and runs those that it is asked for.

Each further line names a test and the one that follows, or null. Each report goes to stdout as one JSON line.
"""

from __future__ import annotations

import json
import os
import sys

import pytest


class _Runner:
    def __init__(self) -> None:
        # pytest and tests have other streams: reports alone go to the parent, and what else is printed to stderr.
        self.orders, self.found = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def pytest_configure(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        for line in self.orders:
            wanted, following = json.loads(line)
            item, nextitem = items[wanted], items.get(following)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        print(json.dumps(data, default=str), file=self.found, flush=True)


if __name__ == "__main__":
    runner = _Runner()
    order = json.loads(runner.orders.readline())
    # The parent's cache of last failures is its own.
    sys.exit(pytest.main([*order["arguments"], "-p", "no:cacheprovider", *order["nodeids"]], plugins=[runner]))
