"""A recorded run through the same code once more: does each part get the decision that it got then?

Only decisions on a frame kept without loss can be compared, the model's and those on invalid pictures; pictures kept as
JPEG are judged as well, but what differs there may be the picture. Deadlines, lost frames and the like are accidents of
that day and not replayed. Settings are those of the recorded run, so that a changed threshold does not look like a
changed model, and each part is judged by the model that judged it then, by its digest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import ModelError, StorageError
from edge_runtime.core.messages import LOCAL, Cause, Verdict
from edge_runtime.features.picture_validity import STILL
from edge_runtime.recording.evidence import load_picture
from edge_runtime.recording.reader import JournalReader, PartFilter, PartRow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_runtime.dataset.judges import Judge

Choose = Callable[[PartRow], "Judge | str"]  # who judges that part, or why nobody can
Told = Callable[[int, int], None]  # so many parts done, of so many


@dataclass(frozen=True, slots=True)
class Judged:
    """What one pass said about a part."""

    verdict: str
    score: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One part with two decisions. is_lossless: whether it was judged again on the very picture of then."""

    id: int
    part: str
    recorded: Judged
    replayed: Judged
    is_lossless: bool


@dataclass(slots=True)
class Replay:
    """How a run compares. `not_compared` says why, and how many; `judged_by` counts the parts of each model.

    `differences` are the lossless pictures with another decision and the lossy ones with another verdict.
    """

    run: int
    parts: int = 0
    compared: int = 0
    identical: int = 0
    differences: list[Difference] = field(default_factory=list)
    lossy_compared: int = 0
    lossy_same_verdict: int = 0
    lossy_score_change: float = 0.0  # the largest
    judged_by: Counter[str] = field(default_factory=Counter)
    not_compared: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def model(self) -> str:
        """Every model that judged, by its label; empty where none could."""
        return ", ".join(self.judged_by)

    @property
    def is_identical(self) -> bool:
        """Every lossless picture gave the very same decision, every lossy one the same verdict, and there were some."""
        return self.compared + self.lossy_compared > 0 and not self.differences

    def as_dict(self) -> dict[str, Any]:
        document = asdict(self) | {"model": self.model, "judged_by": dict(self.judged_by)}
        document["not_compared"] = dict(self.not_compared)
        document["lossy"] = {
            name: document.pop(f"lossy_{name}") for name in ("compared", "same_verdict", "score_change")
        }
        return document


def replay_run(
    reader: JournalReader,
    state: Path,
    run: int,
    choose: Choose,
    told: Told = lambda *_: None,
) -> Replay:
    """Judge every kept frame of a run again. state: the folder that evidence files are relative to."""
    found, which = Replay(run), PartFilter(run=run)
    total = reader.counts(which)["parts"]
    for row in reader.parts(which):
        found.parts += 1
        told(found.parts, total)
        why_not = _why_not(row)
        if why_not:
            found.not_compared[why_not] += 1
            continue
        try:
            image = load_picture(state / str(row.evidence))
        except OSError:
            found.not_compared["picture is gone"] += 1
            continue
        judge = choose(row)
        if isinstance(judge, str):
            found.not_compared[judge] += 1
            continue
        found.judged_by[judge.label] += 1
        _compare(found, row, image, judge)
    return found


def _why_not(row: PartRow) -> str:
    if row.cause == Cause.INVALID_IMAGE and STILL in (row.reason or ""):
        return "the camera stood still, which one picture does not show"
    if row.cause not in (Cause.MODEL, Cause.INVALID_IMAGE):
        return f"decided by {row.cause}" if row.cause else "not decided yet"
    if row.origin not in (None, LOCAL):
        return "judged by an inference server"
    return "" if row.evidence else "no picture kept"


def _judge(image: NDArray[np.uint8], judge: Judge) -> Judged:
    fault = judge.gate(image)
    if fault:
        return Judged(Verdict.UNSURE.value, None, f"{Cause.INVALID_IMAGE}: {fault}")
    prediction = judge.model(image)
    verdict, reason = judge.policy.judge(prediction)
    return Judged(verdict.value, prediction.score, reason)


