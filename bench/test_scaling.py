"""Time of each engine against starts, steps, images, width and threads, with a fitted exponent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import adgan_fast

from .race import rows, scaling
from .race.contenders import contenders
from .race.replay import CLOCK, replay
from .race.selection import parameters


@pytest.fixture(scope="session")
def growths(
    request: pytest.FixtureRequest, device: str, say: Callable[[str], None], results: Any
) -> Callable[[str], dict[str, scaling.Growth]]:
    """The growth of all engines with a variable, measured once, among those whose tests were not deselected."""
    names = {params["engine"] for item in request.session.items if "engine" in (params := parameters(item))}
    quick, known = request.config.getoption("--quick"), {}

    def show(variable: str, name: str, growth: scaling.Growth) -> None:
        base = ",".join(f"{key}{value}" for key, value in scaling.base(variable).items())
        times = ", ".join(f"{size}: {time:.3g}" for size, time in zip(growth.sizes, growth.seconds, strict=True))
        line = f"{name:<10} {variable:<7} exponent {growth.exponent:5.2f}   seconds at {times}"
        found = rows.row(
            f"{scaling.SHAPE}/{base}", name, "engine", f"exponent_of_{variable}", growth.exponent, "exponent", device,
            sizes=growth.sizes, seconds=growth.seconds,
        )  # fmt: skip
        results.add("scaling: seconds of a call ~ size ** exponent, the others held", [line], [found])

    def of(variable: str) -> dict[str, scaling.Growth]:
        if variable not in known:
            say(f"scaling with {variable}")
            among = [contender for name, contender in contenders().items() if name in names]
            known[variable] = scaling.measure(variable, among, device=device, rounds=2 if quick else 3, most_rounds=8)
            for name, growth in known[variable].items():
                if growth.gate.green:
                    show(variable, name, growth)
        return known[variable]

    return of


@pytest.mark.parametrize("variable", scaling.SIZES)
@pytest.mark.benchmark(timer=CLOCK)
def test_time_grows_no_faster_than_the_work(
    engine: str, variable: str, growths: Callable[[str], dict[str, scaling.Growth]], device: str, request: Any
) -> None:
    if len(scaling.SIZES[variable]) < 2 or (variable == "threads" and device != "cpu"):
        pytest.skip(f"nothing to vary: {variable} on {device} with {rows.cores()} processors")
    growth = growths(variable).get(engine)
    if growth is None:
        why_not = {info.name: info.why_not for info in adgan_fast.engines()}
        pytest.skip(f"{engine}: {why_not[engine]}")
    if not growth.gate.green:
        pytest.fail(f"{engine}: gate red, no speed: {growth.gate.failures}")
    benchmark = request.getfixturevalue("benchmark")
    benchmark.group = f"scaling with {variable}: the largest size, {growth.sizes[-1]}"
    benchmark.extra_info |= {"sizes": growth.sizes, "seconds": growth.seconds, "exponent": growth.exponent}
    replay(benchmark, growth.seconds[-1:])
    assert growth.exponent <= scaling.MOST[variable]
