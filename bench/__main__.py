"""The bench, at this revision and, side by side, at another.

python -m bench [options of pytest bench/]
python -m bench --base REV [--turns N] [options of pytest bench/]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from .race.rows import ROOT


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", metavar="REV", help="a git revision to run at as well, in a worktree of its own")
    parser.add_argument(
        "--turns", type=int, default=2, metavar="N", help="runs at each revision (default: %(default)s)"
    )
    given, options = parser.parse_known_args(argv)
    if given.base is None:
        return subprocess.run([sys.executable, "-m", "pytest", "bench/", *options], cwd=ROOT, check=False).returncode
    from .race.base import beside

    for line in beside(given.base, given.turns, options):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
