"""A case by every engine, held to the float64 reference. docs/numerics.md says what was found."""

from __future__ import annotations

import dataclasses
import unittest.mock
from collections import Counter
from collections.abc import Iterator

import torch

import adgan_fast
from adgan_fast import SearchResult, scorer, testing
from tests.fuzz.cases import Case, case_of, reason_of, search
from tests.support.captured import Once

ENGINES = ("native", "grouped", "eager")
SET_ASIDE = 10.0


NEIGHBOURS = 4
CLOSE = 1e-2


@dataclasses.dataclass
class Report:
    """What was seen of some cases: `faults` by what they break, and what is counted."""

    cases: int = 0
    searches: Counter[str] = dataclasses.field(default_factory=Counter)
    refusals: Counter[str] = dataclasses.field(default_factory=Counter)
    redrawn: Counter[str] = dataclasses.field(default_factory=Counter)
    set_aside: list[int] = dataclasses.field(default_factory=list)
    amplified: list[str] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)

    def refused(self, engine: str) -> int:
        return sum(count for why, count in self.refusals.items() if why.startswith(f"{engine}: "))

    def __str__(self) -> str:
        lines = [f"{self.cases} cases; {sum(self.redrawn.values())} generators drawn again"]
        for engine, count in self.searches.items():
            refused = self.refused(engine)
            lines.append(f"{engine}: {count} tried, {refused} refused ({100 * refused / count:.1f} %)")
        lines += [f"  refused {n:5d}  {why}" for why, n in self.refusals.most_common()]
        lines += [f"  redrawn {n:5d}  {why}" for why, n in self.redrawn.most_common()]
        lines.append(f"set aside: {len(self.set_aside)} ({100 * len(self.set_aside) / max(1, self.cases):.1f} %)")
        lines.append(f"beyond the rule, but within it by the plain loop on neighbouring inputs: {self.amplified}")
        return "\n".join([*lines, f"faults: {len(self.faults)}", *self.faults])


class Oracle:
    """The reference on a case, in float64, and the plain float32 loop, run where it is asked for."""

    def __init__(self, case: Case) -> None:
        self.case, self.exact = case, search(case, "reference", torch.float64)
        self._plain: SearchResult | None = None

    def plain(self) -> SearchResult:
        if self._plain is None:
            self._plain = search(self.case, "reference")
        return self._plain

    def says_nothing(self) -> bool:
        """Whether float32 does: the plain loop is far beyond the bound."""
        bound, seen = testing.FLOAT32 * SET_ASIDE, testing.errors(self.plain(), self.exact)
        return not (seen.rms <= bound.rms and seen.mean <= bound.mean and seen.score <= bound.score) or seen.flipped > 0

    def neighbours(self) -> Iterator[SearchResult]:
        """The plain loop on starts and weights that are off by a rounding."""
        for i in range(NEIGHBOURS):
            torch_random = torch.Generator().manual_seed(i)

            def moved(tensor: torch.Tensor, by: torch.Generator = torch_random) -> torch.Tensor:
                return tensor * (1 + 1e-7 * torch.randn(tensor.shape, generator=by))

            near = testing.working_copy(self.case.gen, None)
            with torch.no_grad():
                for weight in near.parameters():
                    weight.copy_(moved(weight))
            yield search(dataclasses.replace(self.case, gen=near, starts=moved(self.case.starts)), "reference")


def wrong_with(found: SearchResult, case: Case, oracle: Oracle) -> list[str]:
    """What breaks the rule of agreement, or is not as a result is to be."""
    exact, (n, n_seed) = oracle.exact, oracle.exact.losses.shape
    shapes = {
        "scores": (n,), "losses": (n, n_seed), "initial_losses": (n, n_seed),
        "latents": (n, n_seed, *case.latent_shape), "reconstructions": tuple(case.images.shape),
    }  # fmt: skip
    wrong = []
    for name, shape in shapes.items():
        tensor = getattr(found, name)
        if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
            wrong.append(f"{name} is {tuple(tensor.shape)} {tensor.dtype}")
    if wrong:
        return wrong
    if not torch.allclose(found.scores, found.losses.mean(1), rtol=1e-6, equal_nan=True):
        wrong.append("scores are not the means of losses")
    if not torch.allclose(found.initial_losses.double(), exact.initial_losses, rtol=1e-4, atol=1e-5):
        wrong.append(f"initial losses {found.initial_losses.tolist()}, not {exact.initial_losses.tolist()}")
    wrong += testing.violations(found, exact, plain=oracle.plain)
    return wrong + _far(found, case, oracle)


