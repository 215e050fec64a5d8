"""Random generators and settings, every engine held to the float64 reference: ``python -m tests.fuzz SEED COUNT``.

A case follows from one integer; the command that shows it again is printed with each failure, and the generator as
source. See generators.py for what generators are made of.
"""

from __future__ import annotations

import argparse
import logging
import sys

import torch

from tests.fuzz.check import ENGINES, Report, check


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--engine", action="append")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("adgan_fast").setLevel(logging.ERROR)
    report = Report()
    for seed in range(given.seed, given.seed + given.count):
        check(seed, report, tuple(given.engine or ENGINES), given.verbose)
        if report.cases % 100 == 0:
            print(f"... {report.cases} cases, {len(report.faults)} faults", flush=True)
    print(report)
    return int(bool(report.faults))


if __name__ == "__main__":
    sys.exit(main())
