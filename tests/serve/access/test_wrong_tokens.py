"""Wrong tokens are counted against their address, and lock nobody else out of it."""

from __future__ import annotations

from edge_runtime.serve.access.recognise import TRIES_AT_ONCE
from tests.serve.http_box import box

JSON = {"Content-Type": "application/json"}


def test_wrong_tokens_do_not_lock_the_right_one_out_of_its_address(tmp_path) -> None:
    with box(tmp_path) as running:
        told = [running.get("/v2", Authorization="Bearer guessed").status for _ in range(TRIES_AT_ONCE + 3)]
        assert told[:TRIES_AT_ONCE] == [401] * TRIES_AT_ONCE and 429 in told
        assert running.get("/v2", Authorization=f"Basic {running.token}").status in (401, 429)
        assert running.get("/v2", Authorization=f"Bearer {running.token}").status == 200


def test_wrong_tokens_on_the_login_page_do_not_lock_the_right_one_out(tmp_path) -> None:
    with box(tmp_path) as running:

        def log_in(token: str) -> int:
            return running.post("/api/login", {"token": token}, JSON).status

        assert 429 in [log_in("guessed") for _ in range(TRIES_AT_ONCE + 3)]
        assert log_in(running.token) == 200
