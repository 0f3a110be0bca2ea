"""Who may write through the pages, and what becomes of what should not be written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from edge_runtime.recording.reader import JournalReader
from edge_runtime.serve.access.role_tokens import role_token
from edge_runtime.serve.access.roles import Role
from tests.serve.http_box import Answer
from tests.support.line_and_pages import Rig


class Browser:
    """What a browser sends: its cookie, and the word its page was told."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.cookie, self.word = rig, "", ""

    def load(self) -> Browser:
        return self._take(self.rig.server.get("/api/me", **self.headers))

    def log_in(self, token: str, name: str = "") -> Answer:
        answer = self.post("login", {"token": token, "name": name})
        if answer.status == 200:
            self._take(answer)
        return answer

    def post(self, what: str, words: Any = None, **headers: str) -> Answer:
        return self.rig.server.post(f"/api/{what}", {} if words is None else words, self.headers | headers)

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Content-Type": "application/json", "Cookie": self.cookie, "X-CSRF-Token": self.word}

    def _take(self, answer: Answer) -> Browser:
        self.cookie, self.word = answer.headers["set-cookie"].partition(";")[0], answer.json()["word"]
        return self


@pytest.fixture
def browser(rig: Rig) -> Browser:
    return Browser(rig).load()


def audited(rig: Rig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (rig.line.state / "serve-audit.jsonl").read_text().splitlines()]


def a_part(rig: Rig) -> Any:
    with JournalReader(rig.line.state / "journal.db") as reader:
        return reader.newest(1)[0]


def said(rig: Rig, row: int) -> list[Any]:
    with JournalReader(rig.line.state / "journal.db") as reader:
        return reader.history(row)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "guessed"},
        {"Cookie": "edge_session=guessed"},
        {"Origin": "https://elsewhere.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_a_page_of_another_site_cannot_make_a_browser_hold_the_line(
    browser: Browser, rig: Rig, headers: Mapping[str, str]
) -> None:
    assert browser.post("hold", **headers).status == 403
    assert rig.line.look().held_by == ""


def test_a_picture_on_another_site_cannot_make_the_box_pack_a_bundle(browser: Browser, rig: Rig) -> None:
    answer = rig.server.ask("GET", "/api/bundle", "", {**browser.headers, "Sec-Fetch-Site": "cross-site"})
    assert answer.status == 403
    assert (audited(rig)[-1]["path"], audited(rig)[-1]["status"]) == ("/api/bundle", 403)


def test_a_form_of_another_site_is_not_taken_for_a_page(browser: Browser, rig: Rig) -> None:
    answer = rig.server.ask("POST", "/api/hold", "by=x", {**browser.headers, "Content-Type": "text/plain"})
    assert answer.status == 415
    assert audited(rig)[-1]["path"] == "/api/hold" and audited(rig)[-1]["status"] == 415


def test_a_cookie_is_out_of_reach_of_scripts_and_other_sites(rig: Rig) -> None:
    cookie = rig.server.get("/api/me").headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie


def test_each_role_does_what_it_may_under_the_name_that_was_given(rig: Rig) -> None:
    token, row = rig.server.token, a_part(rig).id
    watcher, operator = Browser(rig), Browser(rig)
    assert watcher.log_in(role_token(token, Role.VIEW), "Ann").status == 200
    refused = watcher.post("label", {"row": row, "label": "accept"})
    assert (refused.status, refused.error) == (403, "Ann has no right to operate")
    assert operator.log_in(role_token(token, Role.OPERATE), "Ben").status == 200
    assert operator.post("label", {"row": row, "label": "reject", "comment": "<script>alert(1)</script>"}).status == 200
    label = said(rig, row)[-1]
    assert (label.by, label.label, label.comment) == ("Ben", "reject", "<script>alert(1)</script>")
    assert [(line["who"], line["status"]) for line in audited(rig)[-1:]] == [("Ben", 200)]


def test_who_logged_out_is_a_stranger_to_the_session(rig: Rig) -> None:
    browser = Browser(rig)
    browser.log_in(rig.server.token, "Cleo")
    assert browser.post("logout").status == 200
    assert browser.post("label", {"row": 1, "label": "accept"}).status == 403


def test_a_wrong_token_is_refused_and_audited(rig: Rig) -> None:
    assert Browser(rig).log_in("not the token").status == 401
    assert audited(rig)[-1]["status"] == 401


@pytest.mark.parametrize(
    "words",
    [
        {"part": "ffff-4294967295", "label": "accept"},
        {"part": "../../etc/passwd", "label": "accept"},
        {"part": "1 OR 1=1", "label": "accept"},
        {"row": 2**70, "label": "accept"},
        {"row": True, "label": "accept"},
        {"row": 1, "label": "scrap"},
        {"row": 1, "label": "accept", "comment": "x" * 501},
        {"row": 1, "label": "accept", "by": "a\nb"},
        {"row": 1, "label": "accept", "saw": "yes"},
        ["row", 1],
    ],
    ids=str,
)
def test_a_label_of_nothing_is_refused_with_a_sentence(browser: Browser, rig: Rig, words: Any) -> None:
    before = len(said(rig, 1))
    answer = browser.post("label", words)
    assert answer.status in (400, 404) and len(answer.error) > 10
    assert len(said(rig, 1)) == before
    assert audited(rig)[-1]["status"] == answer.status


def test_an_undo_takes_back_once(browser: Browser, rig: Rig) -> None:
    number = browser.post("label", {"row": a_part(rig).id, "label": "cannot_tell"}).json()["number"]
    assert browser.post("undo", {"number": number}).status == 200
    again = browser.post("undo", {"number": number})
    assert (again.status, "was taken back already" in again.error) == (400, True)


@pytest.mark.parametrize(
    "path",
    ["/static/../routes.py", "/static/%2e%2e/routes.py", "/static//etc/passwd", "/static/messages/../../acts.py",
     "/api/parts/999999999/picture", "/api/parts/1/picture?w=321", "/api/view/..%2fserve.token"],
)  # fmt: skip
def test_no_path_leads_out_of_what_is_shown(rig: Rig, path: str) -> None:
    assert rig.server.get(path).status in (400, 404)
