"""What was refused is in the audit, and cannot fill it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_runtime.serve.access import refused
from tests.serve.http_box import Box, box
from tests.support.waiting import until

LOAD = "/v2/repository/models/nope/load"


@pytest.fixture
def running(tmp_path, monkeypatch):
    monkeypatch.setattr(refused, "COUNT_AFTER_S", 1.0)
    settings = ('serve.trusted_proxies=["127.0.0.1"]', "serve.requests_per_s=50")
    with box(tmp_path, *settings) as one:
        yield one


def audited(running: Box) -> list[dict[str, Any]]:
    path = running.state / "serve-audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("method, headers, status", [
    ("POST", {"Origin": "https://evil.example"}, 403), ("POST", {"Host": "evil.example"}, 421),
    ("POST", {"Authorization": "Bearer guessed"}, 401), ("GET", {"Authorization": "Bearer guessed"}, 401),
    ("POST", {}, 401), ("POST", {"Content-Length": "99999999"}, 413),
])  # fmt: skip
def test_a_refused_write_and_a_wrong_token_are_in_the_audit(running: Box, method, headers, status) -> None:
    asked = {"X-Forwarded-For": "10.9.9.9"} | headers
    assert running.ask(method, LOAD, None, asked).status == status
    [line] = audited(running)
    assert (line["from"], line["method"], line["path"], line["status"]) == ("10.9.9.9", method, LOAD, status)
    assert line["detail"]


def test_a_refused_look_is_not_in_the_audit(running: Box) -> None:
    assert running.get("/healthz", Host="evil.example").status == 421
    assert audited(running) == []


def test_who_is_refused_without_end_gets_a_few_lines_and_a_count(running: Box) -> None:
    """Every refusal is a line or counted."""
    headers = {"X-Forwarded-For": "10.9.9.9", "Origin": "https://evil.example"}
    told = [running.post(LOAD, {}, headers).status for _ in range(130)]
    assert {403, 429} >= set(told)

    def left_out() -> int:
        counts = [line["detail"].partition(": ")[2] for line in audited(running) if line["status"] == 0]
        return sum(int(one.split(" of ")[0]) for count in counts for one in count.split(", "))

    until(lambda: left_out() == len(told) - refused.LINES_AT_ONCE)
    assert len([line for line in audited(running) if line["status"]]) == refused.LINES_AT_ONCE
