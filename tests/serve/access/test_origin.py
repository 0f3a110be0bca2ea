"""Whether a request comes from the box itself, and what only looks so."""

from __future__ import annotations

import pytest

from edge_runtime.serve.access.roles import Role
from tests.serve.http_box import Answer, Box, box


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with box(tmp_path_factory.mktemp("state")) as running:
        yield running


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    """A box that trusts a proxy on itself, which the test plays."""
    with box(tmp_path_factory.mktemp("state"), 'serve.trusted_proxies=["127.0.0.1"]') as running:
        yield running


def roles(answer: Answer) -> list[str]:
    return list(answer.json()["roles"])


def test_whoever_is_on_the_box_may_do_everything(plain: Box) -> None:
    assert roles(plain.get("/api/me")) == sorted(Role)


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server", "Forwarded", "Via",
               "X-Real-IP"],
)  # fmt: skip
def test_any_header_of_a_proxy_that_is_not_named_makes_a_stranger(plain: Box, header: str) -> None:
    assert roles(plain.get("/api/me", **{header: "1"})) == []


@pytest.mark.parametrize(
    "claimed", ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1", "127.0.0.2, 127.0.0.1", "10.1.1.1, 127.0.0.2"]
)
def test_loopback_out_of_a_header_is_nobody_on_the_box(behind: Box, claimed: str) -> None:
    assert roles(behind.get("/api/me", **{"X-Forwarded-For": claimed})) == []


def test_with_loopback_login_loopback_is_asked_and_counted_as_everybody_is(tmp_path) -> None:
    with box(tmp_path, "serve.loopback_login=true", "serve.requests_per_s=2") as asked:
        assert roles(asked.get("/api/me")) == []
        assert asked.post("/v2/repository/models/nope/load", {}).status == 401
        known = {"Authorization": f"Bearer {asked.token}"}
        assert asked.post("/v2/repository/models/nope/load", {}, known).status == 404
        assert 429 in [asked.get("/healthz").status for _ in range(6)]
