"""`parts list | show | replay` as a technician and as a script call them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runtime.cli import parts_cmds
from edge_runtime.cli.main import main
from edge_runtime.cli.parts_cmds import ON_BELT_NS, SHOWN_DIFFERENCES, how_it_ended, parse_since
from edge_runtime.config.schema import EdgeConfig, RecordingConfig
from edge_runtime.core.clock import monotonic_ns
from edge_runtime.core.errors import UsageError
from edge_runtime.core.messages import (
    Cause,
    Decision,
    Frame,
    GateReport,
    HumanLabel,
    Label,
    Outcome,
    PartKey,
    Prediction,
    Region,
    Trigger,
    Verdict,
    Where,
)
from edge_runtime.media.picture import decode_picture
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.recording.evidence import Evidence
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.records import RunInfo
from edge_runtime.recording.say_label import say, take_back

ORIGINS = {3: "remote:scratch/7@gpu:8000"}
START_NS = monotonic_ns()  # wall time follows from it, and `--since 1h` must find the parts


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six parts: accepted and rejected ones with pictures, and one that was too late."""
    state = tmp_path_factory.mktemp("state")
    journal = Journal(state / "journal.db", RunInfo({}, "c" * 64, "scratch@1", "d" * 64))
    evidence = Evidence(state, RecordingConfig(good_share=1.0), journal.kept, reserve_bytes=0)
    journal.start()
    image = np.zeros((72, 128, 3), np.uint8)
    for number in range(1, 7):
        key, at_ns = PartKey(0x7F3A, number), START_NS + number
        journal.triggered(Trigger(key, number, at_ns))
        verdict, cause = (Verdict.REJECT, Cause.MODEL) if number % 2 else (Verdict.ACCEPT, Cause.MODEL)
        score: float | None = 0.9 if number % 2 else 0.1
        if number == 6:
            verdict, cause, score = Verdict.UNSURE, Cause.DEADLINE, None
        reason = "300 ms passed" if score is None else f"scratch {score}"
        decision = Decision(
            key,
            verdict,
            cause,
            reason,
            score,
            at_ns,
            at_ns,
            at_ns + 9_000_000,
            "scratch@1",
            ORIGINS.get(number, "local" if score else ""),
        )
        region = Region(0.2, 0.2, 0.1, 0.1, 0.9, "scratch")
        prediction = Prediction("scratch@1", 0.9, {}, (region,), np.full((4, 8), 0.5, np.float32), {"invoke": 1.5})
        journal.decided(decision, None, prediction if score else None)
        evidence.decided(decision, Frame("cam0", 1, at_ns, 0, image) if score else None, prediction)
        journal.ended(GateReport(key, Outcome.PASSED if verdict == "accept" else Outcome.FIRED, number + 1000, at_ns))
    evidence.start()
    evidence.stop()
    journal.stop()
    return state


@pytest.fixture
def run(state: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def called(*args: str, folder: Path = state) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_info:
            main(["parts", *args, "--set", f"recording.state_dir={folder}"])
        captured = capsys.readouterr()
        return int(exit_info.value.code or 0), captured.out, captured.err

    return called


def test_list_is_a_table_with_the_newest_last(run: Any) -> None:
    code, out, err = run("list", "--last", "3")
    lines = out.splitlines()
    assert code == 0 and lines[0].split()[:3] == ["ID", "TIME", "PART"]
    assert [line.split()[0] for line in lines[1:]] == ["4", "5", "6"]
    assert "unsure" in lines[3] and "deadline" in lines[3] and "300 ms passed" in lines[3]
    assert "6 parts match" in err


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--verdict", "reject"], [1, 3, 5]),
        (["--verdict", "reject", "--verdict", "unsure"], [1, 3, 5, 6]),
        (["--cause", "deadline"], [6]),
        (["--outcome", "passed", "--last", "1"], [4]),
        (["--since", "1h"], [1, 2, 3, 4, 5, 6]),
        (["--since", "2099-01-01"], []),
    ],
)
def test_list_finds_what_was_asked_for(run: Any, options: list[str], ids: list[int]) -> None:
    code, out, _ = run("list", "--json", *options)
    assert code == 0 and [row["id"] for row in json.loads(out)] == ids


