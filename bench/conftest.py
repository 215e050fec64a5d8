"""Options of the bench, the races (one for each case, shared by its tests), and the tables at the end."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from adgan_fast.config import PRECISIONS, WEIGHTS, SearchConfig

from .race import cases, report
from .race.contenders import contenders
from .race.race import Entry, race
from .race.rows import Row, device_name, results_file, save
from .race.selection import chosen, parameters


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("adgan_fast bench")
    group.addoption("--engines", metavar="A,B", help="engines to race (default: all; none: no engine)")
    group.addoption("--peers", metavar="A,B", help="peers to race (default: all; none: no peer)")
    group.addoption(
        "--cases",
        metavar="A,B",
        default="dcgan32x1",
        help=f"of {', '.join([*cases.SHAPES, *cases.FAMILIES])} (default: %(default)s)",
    )
    group.addoption(
        "--weights", choices=WEIGHTS, default="per_seed", help="who owns a copy of the weights (default: %(default)s)"
    )
    group.addoption(
        "--precision", choices=PRECISIONS, default="float32", help="precision of the engines (default: %(default)s)"
    )
    group.addoption("--generator", metavar="FILE", help="a trained generator (safetensors) in place of the random one")
    group.addoption("--bench-device", metavar="DEVICE", default="cpu", help="torch device (default: %(default)s)")
    group.addoption("--threads", type=int, metavar="N", help="torch's threads (default: torch's own choice)")
    group.addoption("--rounds", type=int, metavar="N", help="rounds of the race (default: 4; quick: 3)")
    group.addoption("--seconds", type=float, metavar="S", help="length of one timed call (default: 1; quick: 0.3)")
    group.addoption(
        "--max-images", type=int, metavar="N", default=8, help="most images of one timed call (default: %(default)s)"
    )
    group.addoption("--no-memory", action="store_true", help="do not measure peak memory")
    group.addoption(
        "--quick", action="store_true", help="3 short rounds, no memory, no compiled_vmap (it compiles half a minute)"
    )
    group.addoption(
        "--save-rows", metavar="PATH", help="put the results into this file; 'auto': bench/results/<machine>.jsonl"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "shape" in metafunc.fixturenames:
        metafunc.parametrize("shape", metafunc.config.getoption("--cases").split(","), scope="session")
    if "contender" in metafunc.fixturenames:
        metafunc.parametrize("contender", chosen(metafunc.config))
    if "engine" in metafunc.fixturenames:  # the scaling tests
        everybody, named = contenders(), metafunc.config.getoption("--engines") is not None
        engines = [name for name in chosen(metafunc.config) if everybody[name].kind == "engine"]
        # The reference is a loop by construction, and slow: only if asked for by name.
        metafunc.parametrize("engine", [name for name in engines if named or name != "reference"])


@dataclasses.dataclass
class Results:
    """What the summary shows and ``--save-rows`` stores."""

    sections: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    rows: list[Row] = dataclasses.field(default_factory=list)

    def add(self, title: str, lines: list[str], found: list[Row]) -> None:
        """Lines under `title`, after those that are already there."""
        self.sections.setdefault(title, []).extend(lines)
        self.rows += found


_RESULTS = pytest.StashKey[Results]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RESULTS] = Results()


@pytest.fixture(scope="session")
def results(pytestconfig: pytest.Config) -> Results:
    return pytestconfig.stash[_RESULTS]


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> str:
    name = pytestconfig.getoption("--bench-device")
    if pytestconfig.getoption("--threads"):
        torch.set_num_threads(pytestconfig.getoption("--threads"))
    if torch.device(name).type == "cuda":
        if not torch.cuda.is_available():
            raise pytest.UsageError(f"--bench-device {name}: torch sees no such device")
        if pytestconfig.getoption("--precision") == "float32":
            torch.backends.cudnn.allow_tf32 = False  # on by default: every peer would convolve in TF32
    return name


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Progress, shown at once: a race takes minutes."""
    reporter = pytestconfig.pluginmanager.getplugin("terminalreporter")
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def show(line: str) -> None:
        if reporter is None:
            return
        with capture.global_and_fixture_disabled() if capture else warnings.catch_warnings():
            reporter.write_line(f"  [{line}]")

    return show


@pytest.fixture(scope="session")
def races(
    request: pytest.FixtureRequest, device: str, say: Callable[[str], None], results: Results
) -> Callable[[str], dict[str, Entry]]:
    """The race of a shape, run once, among those contenders whose tests were not deselected."""
    option = request.config.getoption
    everybody = contenders()
    names = [params["contender"] for item in request.session.items if "contender" in (params := parameters(item))]
    selected = {name: everybody[name] for name in names}
    quick = option("--quick")
    run: dict[str, dict[str, Entry]] = {}

    def of(shape: str) -> dict[str, Entry]:
        if shape not in run:
            config = SearchConfig(weights=option("--weights"), precision=option("--precision"))
            case = cases.build(
                shape, config, images=option("--max-images"), device=device, generator=option("--generator")
            )
            run[shape] = race(
                case,
                selected.values(),
                rounds=option("--rounds") or (3 if quick else 4),
                seconds=option("--seconds") or (0.3 if quick else 1.0),
                gate_starts=(8, 8) if quick else (64, 8),
                with_memory=not (quick or option("--no-memory")),
                say=say,
            )
            found = report.rows_of(case, run[shape], device)
            lines = [*report.text(report.cells(found)), *report.missing(run[shape])]
            results.add(_title(case, device), lines, found)
        return run[shape]

    return of


def _title(case: cases.Case, device: str) -> str:
    shares = ", ".join(f"{share:.2f}" for share in case.open_shares)
    return (
        f"{case.key} on {device_name(device)}, torch {torch.__version__}: {len(case.starts)} starts, "
        f"{case.config.steps} steps, open share of the ReLUs {shares}"
    )


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = config.stash[_RESULTS]
    if found.sections:
        terminalreporter.section("adgan_fast bench")
        for title, lines in found.sections.items():
            for line in (title, "", *lines, ""):
                terminalreporter.write_line(line)
        terminalreporter.write_line(
            "s/image: median (least-most) of the rounds, contenders in turn, warm, scaled to all starts; an engine's "
            "seconds_per_call is taken off. Ratios: median over rounds. Peak: one call in a process of its own, beyond "
            "generator and images. rms error: of the improvement against the float64 reference (bound 1e-3 in float32)."
        )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    path, found = session.config.getoption("--save-rows"), session.config.stash[_RESULTS]
    if path and found.rows:
        saved = save(results_file(session.config.getoption("--bench-device")) if path == "auto" else path, found.rows)
        found.add("rows", [f"{len(found.rows)} saved in {saved}"], [])
