"""The simulation behind docs/scale.md, where its outcome is known."""

from __future__ import annotations

import pytest

from bench.studies.scale import RESTART_SECONDS, simulated


def test_without_loss_a_job_takes_what_its_images_take():
    assert simulated(1000, 1, 10, rate=5.0, driver=0.0).seconds == pytest.approx(200)
    assert simulated(1000, 4, 10, rate=5.0, driver=0.0).seconds == pytest.approx(50)
    assert simulated(1005, 4, 10, rate=5.0, driver=0.0).seconds == pytest.approx(51)  # 5 images more: one second


def test_the_one_process_bounds_the_pace():
    assert simulated(1000, 50, 1, rate=1e6, driver=0.5).seconds == pytest.approx(1000 * 0.5, rel=0.11)


def test_a_slow_worker_ends_last_with_the_shard_it_held():
    quick = simulated(800, 8, 100, rate=10.0, driver=0.0).seconds
    slow = simulated(800, 8, 100, rate=10.0, driver=0.0, slow_share=1 / 8, slow_factor=3.0).seconds
    assert (quick, slow) == (pytest.approx(10), pytest.approx(30))


def test_failures_cost_time_and_lose_no_shard():
    given = {"rate": 10.0, "driver": 0.0}
    calm, stormy = simulated(20_000, 4, 10, **given), simulated(20_000, 4, 10, failure_hours=0.05, **given)
    assert calm.lost == 0 and stormy.lost > 0
    assert stormy.seconds > calm.seconds + RESTART_SECONDS
    assert stormy == simulated(20_000, 4, 10, failure_hours=0.05, **given)
    assert stormy != simulated(20_000, 4, 10, failure_hours=0.05, seed=1, **given)
