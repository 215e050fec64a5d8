"""Parts "peer": the engine and one peer in turn, round after round, the peer with several numbers of pairs at once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import torch

from ..peers import PEERS
from ..race import report
from ..race.cases import Case
from ..race.contenders import Contender
from ..race.race import Entry, race
from .engine import ENGINE, GATED, Setting, build, title
from .part import Part


@dataclasses.dataclass(frozen=True)
class EngineContender(Contender):
    """The engine, whose speed shows once its graphs are replayed."""

    def least_pairs(self, case: Case) -> int:
        return 256 * len(case.starts)


def against(part: Part, name: str, pairs: Sequence[int], precision: str) -> None:
    """Rows as of `pytest bench/`, of the engine and the peer, for each number of pairs (none given: the peer's own).

    With precision "float32" nobody may use TF32; with "tf32" everybody may.
    """
    if name.startswith("jax"):
        os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest" if precision == "float32" else "default"
    reduced = precision != "float32"
    torch.backends.cudnn.allow_tf32 = reduced
    torch.backends.cuda.matmul.allow_tf32 = reduced
    peer = PEERS[name]
    variants = [dataclasses.replace(peer, name=f"{name}@{n}", pairs={"cuda": n, "cpu": n}) for n in pairs] or [peer]
    if part.smoke:
        variants = [dataclasses.replace(peer, pairs={"cpu": 2})]
    elif part.quick:
        variants = variants[:1]
    case = build(part, Setting("dcgan32x1", precision), 1024)
    for variant in variants:
        if part.left() < (0 if part.smoke else 8):
            part.fail(title(case), variant.name, "no time left")
            continue
        among = [EngineContender(ENGINE), Contender(variant.name, variant)]
        rounds = 1 if part.smoke else 3
        entries = race(
            case, among, rounds=rounds, seconds=0.01 if part.smoke else 1.5, with_memory=False, gate_starts=GATED,
            say=part.say,
        )  # fmt: skip
        _keep(part, title(case), variant.name, entries)


def _keep(part: Part, case: str, peer: str, entries: dict[str, Entry]) -> None:
    for name, entry in entries.items():
        if not entry.valid:
            continue
        kind, seconds = entry.contender.kind, entry.seconds
        spread = {"low": min(seconds), "high": max(seconds), "rounds": len(seconds), "beside": peer}
        part.add(case, name, "seconds_per_image", entry.median, "s", kind, **spread)
        assert entry.gate is not None
        part.add(case, name, "gate_rms", entry.gate.rms, "relative", kind, beside=peer)
    if all(entry.valid for entry in entries.values()):
        ours, theirs = entries[ENGINE].seconds, entries[peer].seconds
        ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
        part.add(case, ENGINE, f"ratio_to_{peer}", ratios[len(ratios) // 2], "times faster", low=ratios[0])
    for line in report.missing(entries):
        part.fail(case, line.split(":")[0], line)
