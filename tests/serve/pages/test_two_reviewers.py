"""Two reviewers say 80 labels at once, of the same parts, through a real `edge-runtime serve`, which is killed in the
middle: nothing is lost, nothing comes twice. Each label carries a name that its page made, and is said until it is
answered."""

from __future__ import annotations

import http.client
import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from edge_runtime.core.messages import PartKey, Trigger
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.records import RunInfo
from tests.support.waiting import until
from tests.sync.sync_rig import free_port

PARTS = 40  # of each reviewer; a label takes 0.1-0.2 s here, where no box runs and each opens the journal
PATIENCE_S = 60.0
LOST = (OSError, http.client.HTTPException, ValueError)  # what a connection that goes in the middle looks like


def recorded(state: Path) -> Path:
    journal = Journal(state / "journal.db", RunInfo())
    journal.start()
    for number in range(1, PARTS + 1):
        journal.triggered(Trigger(PartKey(7, number), 100 * number, number))
    assert journal.flush(20)
    journal.stop()
    return journal.path


@contextmanager
def serving(state: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    settings = (f'recording.state_dir="{state}"', f"serve.port={port}")
    words = [word for one in settings for word in ("--set", one)]
    with (state / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_runtime", "--config", "embedded", *words, "serve"], stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE_S)


class Reviewer(threading.Thread):
    """Says a label for each part; what had no answer is said again under the same name. loses: hangs up at times before
    the answer has come."""

    def __init__(self, name: str, label: str, port: int, *, loses: bool) -> None:
        super().__init__(name=name, daemon=True)
        self.port, self.loses, self.label = port, loses, label
        self.told: dict[int, int] = {}  # row of the part -> number of the label
        self.repeats = 0
        self._cookie, self._word = "", ""
        self._dice = random.Random(name)

    def run(self) -> None:
        for row in range(1, PARTS + 1):
            until(lambda row=row: self._say(row), within_s=PATIENCE_S)

    def _say(self, row: int) -> bool:
        words = {"row": row, "label": self.label, "by": self.name, "ref": f"{self.name}-{row}", "saw": False}
        with suppress(*LOST):
            if not self._word:
                self._cookie, self._word = self._load()
            hangs_up = self.loses and row % 10 == 0 and self._dice.random() < 0.7
            status, told = self._post(words, hangs_up)
            if status == 200:
                self.told[row] = told["number"]
                return True
            self._word = ""  # another serve: its sessions are new
        self.repeats += 1
        return False

    def _load(self) -> tuple[str, str]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", "/api/me")
            with closing(connection.getresponse()) as answer:
                word = json.loads(answer.read())["word"]
                return str(answer.headers["set-cookie"]).partition(";")[0], word

    def _post(self, words: dict[str, object], hangs_up: bool) -> tuple[int, dict[str, int]]:
        headers = {"Content-Type": "application/json", "Cookie": self._cookie, "X-CSRF-Token": self._word}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("POST", "/api/label", json.dumps(words), headers)
            if hangs_up:
                raise OSError("the connection is gone")
            with closing(connection.getresponse()) as answer:
                return answer.status, json.loads(answer.read())


def test_no_label_is_lost_and_none_is_there_twice(tmp_path: Path) -> None:
    journal, port = recorded(tmp_path), free_port()
    ann, ben = Reviewer("ann", "accept", port, loses=False), Reviewer("ben", "reject", port, loses=True)
    with serving(tmp_path, port) as first:
        ann.start()
        ben.start()
        until(lambda: min(len(ann.told), len(ben.told)) >= PARTS // 4, within_s=PATIENCE_S)
        first.send_signal(signal.SIGKILL)
        first.wait(PATIENCE_S)
    with serving(tmp_path, port):
        for reviewer in (ann, ben):
            reviewer.join(PATIENCE_S)
            assert not reviewer.is_alive() and len(reviewer.told) == PARTS and reviewer.repeats > 0
    with JournalReader(journal) as reader:
        for row in range(1, PARTS + 1):
            history = reader.history(row)
            assert sorted((one.by, one.label) for one in history) == [("ann", "accept"), ("ben", "reject")]
            assert {one.by: one.id for one in history} == {"ann": ann.told[row], "ben": ben.told[row]}
        assert reader.losses() == [] and reader.problems() == []
