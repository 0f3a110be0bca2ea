"""Doctor says of the inference server whether it may be asked, whether the way is there, and how it answers."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.cli.main import main
from edge_runtime.commissioning.doctor_remote import remote_findings
from edge_runtime.commissioning.finding import Finding
from edge_runtime.config.load import load
from edge_runtime.core.clock import SECOND, monotonic_ns
from edge_runtime.core.errors import EdgeError
from edge_runtime.core.remote_standing import RemoteStanding, Standing
from edge_runtime.core.status import RemoteReport, Status
from edge_runtime.inference.native_noise import native_noise_hidden
from edge_runtime.inference.remote_session import RemoteSession
from edge_runtime.modelstore.bundle import load_bundle
from edge_runtime.predictors.remote_vision import RemoteReading
from edge_runtime.predictors.vision import open_vision_model
from edge_runtime.serve.remote.relay import PictureRelay
from edge_runtime.serve.speech.relay import SpeechRelay
from tests.support.real_box import telling
from tests.support.v2_server import Peer, serving

ASKS = ('model.predictor="remote"', 'model.remote.url="http://127.0.0.1:9"', "model.remote.may_leave=true")
BUNDLE = Path("models/scratch/1")


def settings(folder: Path, *more: str) -> list[str]:
    return [f'recording.state_dir="{folder}"', *more]


def found(folder: Path, *more: str) -> list[Finding]:
    return list(remote_findings(load(None, settings(folder, *more))))


def health_of(folder: Path, *more: str) -> tuple[int, str]:
    """Exit code and text of `serve --health`."""
    given = [word for one in settings(folder, *more) for word in ("--set", one)]
    said = io.StringIO()
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(said):
        main(["serve", "--health", *given])
    assert isinstance(ended.value.code, int)
    return ended.value.code, next(line for line in said.getvalue().splitlines() if line.startswith("pictures"))


@pytest.fixture(scope="module")
def reading() -> RemoteReading:
    with native_noise_hidden():
        model = open_vision_model(load_bundle(BUNDLE))
    made = RemoteReading(model.bundle)
    made.learn(model.engine.inputs, model.engine.outputs)
    return made


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with serving(BUNDLE / "model.tflite", "scratch") as made:
        yield made


@contextlib.contextmanager
def serve_of(folder: Path, *more: str) -> Iterator[PictureRelay]:
    """Both ways to servers in the house, as `serve` has them."""
    cfg = load(None, settings(folder, *more)).config
    relays = [SpeechRelay(cfg.voice.remote, folder / "speech.sock"), PictureRelay(cfg, folder / "picture.sock")]
    with contextlib.ExitStack() as running:
        for relay in relays:
            relay.start()
            running.callback(relay.stop)
        assert isinstance(relays[1], PictureRelay)
        yield relays[1]


def ask(relay: PictureRelay, reading: RemoteReading, is_trial: bool) -> None:
    """One question, answered or not."""
    told: list[object] = []
    session = RemoteSession(relay.path, reading, lambda *_: None, monotonic_ns)
    question = session.take(
        np.zeros((360, 640, 3), np.uint8), monotonic_ns() + 20 * SECOND, told.append, is_trial=is_trial
    )
    assert question is not None
    session.send(question)
    while not told:
        session.listen(0.02)
        session.expire()
    session.close()


def test_a_station_that_asks_none_says_so(tmp_path: Path) -> None:
    assert [(one.state, one.detail) for one in found(tmp_path)] == [("ok", "off")]


def test_pictures_that_may_not_leave_are_a_warning_with_the_key(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, *ASKS[:2])
    assert finding.state == "warn" and "may_leave is false" in finding.detail and finding.fix


def test_files_and_a_serve_that_are_not_there_are_named_with_their_fix(tmp_path: Path) -> None:
    token, serve = found(tmp_path, *ASKS, f'model.remote.token_file="{tmp_path / "token"}"')
    assert token.state == "fail" and "token_file" in token.fix
    assert serve.state == "warn" and "start edge-runtime serve" in serve.fix


def test_a_server_is_not_well_before_it_answered_and_trials_are_no_questions(
    tmp_path: Path, peer: Peer, reading: RemoteReading
) -> None:
    peer.does()
    asks = (ASKS[0], f'model.remote.url="{peer.url}"', ASKS[2])
    with serve_of(tmp_path, *asks) as relay:
        (finding,) = found(tmp_path, *asks)
        assert finding.state == "warn" and "not asked about a part yet; 150 ms" in finding.detail and finding.fix
        assert health_of(tmp_path, *asks)[1].split()[:2] == ["pictures", "starting"]
        ask(relay, reading, is_trial=True)
        (finding,) = found(tmp_path, *asks)
        assert finding.state == "ok" and "not asked about a part yet; a trial was answered 0 s ago" in finding.detail
        assert finding.detail.endswith("0 answers to 0 questions about parts")
        ask(relay, reading, is_trial=False)
        (finding,) = found(tmp_path, *asks)
        assert finding.state == "ok" and "answers: last answer 0 s ago, p95" in finding.detail
        assert finding.detail.endswith("1 answers to 1 questions about parts")
        code, line = health_of(tmp_path, *asks)
        assert code == 0 and "scratch at 127.0.0.1" in line and "ms of 150 ms allowed" in line
        peer.does("error_500")
        ask(relay, reading, is_trial=False)
        (finding,) = found(tmp_path, *asks)
        assert finding.state == "warn" and "fails: 1 failure in a row" in finding.detail and "500" in finding.detail
        assert health_of(tmp_path, *asks)[0] == 1


def test_a_server_that_is_not_there_is_told_with_the_reason(tmp_path: Path, reading: RemoteReading) -> None:
    with serve_of(tmp_path, *ASKS) as relay:
        with pytest.raises(EdgeError):
            RemoteSession(relay.path, reading, lambda *_: None, monotonic_ns)
        (finding,) = found(tmp_path, *ASKS)
    assert finding.state == "warn" and "Connection refused" in finding.detail and finding.fix


def test_the_line_knows_until_when_it_rests(tmp_path: Path, real_status: Status) -> None:
    rests = RemoteStanding(Standing.RESTS, 150.0, failures=4, next_try_s=10.0, why="cannot be reached")
    counts = dict.fromkeys((
        "asked", "answered", "late", "refused", "wrong", "unreachable", "resting", "busy", "no_time", "trials",
        "agreed", "disagreed",
    ), 0)  # fmt: skip
    remote = RemoteReport(
        server="", phase="resting", trouble="x", answer_ms=real_status.latency_ms.invoke, standing=rests, **counts
    )
    line = replace(real_status, report=replace(real_status.report, remote=remote))
    with serve_of(tmp_path, *ASKS), telling(tmp_path / "control.sock", line):
        (finding,) = found(tmp_path, *ASKS)
        assert finding.state == "warn" and "rests until " in finding.detail and "after 4 failures" in finding.detail
        code, said = health_of(tmp_path, *ASKS)
        assert code == 1 and "degraded" in said and "rests until " in said and "cannot be reached" in said
