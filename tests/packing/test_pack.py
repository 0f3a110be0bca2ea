"""`models pack` as people and scripts call it: bundles that verify, questions on a terminal, files that kill."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from click.testing import CliRunner

from edge_runtime.cli.main import Session, main
from edge_runtime.cli.pack_cmd import pack as pack_command
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import ModelError, UsageError
from edge_runtime.features.image import Prepare
from edge_runtime.modelstore.bundle import load_bundle
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.packing.answers import Told
from edge_runtime.packing.pack import pack
from edge_runtime.packing.time_check import Pace
from edge_runtime.predictors.golden import ask_golden, check_golden
from edge_runtime.predictors.vision import open_engine
from tests.support import spot_models

SPOT = Told(name="spots", labels=("clean", "spot"), defects=("spot",), normalise="0..1")
CASES = {
    "classifier of a signature": (spot_models.two_signatures(), replace(SPOT, signature="judge")),
    "segmentation": (
        spot_models.segments(as_map=True),
        replace(SPOT, labels=("background", "spot"), defects=(), good=("background",), least_pixels=8),
    ),
    "yolo of pixels": (spot_models.yolo(8, pixels=True), SPOT),
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory, parts):
    """Each case packed once: its file, its report and its bundle."""
    made = {}
    for case, (content, told) in CASES.items():
        folder = tmp_path_factory.mktemp("packed")
        file = folder / "model.tflite"
        file.write_bytes(content)
        report = pack(file, told, EdgeConfig(), out=folder / "spots-1", samples=parts)
        made[case] = (file, report, load_bundle(folder / "spots-1"))
    return made


@pytest.mark.parametrize("case", CASES)
def test_a_packed_bundle_tells_good_from_bad_and_says_how_sure_that_is(packed, case):
    _, report, bundle = packed[case]
    assert report.samples == {"good": 10, "bad": 5}
    assert report.limit is not None and report.limit["over"] == 0 and report.limit["missed"] == 0
    assert bundle.manifest.thresholds.over_reject == 0.01
    assert "too few to show 1.00%: that takes 368 good samples" in " ".join(report.remarks)
    card = (bundle.folder / "CARD.md").read_text()
    assert "rejects 0 of 10 good samples (95 %: 0.0% to 30.8%)" in card and "| normalisation | 0..1 | told by" in card
    assert report.golden == 6 and "not proven" not in " ".join(report.remarks)


@pytest.mark.parametrize("case", CASES)
def test_golden_answers_are_those_of_the_raw_interpreter_bit_for_bit(packed, case):
    file, _, bundle = packed[case]
    assert bundle.manifest.input is not None
    raw = Interpreter(model_path=str(file))
    raw.allocate_tensors()
    runner = raw.get_signature_runner(bundle.manifest.signature) if bundle.manifest.signature else None
    engine = open_engine(bundle)
    prepare = Prepare(bundle.manifest.input, engine.inputs[0].shape, engine.inputs[0].dtype)
    names = sorted(path.name for path in (bundle.folder / "golden").glob("*.png"))
    expected = json.loads((bundle.folder / "golden" / "expected.json").read_text())
    assert set(expected) == set(names)
    for name in names:
        picture = cv2.cvtColor(cv2.imread(str(bundle.folder / "golden" / name)), cv2.COLOR_BGR2RGB)
        tensor, _ = prepare(picture)
        if runner:
            (theirs,) = runner(image=tensor).values()
        else:
            raw.set_tensor(raw.get_input_details()[0]["index"], tensor)
            raw.invoke()
            theirs = raw.get_tensor(raw.get_output_details()[0]["index"])
        assert engine.invoke(tensor)[0].tobytes() == theirs.tobytes()
        assert expected[name]["score"] == pytest.approx(spot_score(case, theirs), abs=1e-5)
    assert ask_golden(bundle, names)[0] == expected


def spot_score(case: str, output: np.ndarray) -> float:
    """What the raw output says of spots, without a decoder."""
    if case == "segmentation":
        return min(int((output == 1).sum()), 8) / 8
    return float(output[0, 1]) if output.ndim == 2 else float(output[0, 5].max())


def test_it_installs_and_passes_verification(packed, tmp_path):
    bundle = ModelStore(tmp_path / "store", []).install(packed["yolo of pixels"][2])
    golden = check_golden(bundle)
    assert golden.problem == "" and golden.accepted == golden.rejected == 3


def test_samples_are_drawn_with_what_was_found_in_them(packed):
    _, report, _ = packed["yolo of pixels"]
    assert [Path(sheet).name for sheet in report.previews] == ["sheet1.png"]
    sheet = cv2.imread(report.previews[0])
    red = (sheet[..., 2] > 180) & (sheet[..., 1] < 90) & (sheet[..., 0] < 90)
    assert sheet.shape[1] > 1600 and red.sum() > 500


def test_a_file_that_kills_its_interpreter_is_a_sentence_and_leaves_nothing(file, tmp_path):
    path = file(spot_models.killer())
    with pytest.raises(ModelError, match="damaged or hostile: it ends the TFLite runtime with a segmentation fault"):
        pack(path, SPOT, EdgeConfig(), out=tmp_path / "made")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.tflite"]


@pytest.mark.parametrize("what", ["cut", "folder", "fifo", "missing", "other"])
def test_what_is_no_model_file_is_refused(what, tmp_path):
    path = tmp_path / "model.tflite"
    make = {
        "cut": lambda: path.write_bytes(spot_models.yolo(8)[:700]),
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "other": lambda: path.write_bytes(b"PK\x03\x04 a Keras file"),
        "missing": lambda: None,
    }
    make[what]()
    with pytest.raises((ModelError, UsageError)):
        pack(path, SPOT, EdgeConfig(), out=tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_an_activation_that_the_network_does_itself_is_refused(file, tmp_path, parts):
    told = Told(labels=("clean", "spot"), defects=("spot",), normalise="0..1", activation="softmax")
    with pytest.raises(ModelError, match="would be a second one"):
        pack(file(spot_models.classifier()), told, EdgeConfig(), out=tmp_path / "made", samples=parts)


@pytest.mark.parametrize(
    ("picture_ms", "fits", "said"),
    [(20.0, True, ""), (151.0, False, "for hung"), (301.0, False, "no verdict would be in time")],
)
def test_a_pace_is_held_to_the_deadline_and_to_the_budget_of_a_stage(picture_ms, fits, said):
    pace = Pace(picture_ms, 5, deadline_ms=300.0, budget_ms=150.0)
    assert pace.fits is fits and said in " ".join(pace.remarks()) and bool(pace.remarks()) is bool(said)
    assert "leaves 100 of decision.deadline_ms" in Pace(200.0, 5, 300.0, 250.0).remarks()[0]


def test_a_bundle_is_never_written_over_another(file, tmp_path):
    (tmp_path / "made").mkdir()
    with pytest.raises(UsageError, match="is there already; give another --out or --version"):
        pack(file(spot_models.classifier()), SPOT, EdgeConfig(), out=tmp_path / "made")


def test_scripts_get_one_document_and_people_every_missing_option_at_once(file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = file(spot_models.classifier(), "Surface Check.tflite")
    with pytest.raises(SystemExit) as ended:
        main(["models", "pack", str(path), "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert "--labels, --normalise 0..1|-1..1|0..255|imagenet, --defect" in json.loads(said.out)["fix"]
    told = ["--labels", "clean,spot", "--defect", "spot", "--normalise", "0..1", "--reject-at", "0.7", "--json"]
    done = CliRunner().invoke(pack_command, [str(path), *told], obj=Session(None, ["decision.deadline_ms=0.001"]))
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert not report["fits"] and report["picture_ms"] > report["deadline_ms"] == 0.001
    assert re.match(
        r"does not fit this station: takes \S+ ms .*decision\.deadline_ms = 0\.001: no verdict", report["remarks"][0]
    )
    assert report["model"] == "surface-check@1" and report["reject_at"] == 0.7 and report["previews"] == []
    assert load_bundle(tmp_path / "surface-check-1").manifest.thresholds.reject_at == 0.7


def test_on_a_terminal_what_is_not_known_is_asked_and_shown_before_it_is_sealed(file, tmp_path, parts):
    """A real terminal; each question is answered as it comes, most with the offered default."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "edge_runtime", "models", "pack", str(file(spot_models.classifier())), "--samples"]
    process = subprocess.Popen([*words, str(parts)], cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    answers = {
        "--labels": ["clean,spot"],
        "--normalise (": ["0-1", "0..1"],
        "--defect": ["spott", ""],
        "seal it?": ["y"],
    }
    said, answered = "", 0
    try:
        while chunk := os.read(ours, 4096):
            said += chunk.decode()
            asked = said[answered:]
            if asked.rstrip().endswith(":") and ("--" in asked or "seal it?" in asked):
                answer = next((texts.pop(0) for start, texts in answers.items() if start in asked), "")
                answered = len(said)
                os.write(ours, f"{answer}\n".encode())
    except OSError:  # the terminal's other side was closed: the program has ended
        pass
    finally:
        os.close(ours)
        code = process.wait(60)
    assert code == 0, said
    assert "normalisation: what a pixel of 0 to 255 becomes" in said
    assert "Error: normalisation '0-1' is none; give 0..1" in said and "did you mean 'spot'?" in said
    assert said.index("sheet1.png") < said.index("seal it?") < said.index("packed model@1")
    assert load_bundle(tmp_path / "model-1").manifest.output.defect_labels == ("spot",)
