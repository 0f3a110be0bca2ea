"""A recorded run judged again: identical where it must be, honest where it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.config.schema import EdgeConfig, RecordingConfig
from edge_runtime.core.errors import StorageError
from edge_runtime.core.messages import Cause, Decision, Frame, PartKey, Prediction, Trigger, Verdict
from edge_runtime.dataset.judges import Judge, Judges
from edge_runtime.dataset.replay import Replay, Told, replay, replay_run
from edge_runtime.decision.policy import Policy
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.recording.evidence import Evidence
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.records import RunInfo

POLICY = Policy(0.4, 0.6)
PARTS = 12


def model(image: NDArray[np.uint8]) -> Prediction:
    """Every bit of the picture counts, so that a lossy one cannot pass for the real one."""
    return Prediction("mean@1", float(image.astype(np.float64).mean() / 255.0), {})


def record(state: Path, picture_format: str) -> None:
    journal = Journal(state / "journal.db", RunInfo(model="mean@1", model_digest="d"))
    evidence = Evidence(state, RecordingConfig(format=picture_format, good_share=1.0), journal.kept)  # type: ignore[arg-type]
    journal.start()
    random = np.random.default_rng(1)
    for number in range(1, PARTS + 1):
        key = PartKey(5, number)
        image = random.integers(0, 256, (20, 30, 3), np.uint8) // np.uint8(1 + number % 3)
        journal.triggered(Trigger(key, number, number))
        prediction = model(image)
        verdict, reason = POLICY.judge(prediction)
        decision = Decision(key, verdict, Cause.MODEL, reason, prediction.score, number, number, number, "mean@1")
        journal.decided(decision, None, prediction)
        evidence.start()
        evidence.decided(decision, Frame("c", number, number, 0, image), prediction)
        evidence.stop()
    key = PartKey(5, PARTS + 1)
    journal.triggered(Trigger(key, 99, 99))
    late = Decision(key, Verdict.UNSURE, Cause.DEADLINE, "deadline", None, 99, None, 99, "mean@1")
    journal.decided(late, None, None)
    journal.stop()


def other_model(image: NDArray[np.uint8]) -> Prediction:
    return Prediction("mean@2", 1.0 - model(image).score, {})


def record_with_changes(state: Path, at_work: list[tuple[str, str]]) -> None:
    """One part for each of these (label, digest), judged by that model: a run with promotions and rollbacks."""
    journal = Journal(state / "journal.db", RunInfo(model=at_work[0][0], model_digest=at_work[0][1]))
    evidence = Evidence(state, RecordingConfig(format="png", good_share=1.0), journal.kept)
    journal.start()
    random = np.random.default_rng(2)
    for number, (label, digest) in enumerate(at_work, 1):
        journal.learn_model(label, digest)
        key, image = PartKey(5, number), random.integers(0, 256, (20, 30, 3), np.uint8) // np.uint8(1 + number % 3)
        journal.triggered(Trigger(key, number, number))
        prediction = (model if label == "mean@1" else other_model)(image)
        verdict, reason = POLICY.judge(prediction)
        decision = Decision(key, verdict, Cause.MODEL, reason, prediction.score, number, number, number, label)
        journal.decided(decision, None, prediction)
        evidence.start()
        evidence.decided(decision, Frame("c", number, number, 0, image), prediction)
        evidence.stop()
    journal.stop()


@pytest.fixture
def lossless(tmp_path: Path) -> Iterator[Path]:
    record(tmp_path, "png")
    yield tmp_path


def again(state: Path, policy: Policy = POLICY, told: Told = lambda *_: None) -> Replay:
    with JournalReader(state / "journal.db") as reader:
        return replay_run(reader, state, 1, lambda _: Judge("mean@1", model, policy), told)


def test_lossless_frames_give_identical_decisions(lossless: Path) -> None:
    steps: list[tuple[int, int]] = []
    found = again(lossless, told=lambda *step: steps.append(step))
    assert steps == [(number, PARTS + 1) for number in range(1, PARTS + 2)]
    assert found.is_identical and found.compared == found.identical == PARTS
    assert found.parts == PARTS + 1 and found.not_compared == {"decided by deadline": 1}


def test_a_changed_threshold_is_told_part_by_part(lossless: Path) -> None:
    found = again(lossless, Policy(0.1, 0.1))
    assert not found.is_identical and found.differences
    difference = found.differences[0]
    assert difference.replayed.verdict == "reject" and difference.recorded.score == difference.replayed.score
    assert found.as_dict()["differences"][0]["recorded"]["verdict"] == difference.recorded.verdict


def test_a_picture_that_is_gone_is_not_compared(lossless: Path) -> None:
    for file in (lossless / "evidence").rglob("*-3-*.png"):
        file.unlink()
    found = again(lossless)
    assert found.compared == PARTS - 1 and found.not_compared["picture is gone"] == 1 and found.is_identical


def test_jpeg_pictures_are_compared_by_verdict(tmp_path: Path) -> None:
    record(tmp_path, "jpeg")
    found = again(tmp_path)
    assert (found.compared, found.lossy_compared, found.differences) == (0, PARTS, [])
    assert found.lossy_score_change > 0.0
    assert found.is_identical and found.lossy_same_verdict == PARTS


def test_a_jpeg_picture_with_another_verdict_is_named(tmp_path: Path) -> None:
    record(tmp_path, "jpeg")
    found = again(tmp_path, Policy(0.1, 0.1))
    told = found.as_dict()["differences"]
    assert not found.is_identical and len(told) == PARTS - found.lossy_same_verdict > 0
    assert not any(difference["is_lossless"] for difference in told)
    assert all(difference["recorded"]["verdict"] != difference["replayed"]["verdict"] for difference in told)
    assert all(difference["id"] and difference["part"] and difference["recorded"]["score"] for difference in told)


def test_a_run_that_is_not_there_is_a_sentence(lossless: Path) -> None:
    with pytest.raises(StorageError, match="no run 7"):
        replay(EdgeConfig(), lossless, 7, None)


JUDGES = {"d1": Judge("mean@1", model, POLICY), "d2": Judge("mean@2", other_model, POLICY)}


@pytest.mark.parametrize("here", [("d1", "d2"), ("d1",), ("d2",), ()], ids=repr)
@pytest.mark.parametrize(
    "story", ["1", "12", "121", "112212", "2222", "1221122112"], ids=lambda story: f"models {story}"
)
def test_each_part_is_judged_by_the_model_of_then_and_others_are_not_compared(
    tmp_path: Path, story: str, here: tuple[str, ...]
) -> None:
    record_with_changes(tmp_path, [(f"mean@{which}", f"d{which}") for which in story])
    with JournalReader(tmp_path / "journal.db") as reader:
        found = replay_run(
            reader, tmp_path, 1, lambda row: JUDGES[row.model_digest] if row.model_digest in here else "it is gone"
        )
    can = [which for which in story if f"d{which}" in here]
    assert found.compared == found.identical == len(can) and not found.differences
    assert found.not_compared["it is gone"] == len(story) - len(can)
    assert dict(found.judged_by) == {f"mean@{which}": story.count(which) for which in dict.fromkeys(can)}
    assert found.is_identical is bool(can)


def test_the_model_of_a_part_is_found_by_its_digest_and_nothing_else_is_taken_for_it(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    shipped = store.resolve("scratch")
    judges = Judges(store, EdgeConfig())
    judge = judges.of(shipped.label, shipped.digest)
    assert isinstance(judge, Judge) and judge.label == shipped.label
    assert judges.of(shipped.label, shipped.digest) is judge
    for label, digest, why in (
        (shipped.label, "0" * 64, "another bundle than the one that was chosen"),
        ("scratch@99", "0" * 64, "not in the store any more"),
        ("gone@1", "", "not in the store any more"),
    ):
        said = judges.of(label, digest)
        assert isinstance(said, str) and why in said and said.startswith(f"judged by {label}")
