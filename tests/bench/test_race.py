"""The bench itself: its peers run Algorithm 1, its gate sees a wrong one, and its rows become the table they should."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from adgan_fast.config import SearchConfig
from bench.peers import PEERS, Peer
from bench.race import cases, gate, memory, race, replay, report, rows, scaling, table
from bench.race.contenders import Contender, contenders
from bench.studies import sweep
from tests.support.engines import WEIGHTS

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(weights: str = "per_seed", **overrides: Any) -> cases.Case:
    # A high rate for the weights: at the paper's, a peer that leaves them alone could pass unseen.
    config = SearchConfig(n_seed=3, steps=3, weights=weights, lr_weights=2e-3, **overrides)
    return cases.build("dcgan8x2", config, images=2, width=4, latent=6)


class OtherFamily(nn.Module):
    """Same layers as a DCGAN's, and a residual that a list of layers does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.ConvTranspose2d(6, 2, 4), nn.ConvTranspose2d(2, 2, 3, 1, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.one(z.reshape(-1, 6, 1, 1))
        return x + self.two(x)


class Biased(nn.Module):
    """Odd sizes, biases, output padding, a leaky ReLU and a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(5, 6, (3, 2)),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(6, 4, 3, 2, 1, 1),
            nn.BatchNorm2d(4),
            nn.Sigmoid(),
            nn.ConvTranspose2d(4, 1, 4, 2, 1),
        )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layers(z)


@pytest.fixture
def light_compile(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.compile traces, differentiates and functionalises, but calls no C++ compiler: that takes half a minute."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    yield
    torch.compiler.reset()


def run_or_skip(peer: Peer, case: cases.Case) -> tuple[torch.Tensor, torch.Tensor]:
    reason = peer.why_not(case.gen, case.config, case.starts)
    if reason is not None and "not installed" in reason:
        pytest.skip(reason)
    assert reason is None
    return peer.run(case.gen, case.images, case.starts, case.config)


# The slow compilers once each: compiled_vmap shares its handling of the modes with vmap, jax_vmap with jax_map.
COMPILED = ("compiled_vmap", "jax_vmap")


@pytest.mark.parametrize(
    ("name", "weights"),
    [(name, weights) for name in PEERS for weights in (WEIGHTS[:1] if name in COMPILED else WEIGHTS)],
)
def test_a_peer_runs_algorithm_1(name: str, weights: str, light_compile: None) -> None:
    case = tiny(weights)
    before = {key: value.clone() for key, value in case.gen.state_dict().items()}
    losses = run_or_skip(PEERS[name], case)
    assert losses[0].shape == losses[1].shape == (2, 3)
    found = gate.check(losses, gate.reference(case))
    assert found.green, found.failures
    assert found.rms < 1e-4  # torch's own float32 loop: 1e-6
    assert all(torch.equal(value, before[key]) for key, value in case.gen.state_dict().items())
    assert all(p.grad is None for p in case.gen.parameters())


@pytest.mark.parametrize("name", [name for name in PEERS if name not in COMPILED])
def test_a_peer_takes_odd_layers(name: str) -> None:
    gen = Biased().eval()
    starts = torch.randn(3, 5, 1, 1, generator=torch.Generator().manual_seed(1))
    images = torch.rand(2, 1, *gen(starts).shape[2:], generator=torch.Generator().manual_seed(2))
    case = cases.Case("biased", gen, images, starts, SearchConfig(n_seed=3, steps=3, lr_weights=2e-3), ())
    found = gate.check(run_or_skip(PEERS[name], case), gate.reference(case))
    assert found.green, found.failures


@pytest.mark.parametrize("pairs", [1, 4, 64])
@pytest.mark.parametrize("name", ["vmap", "grouped_conv", "bmm_fold"])
def test_losses_do_not_depend_on_the_pairs_at_a_time(name: str, pairs: int) -> None:
    case = tiny()
    losses = PEERS[name].searcher(case.gen, case.config, pairs)(case.images, case.starts)
    assert gate.check(losses, gate.reference(case)).green


@pytest.mark.parametrize("name", ["grouped_conv", "bmm_fold"])
def test_a_peer_of_one_family_names_what_it_cannot_run(name: str) -> None:
    starts = torch.randn(2, 6)
    for gen in (OtherFamily(), nn.Sequential(nn.Linear(6, 4), nn.Unflatten(1, (1, 2, 2)))):
        reason = PEERS[name].why_not(gen.eval(), SearchConfig(), starts)
        assert reason is not None and "DCGAN family" in reason
    assert "l1" in (PEERS[name].why_not(OtherFamily(), SearchConfig(loss="l1"), starts) or "")


def weights_left_alone(case: cases.Case) -> SearchConfig:
    return case.config.replace(weights="frozen")


def another_beta(case: cases.Case) -> SearchConfig:
    return case.config.replace(betas=(0.5, 0.99))


def one_step_less(case: cases.Case) -> SearchConfig:
    return case.config.replace(steps=2)


@pytest.mark.parametrize("mistake", [weights_left_alone, another_beta, one_step_less])
def test_the_gate_is_red_for_a_wrong_search(mistake: Callable[[cases.Case], SearchConfig]) -> None:
    case = tiny()
    losses = PEERS["plain_loop"].run(case.gen, case.images, case.starts, mistake(case))
    assert not gate.check(losses, gate.reference(case)).green


def test_the_gate_is_red_for_nan_and_for_losses_of_other_pairs() -> None:
    case = tiny()
    wanted = gate.reference(case)
    initial, final = PEERS["plain_loop"].run(case.gen, case.images, case.starts, case.config)
    assert not gate.check((initial, final * float("nan")), wanted).green
    assert not gate.check((initial.flip(1), final.flip(1)), wanted).green
    assert not gate.check((initial, initial), wanted).green


def test_the_gate_runs_the_plain_loop_once_and_only_where_a_bound_is_missed() -> None:
    case, runs = tiny(), []
    wanted = gate.reference(case, (3, 2))
    assert wanted.initial.isnan().tolist() == [[False] * 3, [False, False, True]]
    exact = wanted.initial.nan_to_num(), wanted.final.nan_to_num()

    def plain() -> gate.Losses:
        runs.append(1)
        return gate.Losses(exact[0], exact[1] + 1e-3 * exact[0])

    noisy = gate.ReferenceLosses(wanted.initial, wanted.final, functools.cache(plain))
    assert gate.check(exact, noisy).green and not runs
    for times, green in ((2.9, True), (3.1, False), (2.9, True)):
        off = exact[0], exact[1] + times * 1e-3 * exact[0]
        assert gate.check(off, noisy).green == green and len(runs) == 1
        assert gate.check((off[0][:1, :2], off[1][:1, :2]), noisy).green == green  # a smaller load
        assert not gate.check(off, dataclasses.replace(noisy, plain=None)).green
    assert wanted.plain is not None and wanted.plain() is wanted.plain()
    loop = PEERS["plain_loop"].run(case.gen, case.images, case.starts, case.config)
    torch.testing.assert_close(wanted.plain().final[0], loop[1][0])
    assert wanted.plain().final.dtype == torch.float32 and wanted.plain().final[1, 2].isnan()


def broken(gen: nn.Module, images: torch.Tensor, starts: torch.Tensor, config: SearchConfig) -> None:
    raise RuntimeError("broken")


def test_a_race_shows_no_speed_for_a_wrong_or_broken_contender() -> None:
    case = tiny()
    loop = PEERS["plain_loop"]
    wrong = dataclasses.replace(
        loop, name="wrong", prepare=lambda gen, config, pairs: loop.prepare(gen, config.replace(steps=2), pairs)
    )
    failing = dataclasses.replace(loop, name="failing", prepare=broken)
    absent = dataclasses.replace(loop, name="absent", refuse=lambda gen, config, starts: "not today")
    among = [Contender("reference"), *(Contender(peer.name, peer) for peer in (loop, wrong, failing, absent))]
    entries = race.race(case, among, rounds=2, seconds=0.01, with_memory=False)
    assert [name for name, entry in entries.items() if entry.valid] == ["reference", "plain_loop"]
    assert len(entries["reference"].calls) == 2 and entries["reference"].median > 0
    assert not entries["wrong"].calls and not entries["failing"].calls and not entries["absent"].calls
    found = report.rows_of(case, entries, "cpu")
    assert {r["engine"] for r in found} == {"reference", "plain_loop"}
    lines = "\n".join(report.missing(entries))
    assert "wrong: GATE RED" in lines and "failing: FAILED" in lines and "absent: did not run: not today" in lines


def test_a_ratio_is_taken_within_a_round() -> None:
    """Both are four times slower in the second round: that is the machine, and no ratio of 2.5."""
    green = gate.Gate(0.0, 0.0, 0.0, "")

    def entry(name: str, calls: list[float]) -> race.Entry:
        contender = Contender(name, PEERS["plain_loop"])
        return race.Entry(contender, gate=green, load=race.Load(1, 4), of_starts=8, calls=calls)

    entries = {"slow": entry("slow", [2.0, 8.0, 2.0]), "fast": entry("fast", [1.0, 4.0, 1.0])}
    assert entries["slow"].seconds == [4.0, 16.0, 4.0]  # half of the starts were timed
    assert race.ratio(entries, "fast", "slow") == 2.0
    assert race.best_peer(entries) == "fast"


def test_engines_are_found_by_themselves() -> None:
    import adgan_fast

    found = contenders()
    assert [name for name, c in found.items() if c.kind == "engine"] == [e.name for e in adgan_fast.engines()]
    assert [name for name, c in found.items() if c.kind == "peer"] == list(PEERS)


def test_a_case_is_the_same_each_time_and_its_relus_are_half_open() -> None:
    one, two = tiny(), tiny()
    assert torch.equal(one.images, two.images) and torch.equal(one.starts, two.starts)
    assert all(torch.equal(a, b) for a, b in zip(one.gen.parameters(), two.gen.parameters(), strict=True))
    assert all(0.3 < share < 0.7 for share in one.open_shares)
    assert one.images.abs().max() <= 1 and one.images.std() > 0.3
    assert not one.gen.training


def made_up(engine: str, kind: str, seconds: float, **more: Any) -> rows.Row:
    load = {"images": 1, "starts": 8, "of_starts": 64, "low": seconds * 0.9, "high": seconds * 1.2, "rounds": 5}
    return (
        rows.row("dcgan32x1-mnist/s64/k5/per_seed", engine, kind, "seconds_per_image", seconds, "s", "cpu")
        | load
        | more
    )


def test_rows_replace_those_of_their_key_and_keep_the_others(tmp_path: Path) -> None:
    path = tmp_path / "results" / "machine.jsonl"
    rows.save(path, [made_up("grouped", "engine", 2.0), made_up("plain_loop", "peer", 4.0)])
    rows.save(path, [made_up("grouped", "engine", 1.0), made_up("grouped", "engine", 3.0, commit="older")])
    found = {(r["engine"], r["commit"]): r["value"] for r in rows.load(path)}
    assert found == {("grouped", rows.commit()): 1.0, ("grouped", "older"): 3.0, ("plain_loop", rows.commit()): 4.0}
    assert set(rows.KEY) <= rows.load(path)[0].keys()


def test_a_damaged_line_of_rows_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(made_up("grouped", "engine", 2.0)) + '\n{"case": 1}\n')
    with pytest.raises(ValueError, match="line 2"):
        rows.load(path)


def test_the_table_and_the_plot_show_the_latest_commit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    ratio = made_up("grouped", "engine", 4.0) | {"metric": "ratio_to_plain_loop"}
    exponent = made_up("grouped", "engine", 1.02) | {"metric": "exponent_of_n_seed"}
    older = made_up("grouped", "engine", 9.0, commit="older", measured="2001-01-01T00:00:00+00:00")
    peer = made_up("plain_loop", "peer", 4.0)
    rows.save(path, [made_up("grouped", "engine", 1.0), ratio, exponent, peer, older])
    assert table.main([str(path), "--plot", str(tmp_path / "plot.png")]) == 0
    printed = capsys.readouterr().out
    assert "| grouped | 1.00 (0.90-1.20) | 1 | 4.00 |" in printed
    assert printed.index("| grouped |") < printed.index("| plain_loop (peer) | 4.00")
    assert "8 of 64 starts" in printed and "| grouped | 1.02 |" in printed and "9.00" not in printed
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert table.main([str(path), "--case", "no such case"]) == 1


def test_the_exponent_of_a_power_law_is_its_power() -> None:
    assert scaling.exponent([1, 2, 4, 8], [3 * n**1.5 for n in (1, 2, 4, 8)]) == pytest.approx(1.5)


def test_the_clock_gives_the_benchmark_the_rounds_of_the_race() -> None:
    class Benchmark:
        def __init__(self) -> None:
            self.rounds: list[float] = []

        def pedantic(self, target: Callable[..., None], setup: Callable[[], Any], rounds: int, iterations: int) -> None:
            for _ in range(rounds):
                args, kwargs = setup()
                begin = replay.CLOCK()
                target(*args, **kwargs)
                self.rounds.append(replay.CLOCK() - begin)

    benchmark = Benchmark()
    replay.replay(benchmark, [1.5, 2.0, 0.25])
    assert benchmark.rounds == pytest.approx([1.5, 2.0, 0.25])


def test_a_sweep_prints_seconds_for_each_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = functools.partial(cases.build, width=2, latent=4)
    monkeypatch.setattr(sweep.cases, "build", lambda shape, config, **more: small("dcgan8x1", config, **more))
    monkeypatch.setattr(sys, "argv", ["sweep", "bmm_fold", "1", "4"])
    sweep.main()
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "bmm_fold, 1 pairs",
        "bmm_fold, 4 pairs",
    ]


def test_memory_is_that_of_the_search_alone() -> None:
    """A peer that holds 300 MB for a while is seen, whatever this process holds or held."""
    ballast = torch.ones(100_000_000)  # 400 MB here
    case = tiny()
    plain = memory.peak_of_search(case, "bmm_fold", 1, 3)
    assert plain is not None and 0 <= plain < 200e6
    del ballast


def test_a_disturbed_round_of_scaling_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two rounds show a quadratic growth, the later ones a linear one: the least counts."""
    visits = dict.fromkeys(scaling.SIZES["images"], -1)  # the warm-up is no visit

    def timed_call(job: cases.Case, run: Any, load: race.Load) -> tuple[float, Any]:
        visits[load.images] += 1
        slow = load.images if visits[load.images] <= 2 else 2
        return 0.5 + load.images * slow, (torch.ones(load.images, 4), torch.zeros(load.images, 4))

    monkeypatch.setattr(scaling, "timed_call", timed_call)
    monkeypatch.setattr(scaling, "setup_seconds", lambda job, run: 0.5)
    monkeypatch.setattr(scaling, "BASE", scaling.BASE | {"n_seed": 4, "width": 2})
    found = scaling.measure("images", [Contender("reference")], device="cpu", rounds=1, most_rounds=5)["reference"]
    assert found.exponent == pytest.approx(1.0) and set(visits.values()) == {3}
    assert not found.gate.green  # those losses were made up


def test_an_engine_that_refuses_a_case_is_listed_with_its_reason() -> None:
    case = tiny()
    double = dataclasses.replace(case, gen=case.gen.double(), images=case.images.double(), starts=case.starts.double())
    refusing = [name for name, c in contenders().items() if c.kind == "engine" and c.why_not(double)]
    assert "reference" not in refusing
    native = contenders().get("native")
    if native is not None:
        assert "cannot run" in (native.why_not(double) or "")