def _compare(found: Replay, row: PartRow, image: NDArray[np.uint8], judge: Judge) -> None:
    recorded = Judged(str(row.verdict), row.score, row.reason or "")
    replayed = _judge(image, judge)
    is_lossless = str(row.evidence).endswith(".png")
    if is_lossless:
        is_same = recorded == replayed
        found.compared += 1
        found.identical += is_same
    else:
        is_same = recorded.verdict == replayed.verdict
        found.lossy_compared += 1
        found.lossy_same_verdict += is_same
        if row.score is not None and replayed.score is not None:
            found.lossy_score_change = max(found.lossy_score_change, abs(replayed.score - row.score))
    if not is_same:
        found.differences.append(Difference(row.id, row.part, recorded, replayed, is_lossless))


def replay(cfg: EdgeConfig, state: Path, run: int | None, model: str | None, told: Told = lambda *_: None) -> Replay:
    """Replay a run of this box. run: None takes the newest; model: None takes, for each part, the one that judged it
    then; told: of how many parts are done, and of how many in all.

    Raises StorageError without such a run, ModelError when the model that is named is not here.
    """
    from edge_runtime.dataset.judges import Judges, open_judge
    from edge_runtime.modelstore.store import open_store

    with JournalReader(state / "journal.db") as reader:
        recorded = reader.run(run)
        if recorded is None:
            raise StorageError(f"no run {run} in {reader.path}" if run else f"no run in {reader.path} yet")
        notes: list[str] = []
        settings = _settings_of(recorded, cfg, notes)
        store = open_store(cfg)
        named = open_judge(store.resolve(model), settings) if model else None
        judges = Judges(store, settings)

        def choose(row: PartRow) -> Judge | str:
            """A row without a model, of a picture that none could judge, goes with the one that the run began with."""
            if named or not row.model:
                return named or judges.of(recorded["model"], recorded["model_digest"])
            return judges.of(row.model, row.model_digest or "")

        found = replay_run(reader, state, recorded["id"], choose, told)
    if found.lossy_compared:
        notes.append("JPEG pictures are compared by verdict; recording.format = png makes replays exact")
    if not found.judged_by:
        notes.append("nothing to compare: record with recording.format = png and recording.good_share = 1.0")
    found.notes = notes
    return found


@dataclass(frozen=True, slots=True)
class Again:
    """One part judged once more. is_lossless: on the very picture of then, not on a JPEG of it."""

    id: int
    part: str
    model: str
    recorded: Judged
    replayed: Judged
    is_lossless: bool
    notes: tuple[str, ...]


def judge_again(cfg: EdgeConfig, state: Path, number: int, model: str | None) -> Again:
    """Judge one kept picture once more, with the settings of its run. model: None takes the one that judged it then.

    Raises StorageError without such a part or its picture, ModelError when the model is not here.
    """
    from edge_runtime.dataset.judges import Judges, open_judge
    from edge_runtime.modelstore.store import open_store

    with JournalReader(state / "journal.db") as reader:
        row = reader.part(number)
        recorded = reader.run(row.run) if row else None
    if row is None or recorded is None:
        raise StorageError(f"there is no part {number} in {state / 'journal.db'}")
    if row.evidence is None:
        raise StorageError(f"no picture of part {number} was kept", "recording.good_share = 1.0 keeps all")
    notes: list[str] = []
    settings, store = _settings_of(recorded, cfg, notes), open_store(cfg)
    label, digest = (row.model, row.model_digest) if row.model else (recorded["model"], recorded["model_digest"])
    judge = open_judge(store.resolve(model), settings) if model else Judges(store, settings).of(label, digest or "")
    if isinstance(judge, str):
        raise ModelError(judge, "choose another model")
    try:
        image = load_picture(state / row.evidence)
    except OSError as err:
        raise StorageError(f"the picture of part {number} is gone: {err.strerror}") from err
    was = Judged(str(row.verdict), row.score, row.reason or "")
    is_lossless = row.evidence.endswith(".png")
    return Again(row.id, row.part, judge.label, was, _judge(image, judge), is_lossless, tuple(notes))


def _settings_of(recorded: dict[str, Any], cfg: EdgeConfig, notes: list[str]) -> EdgeConfig:
    try:
        return EdgeConfig.model_validate(recorded["config"])
    except ValueError:
        notes.append("the recorded settings are of another version: today's thresholds are used")
        return cfg
