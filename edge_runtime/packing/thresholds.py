"""From which score a packed bundle rejects: told, chosen from samples, or asked; and what may be said of that."""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime.core.errors import UsageError
from edge_runtime.core.manifest import Thresholds
from edge_runtime.packing.answers import Desk, Question, Told
from edge_runtime.packing.judging import Judged
from edge_runtime.packing.limits import FEWEST_GOOD, Limit, choose_limit, limit_at
from edge_runtime.packing.tables import FEWEST_OF_REFERENCE

USUAL_LIMIT = 0.5


def settle_thresholds(
    judged: Sequence[Judged], told: Told, over_reject: float, desk: Desk
) -> tuple[Limit | None, Thresholds]:
    """Told, else chosen from labelled samples, else asked for. Raises UsageError."""
    scores = {truth: _scores(judged, truth) for truth in ("good", "bad")}
    if told.reject_at is not None or told.accept_below is not None:
        reject_at = told.reject_at if told.reject_at is not None else max(told.accept_below or 0.0, USUAL_LIMIT)
        accept_below = told.accept_below if told.accept_below is not None else reject_at
        if accept_below > reject_at:
            raise UsageError(f"--accept-below {accept_below:g} is above --reject-at {reject_at:g}")
        desk.note("limits", f"accept below {accept_below:g}, reject at {reject_at:g}", "told by options")
        limit = limit_at(reject_at, scores["good"], scores["bad"], over_reject) if scores["good"] else None
        return limit, Thresholds(accept_below=accept_below, reject_at=reject_at)
    limit = choose_limit(scores["good"], scores["bad"], over_reject)
    if limit is not None:
        desk.note("limit", f"{limit.at:g}", f"from {limit.good} good and {limit.bad} bad samples at {over_reject:.2%}")
        return limit, Thresholds(accept_below=limit.at, reject_at=limit.at, over_reject=over_reject)
    question = Question(
        "--reject-at", "limit", f"no {FEWEST_GOOD} good samples to choose it from: give --samples with good/ and bad/",
        str(USUAL_LIMIT), is_convention=True, check=_share,
    )  # fmt: skip
    at = _share(desk.settle(question))
    return None, Thresholds(accept_below=at, reject_at=at)


def _share(text: str) -> float:
    try:
        at = float(text)
    except ValueError:
        at = -1.0
    if not 0.0 <= at <= 1.0:
        raise UsageError(f"limit {text!r} is none", "give a number of 0 to 1")
    return at


def remarks_on(judged: Sequence[Judged], limit: Limit | None, told: Told) -> list[str]:
    """What whoever uses the bundle should know of its limits and samples."""
    said = limit.sentences() if limit else []
    if limit is None and told.reject_at is None:
        good = count_of(judged, "good")
        few = f"{good} good samples are too few, {FEWEST_GOOD} are the least: " if good else ""
        said.append(f"the limit was not measured: {few}pack again with --samples DIR, pictures in good/ and bad/")
    faults = [one for one in judged if one.fault]
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        said.append(f"not judged: {faults[0].sample.path}: {faults[0].fault}{more}")
    good = count_of(judged, "good")
    if judged and good < FEWEST_OF_REFERENCE:
        said.append(
            f"{good} good samples are too few to say how pictures look ({FEWEST_OF_REFERENCE} are needed): a lamp that "
            "grows dim is noticed late"
        )
    return said


def count_of(judged: Sequence[Judged], truth: str | None = None) -> int:
    """How many were judged: of all, or of those that somebody called so."""
    return sum(not one.fault and truth in (None, one.sample.truth) for one in judged)


def _scores(judged: Sequence[Judged], truth: str) -> list[float]:
    return [one.score for one in judged if one.sample.truth == truth and not one.fault]