def test_the_table_fits_a_console_and_names_what_it_left_out(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_cmds, "room", lambda: 80)
    _, out, _ = run("list")
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "VERDICT" in out and "REASON" in out and "300 ms passed" in out
    assert "PICTURE" not in out.splitlines()[0] and "no room for" in out and "PICTURE" in out.splitlines()[-1]


def test_show_joins_everything_about_a_part(run: Any) -> None:
    code, out, _ = run("show", "3")
    assert code == 0
    for words in (
        "7f3a-3",
        "REJECT",
        "scratch 0.9",
        "scratch@1",
        "fired at encoder 1003",
        "+9.00 ms",
        "invoke 1.50 ms",
        "by remote:scratch/7@gpu:8000",
    ):
        assert words in out
    code, out, _ = run("show", "7f3a-3", "--json")
    document = json.loads(out)
    assert document["origin"] == "remote:scratch/7@gpu:8000"
    assert "by the box's own model" in run("show", "4")[1] and '"origin": null' in run("show", "6", "--json")[1]
    assert document["id"] == 3 and document["has_picture"] and document["regions"][0]["label"] == "scratch"
    assert run("show", "last", "--json")[1].count('"verdict": "unsure"') == 1


def test_what_people_said_is_shown_with_all_that_was_taken_back(run: Any, state: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(state, tmp_path / "state")
    journal, nobody, key = folder / "journal.db", folder / "control.sock", PartKey(0x7F3A, 3)
    for word, by in ((Label.ACCEPT, "anna"), (Label.REJECT, "ben")):
        saw = {"saw_model": "scratch@1", "saw_verdict": Verdict.REJECT}
        say(journal, nobody, HumanLabel(key, word, 0, by, Where.CLI, "scratch", **saw))
    take_back(journal, nobody, 2, "ben", Where.CLI, "wrong part")
    code, out, _ = run("show", "3", folder=folder)
    assert code == 0 and re.search(r"label +accept", out)
    assert re.search(r"said 1 .* anna \(cli\): accept, scratch, after scratch@1 had said reject\n", out)
    assert re.search(r"said 2 .* ben \(cli\): reject, .*taken back\n", out)
    assert re.search(r"said 3 .* ben \(cli\): takes 2 back, \"wrong part\"\n", out)
    labels = json.loads(run("show", "3", "--json", folder=folder)[1])["labels"]
    assert [(label["by"], label["label"], label["is_undone"]) for label in labels] == [
        ("anna", "accept", False), ("ben", "reject", True), ("ben", None, False),
    ]  # fmt: skip
    code, out, _ = run("list", folder=folder)
    column = out.splitlines()[0].split().index("LABEL")
    assert [line.split()[column + 1] for line in out.splitlines()[1:]] == ["-", "-", "accept", "-", "-", "-"]
    assert "nobody said anything" in run("show", "4", folder=folder)[1]


def test_show_draws_the_part(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "part.png"
    assert run("show", "3", "--picture", str(file))[0] == 0
    drawn = cv2.imread(str(file))
    assert drawn is not None and drawn.shape[1] == 1280
    code, _, err = run("show", "6", "--picture", str(tmp_path / "none.jpg"))
    assert code == 0 and "no picture of part 6 was kept" in err and (tmp_path / "none.jpg").is_file()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["show", "99"], 1, "the newest is 6"),
        (["show", "nonsense"], 2, "7f3a-128"),
        (["show", "3", "--picture", "x.bmp"], 2, ".png"),
        (["show", "9" * 30], 1, "no part"),
        (["list", "--since", "yesterday"], 2, "30m"),
        (["list", "--verdict", "perhaps"], 2, "perhaps"),
        (["list", "--last", "0"], 2, "--last"),
        (["replay", "--run", "x"], 2, "latest"),
        (["replay", "--run", "9"], 1, "no run 9"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(run: Any, args: list[str], code: int, words: str) -> None:
    got, _, err = run(*args)
    assert got == code and words in err and "Traceback" not in err


@pytest.fixture(scope="module")
def misjudged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose pictures of a good part, kept as JPEG, were all rejected by a model that does not do so now."""
    state = tmp_path_factory.mktemp("misjudged")
    bundle = ModelStore(state / "models").resolve("scratch")
    good = decode_picture((bundle.folder / "golden" / "good.png").read_bytes())
    config = EdgeConfig().model_dump(mode="json")
    journal = Journal(state / "journal.db", RunInfo(config, "c" * 64, bundle.label, bundle.digest))
    evidence = Evidence(state, RecordingConfig(), journal.kept, reserve_bytes=0)
    journal.start()
    for number in range(1, SHOWN_DIFFERENCES + 4):
        key, at_ns = PartKey(0x7F3A, number), START_NS + number
        journal.triggered(Trigger(key, number, at_ns))
        decision = Decision(key, Verdict.REJECT, Cause.MODEL, "scratch 0.9", 0.9, at_ns, at_ns, at_ns, bundle.label)
        journal.decided(decision, None, None)
        evidence.start()
        evidence.decided(decision, Frame("cam0", 1, at_ns, 0, good), None)
        evidence.stop()
    journal.stop()
    return state


def test_replay_names_the_parts_that_differ_and_counts_the_rest(run: Any, misjudged: Path) -> None:
    code, out, _ = run("replay", folder=misjudged)
    named = [line for line in out.splitlines() if line.startswith("  part ")]
    assert code == 1 and len(named) == SHOWN_DIFFERENCES
    assert re.fullmatch(
        r"  part \d+ \(7f3a-\d+, JPEG\): was reject 0\.900000 \(scratch 0\.9\); now accept 0\.\d{6} .*", named[0]
    )
    assert "  and 3 more (--json lists all)" in out.splitlines()
    code, out, _ = run("replay", "--json", folder=misjudged)
    assert code == 1 and len({told["part"] for told in json.loads(out)["differences"]}) == SHOWN_DIFFERENCES + 3


def test_a_box_that_recorded_nothing_says_so(run: Any, tmp_path: Path) -> None:
    code, _, err = run("list", folder=tmp_path)
    assert code == 1 and "edge-runtime run" in err


def test_since_understands_spans_days_and_times() -> None:
    now_s = 1_800_000_000.0
    assert parse_since("90s", now_s) == round((now_s - 90) * 1e9)
    assert parse_since("1.5h", now_s) == round((now_s - 5400) * 1e9)
    assert 0 <= now_s * 1e9 - parse_since("today", now_s) < 86_400 * 1e9
    assert parse_since("2027-01-15T08:00:00+00:00") == 1_800_000_000 * 10**9
    with pytest.raises(UsageError):
        parse_since("0000-99-99")


_MAIN_AND_MODULES = """
import sys
from edge_runtime.cli.main import main
try:
    main()
finally:
    print(sorted(sys.modules), file=sys.stderr)
"""


def test_list_starts_without_numpy_and_pydantic(state: Path, tmp_path: Path) -> None:
    station = tmp_path / "station.toml"
    station.write_text(f'[recording]\nstate_dir = "{state}"\n')
    command = [sys.executable, "-c", _MAIN_AND_MODULES, "parts", "list", "--config", str(station)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "7f3a-6" in done.stdout and "'numpy'" not in done.stderr and "'pydantic'" not in done.stderr


@pytest.mark.parametrize(
    ("outcome", "reported", "run", "age_ns", "word"),
    [
        ("unknown", None, {"id": 1, "ended": "open"}, 0, "on belt"),
        ("unknown", None, {"id": 1, "ended": "open"}, ON_BELT_NS - 1, "on belt"),
        ("unknown", None, {"id": 1, "ended": "open"}, ON_BELT_NS, "unknown"),  # killed, and not started since
        ("unknown", None, {"id": 1, "ended": "clean"}, 0, "unknown"),
        ("unknown", None, {"id": 1, "ended": "crashed"}, 0, "unknown"),
        ("unknown", None, {"id": 2, "ended": "open"}, 0, "unknown"),
        ("unknown", None, {}, 0, "unknown"),
        ("unknown", 5, {"id": 1, "ended": "open"}, 0, "unknown"),  # the gate said so
        ("fired", 5, {"id": 1, "ended": "open"}, 0, "fired"),
        ("defaulted", None, {"id": 1, "ended": "open"}, 0, "defaulted"),
    ],
)
def test_a_part_on_the_belt_is_not_said_to_have_ended_unknown(
    state: Path, outcome: str, reported: int | None, run: dict[str, Any], age_ns: int, word: str
) -> None:
    with JournalReader(state / "journal.db") as reader:
        (row,) = reader.newest(1)
    row = replace(row, run=1, outcome=outcome, outcome_ns=reported)
    assert how_it_ended(row, run, row.trigger_utc_ns + age_ns) == word