def _far(found: SearchResult, case: Case, oracle: Oracle) -> list[str]:
    """Latents, and reconstructions, that are not close: in rms, by more than 3 times what the plain loop's are off."""
    moved = float((oracle.exact.latents - case.starts).square().mean().sqrt())
    scales = {"latents": moved, "reconstructions": 0.1}
    wrong = []
    for name, scale in scales.items():
        want = getattr(oracle.exact, name)

        def off(result: SearchResult, name: str = name, want: torch.Tensor = want) -> float:
            return float((getattr(result, name).double() - want).square().mean().sqrt())

        allowed = CLOSE * scale + 1e-6 * (1 + float(want.abs().max()))
        seen = off(found)
        if not seen <= allowed and not seen <= testing.PLAIN * off(oracle.plain()):
            wrong.append(f"{name} are off by {seen:.1e} (rms), {max(allowed, testing.PLAIN * off(oracle.plain())):.0e}")
    return wrong


def _wrong_in_float64(case: Case, engine: str, oracle: Oracle) -> list[str]:
    """What an engine that can run in float64 does wrong there. Its own rounding may be amplified, too."""
    found, exact = search(case, engine, torch.float64), oracle.exact
    wrong = testing.violations(found, exact, "float64")
    if torch.allclose(found.losses, exact.losses, rtol=1e-10, atol=1e-12):
        return []  # d may be smaller than its rounding
    return [] if wrong and oracle.says_nothing() else wrong


def _excused(found: SearchResult, case: Case, oracle: Oracle) -> bool:
    """Whether the plain loop on some neighbouring input is off so far that it would allow this."""
    for near in oracle.neighbours():
        lucky, oracle._plain = oracle.plain(), near
        wrong = [w for w in wrong_with(found, case, oracle) if "another sign" not in w]
        oracle._plain = lucky
        if not wrong:
            return True
    return False


def check(seed: int, report: Report, engines: tuple[str, ...] = ENGINES, verbose: bool = False) -> None:
    """Try one case, and add to the report what was seen."""
    with unittest.mock.patch.object(scorer, "lower", Once()):
        _check(seed, report, engines, verbose)


def _check(seed: int, report: Report, engines: tuple[str, ...], verbose: bool) -> None:
    case = case_of(seed)
    report.cases += 1
    report.redrawn += case.redrawn
    if verbose:
        print(f"-- {seed}\n{case}", flush=True)
    oracle = Oracle(case)
    if not bool(oracle.exact.losses.isfinite().all()):
        report.set_aside.append(seed)
        return
    verify = seed % 8 == 0
    for engine in engines:
        report.searches[engine] += 1
        try:
            found = search(case, engine, verify=verify)
        except ValueError as error:
            reason = reason_of(error)
            if "cannot run" in str(error) and "disagrees" not in str(error):
                report.refusals[f"{engine}: {reason}"] += 1
                continue
            wrong = [f"ValueError: {error}"]
            found = None
        except Exception as error:
            wrong, found = [f"{type(error).__name__}: {error}"], None
        else:
            wrong = wrong_with(found, case, oracle)
        if not wrong and seed % 3 == 0 and engine != "native" and (exactly := _wrong_in_float64(case, engine, oracle)):
            wrong, found = [f"in float64: {what}" for what in exactly], None  # where rounding is no excuse
        if verbose and found is not None:
            print(f"{engine}: {testing.errors(found, oracle.exact)}", flush=True)
        if not wrong:
            continue
        what = f"{engine}: {'; '.join(wrong)}"
        if found is not None and oracle.says_nothing():
            if seed not in report.set_aside:
                report.set_aside.append(seed)
        elif found is not None and _excused(found, case, oracle):
            report.amplified.append(f"{seed} {what}")
        else:
            command = f"python -m tests.fuzz {seed} 1 --engine {engine} --verbose"
            report.faults.append(f"{command}\n{what}\n{case}\n")
            if verbose or len(report.faults) < 1000:
                print(report.faults[-1], flush=True)
    if verify:
        adgan_fast.verify._verdicts.clear()
