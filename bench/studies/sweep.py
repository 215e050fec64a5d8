"""How many pairs at a time suit a peer: ``python -m bench.studies.sweep vmap 1 2 4 8 16 [--device cuda]``.

Seconds for an image of 64 starts in the paper's setting, least of three rounds, the settings in turn. What the peers'
files say of their best setting was found so.
"""

from __future__ import annotations

import argparse

from adgan_fast.config import SearchConfig

from ..peers import PEERS
from ..race import cases
from ..race.race import Load, timed_call


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.sweep", description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("pairs", nargs="+", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--case", choices=sorted(cases.SHAPES), default="dcgan32x1")
    given = parser.parse_args()
    case = cases.build(given.case, SearchConfig(), images=-(-max(given.pairs) // 64), device=given.device)
    peer = PEERS[given.peer]
    if reason := peer.why_not(case.gen, case.config, case.starts):
        raise SystemExit(f"{peer.name}: {reason}")
    runs = {pairs: peer.searcher(case.gen, case.config, pairs) for pairs in given.pairs}
    loads = {pairs: Load(1, max(8, pairs)) if pairs <= 64 else Load(-(-pairs // 64), 64) for pairs in given.pairs}
    least = dict.fromkeys(given.pairs, float("inf"))
    for number in range(4):
        for pairs, run in runs.items():
            took = timed_call(case, run, loads[pairs])[0] / loads[pairs].pairs * 64
            if number:  # after the warm-up
                least[pairs] = min(least[pairs], took)
    for pairs, seconds in least.items():
        print(f"{peer.name}, {pairs} pairs: {seconds:.3f} s/image")


if __name__ == "__main__":
    main()
