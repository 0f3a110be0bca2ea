"""Judging a scratch model: AUROC, calibration, thresholds and error rates mean what their names say."""

from __future__ import annotations

import numpy as np
import pytest
import scratch_judge as judge


@pytest.fixture
def judged():  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(1)
    good, bad = rng.beta(1.2, 12.0, 3000), rng.beta(9.0, 1.2, 1000)
    kind = np.array(["good"] * 2500 + ["oil"] * 300 + ["stain"] * 200 + ["scratch"] * 1000)
    severity = np.array(["none"] * 3000 + ["hairline", "light", "medium", "deep"] * 250)
    return judge.Judged(np.concatenate((good, bad)), kind == "scratch", kind, severity)


def test_auroc_is_the_chance_of_the_right_order() -> None:
    rng = np.random.default_rng(2)
    scores, defect = rng.integers(0, 12, 300) / 12.0, rng.random(300) < 0.3
    pairs = scores[defect][:, None] - scores[~defect][None, :]
    assert judge.auroc(scores, defect) == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


def test_thresholds_cost_the_stated_share_of_good_parts(judged) -> None:  # type: ignore[no-untyped-def]
    limits = judge.choose_limits(judged)
    rates = judge.error_rates(judged, limits)
    assert 0.0 < limits.accept_below < limits.reject_at < 1.0
    assert rates["false"] == pytest.approx(judge.STOP_SHARE, abs=0.002)
    assert rates["sure_false"] == pytest.approx(judge.SURE_SHARE, abs=0.002)
    assert rates["missed"] < 0.05


def test_calibrated_score_rises_with_the_raw_one_and_means_what_it_says(judged) -> None:  # type: ignore[no-untyped-def]
    limits = judge.choose_limits(judged)
    score = limits.score(judged.raw)
    assert np.array_equal(np.argsort(score, kind="stable"), np.argsort(judged.raw, kind="stable"))
    assert score[~judged.defect].mean() < 0.05
    assert score[judged.defect].mean() > 0.95


def test_clean_separation_does_not_drive_the_slope_to_infinity() -> None:
    raw = np.concatenate((np.full(500, 0.1), np.full(500, 0.9)))
    a, b = judge.fit_logistic(raw, np.arange(1000) >= 500)
    assert np.isfinite([a, b]).all()
    assert 1.0 < a < 60.0


def test_rates_count_oil_and_stains_as_good_parts() -> None:
    kind = np.array(["good", "good", "oil", "stain", "scratch", "scratch"])
    severity = np.array(["none"] * 4 + ["hairline", "deep"])
    judged = judge.Judged(np.array([0.1, 0.2, 0.9, 0.1, 0.2, 0.9]), kind == "scratch", kind, severity)
    rates = judge.error_rates(judged, judge.Limits(10.0, -5.0, 0.5, 0.9, 0.5))
    assert (rates["missed"], rates["false"]) == (0.5, 0.25)
    assert (rates["false_good"], rates["false_oil"], rates["false_stain"]) == (0.0, 1.0, 0.0)
    assert (rates["missed_hairline"], rates["missed_deep"]) == (1.0, 0.0)
    assert np.isnan(rates["missed_light"])
