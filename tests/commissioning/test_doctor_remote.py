"""Doctor says of the inference server whether it may be asked, whether the way is there, and whether it answers."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.commissioning.doctor_remote import remote_findings
from edge_runtime.commissioning.finding import Finding
from edge_runtime.config.load import load
from edge_runtime.serve.remote.relay import PictureRelay

ASKS = ('model.predictor="remote"', 'model.remote.url="http://127.0.0.1:9"', "model.remote.may_leave=true")


def found(folder: Path, *settings: str) -> list[Finding]:
    return list(remote_findings(load(None, [f'recording.state_dir="{folder}"', *settings])))


def test_a_station_that_asks_none_says_so(tmp_path: Path) -> None:
    assert [(one.state, one.detail) for one in found(tmp_path)] == [("ok", "off")]


def test_pictures_that_may_not_leave_are_a_warning_with_the_key(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, *ASKS[:2])
    assert finding.state == "warn" and "may_leave is false" in finding.detail and finding.fix


def test_files_and_a_serve_that_are_not_there_are_named_with_their_fix(tmp_path: Path) -> None:
    token, serve = found(tmp_path, *ASKS, f'model.remote.token_file="{tmp_path / "token"}"')
    assert token.state == "fail" and "token_file" in token.fix
    assert serve.state == "warn" and "start edge-runtime serve" in serve.fix


def test_a_running_serve_is_asked(tmp_path: Path) -> None:
    cfg = load(None, ASKS).config
    relay = PictureRelay(cfg.model, tmp_path / "picture.sock")
    relay.start()
    try:
        (finding,) = found(tmp_path, *ASKS)
        assert finding.state == "ok" and "scratch at 127.0.0.1:9" in finding.detail
        relay.note("the server 127.0.0.1:9 cannot be reached: Connection refused")
        (finding,) = found(tmp_path, *ASKS)
        assert finding.state == "warn" and "Connection refused" in finding.detail and finding.fix
    finally:
        relay.stop()
