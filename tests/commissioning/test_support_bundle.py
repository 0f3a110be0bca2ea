"""A support bundle holds what a helper needs, is bounded, and no secret of the station is in it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from edge_runtime.commissioning.support_bundle import CONTENT, MOST_BYTES, collect
from edge_runtime.config.load import load
from edge_runtime.serve.access.audit import AUDIT, Audit
from edge_runtime.serve.access.role_tokens import role_token
from edge_runtime.serve.access.roles import Role
from edge_runtime.serve.access.token import box_token

PASSWORD = 'hunter2 "of the plant"'


def test_no_secret_is_in_it_though_a_device_said_it_and_each_file_is_bounded(tmp_path: Path) -> None:
    state, password = tmp_path / "state", tmp_path / "mqtt-password"
    state.mkdir()
    password.write_text(PASSWORD + "\n")
    token = box_token(state)
    secrets = [PASSWORD, token, role_token(token, Role.VIEW)]
    audit = Audit(state)
    for secret in secrets:
        audit.note(who="page", address="::1", method="GET", path="/", status=400, detail=f"said {secret}")
    said = (state / AUDIT).read_text()
    assert token in said and json.dumps(PASSWORD)[1:-1] in said
    with (state / AUDIT).open("a") as opened:
        opened.write("x" * MOST_BYTES + token)
    out = tmp_path / "support.tar.gz"
    collect(load(None, [f'recording.state_dir="{state}"', f'sync.password_file="{password}"']), out)
    with tarfile.open(out) as archive:
        files = {one.name.removeprefix("support/"): archive.extractfile(one).read() for one in archive}  # type: ignore[union-attr]
    assert files.keys() == CONTENT.keys()
    for name, content in files.items():
        assert len(content) <= MOST_BYTES + 100, name
        for secret in (*secrets, json.dumps(PASSWORD)[1:-1]):
            assert secret.encode() not in content, name
    assert {one["name"] for one in json.loads(files["doctor.json"])} >= {"python", "config", "daemon"}
    assert json.loads(files["config.json"])["values"]["sync.password_file"]["value"] == str(password)
    assert "not_there" in json.loads(files["status.json"])
