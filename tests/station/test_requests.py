"""What a running box does on request, asked of the real daemon on the simulated line."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import HumanLabel, Label, PartKey, Verdict, Where
from edge_runtime.modelstore.bundle import load_bundle, seal_bundle
from edge_runtime.modelstore.store import shipped_models
from edge_runtime.process.control import ask
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.say_label import say, take_back
from tests.support.waiting import until

LIMIT_S = 90.0


class Running:
    """One daemon in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.socket = folder, folder / "c.sock"
        self.settings = [
            word
            for key, value in {
                "recording.state_dir": folder,
                "service.socket": self.socket,
                "recording.evidence": "false",
                "camera.width": 640,  # as the model looks; what is drawn larger costs more than the model
                "camera.height": 360,
                "controller.decide_counts": 2800,
                "controller.fire_counts": 3000,
                "decision.deadline_ms": 1200,
                "decision.stage_budget_ms": 400,
            }.items()
            for word in ("--set", f"{key}={value}")
        ]

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "edge_runtime", "--config", "embedded", *self.settings, *words]

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command("run", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        too_late = threading.Timer(LIMIT_S, self.process.kill)
        too_late.start()
        try:
            said = []
            while "ready station=" not in (line := self.process.stderr.readline()):
                said.append(line)
                assert line, f"the daemon did not get ready: {''.join(said)}"
        finally:
            too_late.cancel()

    def cli(self, *words: str) -> dict:
        done = subprocess.run(
            self.command(*words, "--json"), capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        return json.loads(done.stdout)

    def until(self, is_true) -> dict:
        """Look at the status until it is as wanted."""
        shots: list[dict] = []

        def is_so() -> bool:
            shots[:] = [ask(self.socket, "status", LIMIT_S)]
            return is_true(shots[0])

        until(is_so, LIMIT_S, lambda: shots[0]["recent"][-1:])
        return shots[0]

    def end(self) -> dict:
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=LIMIT_S)
        return json.loads(out)


@pytest.fixture
def box(tmp_path):
    running = Running(tmp_path)
    yield running
    process = getattr(running, "process", None)
    if process is not None and process.poll() is None:
        process.kill()
        process.communicate()


def second_version(folder: Path, version: str = "2") -> Path:
    """The shipped scratch model under another version."""
    copy = folder / f"copy-{version}"
    shutil.copytree(shipped_models() / "scratch" / "1", copy)
    bundle = load_bundle(copy)
    seal_bundle(copy, bundle.manifest.model_copy(update={"version": version}))
    return copy


def stored_active(box) -> str:
    return f"scratch@{json.loads((box.folder / 'models' / 'slots.json').read_text())['scratch']['active']}"


def test_a_model_is_promoted_and_rolled_back_on_a_running_line_without_losing_a_part(box, tmp_path):
    assert box.cli("models", "install", str(second_version(tmp_path)))["model"] == "scratch@2"
    box.settings += ["--set", "model.name=scratch@1"]
    box.start()
    box.until(lambda shot: shot["parts"] >= 3)
    assert box.cli("models", "stage", "scratch@2")["candidate"] == "2"
    box.until(lambda shot: shot["models"]["line"]["candidate"] == "2")
    switched = box.cli("models", "promote", "--yes")
    assert (switched["active"], switched["previous"]) == ("2", "1")
    shot = box.until(lambda shot: shot["model"] == "scratch@2")
    seen = shot["parts"]
    shot = box.until(lambda shot: shot["parts"] >= seen + 5)
    seat = shot["models"]["line"]
    assert (seat["label"], seat["candidate"], seat["previous"]) == ("scratch@2", None, "1")
    assert seat["digest"] == shot["model_digest"]
    assert box.cli("models", "rollback", "--yes")["active"] == "1"
    box.until(lambda shot: shot["model"] == "scratch@1" and shot["parts"] >= seen + 12)
    summary = box.end()
    assert summary["unaccounted"] == 0
    with JournalReader(box.folder / "journal.db") as reader:
        models = {(row.model, bool(row.model_digest)) for row in reader.parts() if row.cause == "model"}
    assert models == {("scratch@1", True), ("scratch@2", True)}


def test_a_candidate_that_fails_its_own_test_stays_out(box, tmp_path):
    copy = second_version(tmp_path)
    golden = copy / "golden" / "expected.json"
    wrong = {name: {"score": 0.5} for name in json.loads(golden.read_text())}
    golden.write_text(json.dumps(wrong))
    seal_bundle(copy, load_bundle(copy, verify=False).manifest)
    box.cli("models", "install", str(copy))
    box.settings += ["--set", "model.name=scratch@1"]
    box.start()
    box.cli("models", "stage", "scratch@2")
    assert "stays out" in box.cli("models", "promote", "--yes")["error"]
    assert ask(box.socket, "status", LIMIT_S)["model"] == "scratch@1"
    assert box.end()["unaccounted"] == 0


def test_promote_takes_what_it_was_asked_for_and_what_runs_is_what_is_stored_however_it_ends(box, tmp_path):
    for version in ("2", "3"):
        box.cli("models", "install", str(second_version(tmp_path, version)))
    box.start()
    assert ask(box.socket, "status", LIMIT_S)["model"] == "scratch@1" == stored_active(box)

    refused = subprocess.run(
        box.command("--set", "model.name=commands-embed", "models", "promote"),
        input="n\n", capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert "scratch has no candidate" in refused.stderr  # of the model at work, not of the one in the file
    box.cli("models", "stage", "scratch@2")
    asked = subprocess.run(
        box.command("models", "promote"), input="n\n", capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert "promote: scratch@1 gives way to scratch@2?" in asked.stderr

    promoting = subprocess.Popen(
        box.command("models", "promote", "--yes", "--why", "less glare"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    box.cli("models", "stage", "scratch@3")
    promoting.communicate(timeout=LIMIT_S)
    slot = json.loads((box.folder / "models" / "slots.json").read_text())["scratch"]
    assert ask(box.socket, "status", LIMIT_S)["model"] == stored_active(box)
    came = (promoting.returncode, slot["active"], slot["candidate"])
    assert came in {(0, "2", "3"), (1, "1", "3"), (0, "3", None)}  # after it, before it was heard, before it was asked
    if slot["candidate"] is None:
        box.cli("models", "stage", "scratch@2")

    box.process.send_signal(signal.SIGSTOP)
    before = (box.folder / "models" / "slots.json").read_bytes()
    assert "does not answer" in box.cli("models", "promote", "--yes")["error"]
    assert (box.folder / "models" / "slots.json").read_bytes() == before
    box.process.send_signal(signal.SIGCONT)

    promoting = subprocess.Popen(box.command("models", "promote", "--yes"), stderr=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL)  # fmt: skip
    signal.sigtimedwait([], random.Random().uniform(0.5, 2.5))
    box.process.kill()
    box.process.communicate()
    promoting.wait(LIMIT_S)
    box.start()
    assert ask(box.socket, "status", LIMIT_S)["model"] == stored_active(box)
    assert box.end()["unaccounted"] == 0
    with JournalReader(box.folder / "journal.db") as reader:
        told = [event for event in reader.events(100) if event["kind"].startswith("model.")]
    staged = [event["detail"] for event in told if event["kind"] == "model.staged"]
    assert [one["now"] for one in staged][:2] == ["scratch@2", "scratch@3"] and staged[0]["by"].startswith("cli:")


def test_a_stopped_box_tests_a_model_before_it_is_promoted_as_a_running_one_does(box, tmp_path):
    copy = second_version(tmp_path)
    golden = copy / "golden" / "expected.json"
    golden.write_text(json.dumps({name: {"score": 0.5} for name in json.loads(golden.read_text())}))
    seal_bundle(copy, load_bundle(copy, verify=False).manifest)
    box.cli("models", "install", str(copy))
    box.cli("models", "stage", "scratch@2")
    assert "stays out" in box.cli("models", "promote", "--yes")["error"]
    assert box.cli("models", "install", str(second_version(tmp_path, "3")))["model"] == "scratch@3"
    box.cli("models", "stage", "scratch@3")
    assert box.cli("models", "promote", "--yes") == {
        "model": "scratch", "active": "3", "candidate": None, "previous": "1",
    }  # fmt: skip
    with (box.folder / "models" / "scratch" / "3" / "model.tflite").open("r+b") as file:
        file.seek(2000)
        file.write(b"\xff\x00\xff")
    box.start()
    shot = ask(box.socket, "status", LIMIT_S)
    assert (shot["model"], shot["state"], shot["health"]["model"]["state"]) == ("scratch@1", "degraded", "degraded")
    assert "scratch@3 could not run" in shot["health"]["model"]["detail"]
    assert stored_active(box) == "scratch@1"
    box.end()


def test_a_label_given_beside_a_running_box_is_on_the_disk_and_can_be_taken_back(box, tmp_path):
    journal = box.folder / "journal.db"
    box.start()
    box.until(lambda shot: shot["parts"] >= 2)
    with JournalReader(journal) as reader:
        part = next(reader.parts())
    key = PartKey(part.boot_id, part.part_id)
    said = HumanLabel(
        key, Label.REJECT, 0, "anna", Where.PAGE, "scratch", "left", "scratch@1", Verdict.ACCEPT, row=part.id
    )
    say(journal, box.socket, said)
    with JournalReader(journal) as reader:
        (written,) = reader.history(part.id)
        run = reader.run()
    assert (written.label, written.by, written.defect) == (Label.REJECT, "anna", "scratch")
    assert (written.saw_model, written.saw_verdict) == ("scratch@1", Verdict.ACCEPT)
    assert written.saw_digest and written.run == run["id"] and written.at_utc_ns >= part.trigger_utc_ns
    shown = box.cli("parts", "show", str(part.id))
    assert (shown["label"], [label["comment"] for label in shown["labels"]]) == ("reject", ["left"])
    take_back(journal, box.socket, written.id, "ben", Where.CLI)
    assert box.cli("parts", "show", str(part.id))["label"] is None
    with pytest.raises(DeviceError, match="holds no label"):
        ask(box.socket, "label", boot_id=1)
    assert box.end()["unaccounted"] == 0


def test_automation_from_afar_goes_downwards_only(box):
    box.start()
    assert ask(box.socket, "automation", degree="partial", only_down=True) == {"before": "full", "now": "partial"}
    with pytest.raises(DeviceError, match="downwards only"):
        ask(box.socket, "automation", degree="full", only_down=True)
    assert ask(box.socket, "automation", degree="full")["now"] == "full"
    with pytest.raises(DeviceError, match="human_only, partial, full"):
        ask(box.socket, "automation", degree="none")
    with pytest.raises(DeviceError, match="no microphone"):
        ask(box.socket, "listen")
    assert ask(box.socket, "resume") == {"resumed": False}
    with pytest.raises(DeviceError, match="needs 'verb'"):
        ask(box.socket, "model")
    with pytest.raises(DeviceError, match="has no candidate"):
        ask(box.socket, "model", verb="promote")
    with pytest.raises(DeviceError, match=r"by\s+model.name in the station file and a restart"):
        ask(box.socket, "model", verb="promote", name="plate", version="1", digest="0" * 64)
    assert box.end()["unaccounted"] == 0
