"""Pages that are not ours cannot make a browser write, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.serve.http_box import Box, box

LOAD = "/v2/repository/models/nope/load"
LET_IN, REFUSED = 404, 403  # such a model there is not


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with box(tmp_path_factory.mktemp("state"), 'serve.allowed_hosts=["box.example"]') as running:
        yield running


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    settings = ('serve.allowed_hosts=["box.example"]', 'serve.trusted_proxies=["127.0.0.1"]')
    with box(tmp_path_factory.mktemp("state"), *settings) as running:
        yield running


def test_a_page_of_another_port_or_scheme_of_this_box_is_a_foreign_one(plain: Box) -> None:
    own = plain.url
    assert plain.post(LOAD, {}, {"Origin": own}).status == LET_IN
    for origin in ("http://localhost:3000", "http://127.0.0.1", own.replace("http:", "https:"), own + "0", "null"):
        assert plain.post(LOAD, {}, {"Origin": origin}).status == REFUSED, origin


@pytest.mark.parametrize("site, status", [
    ("same-origin", LET_IN), ("none", LET_IN), ("same-site", REFUSED), ("cross-site", REFUSED), ("new-word", REFUSED),
])  # fmt: skip
def test_a_browser_that_names_another_site_is_refused(plain: Box, site: str, status: int) -> None:
    assert plain.post(LOAD, {}, {"Sec-Fetch-Site": site}).status == status


@pytest.mark.parametrize("origin, host, status", [
    ("https://box.example", "box.example", LET_IN),  # TLS ends in a tunnel before us
    ("https://box.example:8443", "box.example:8443", LET_IN),
    ("http://box.example:3000", "box.example", REFUSED),
    ("http://localhost:8080", "box.example:8080", REFUSED),
])  # fmt: skip
def test_a_listed_name_is_ours_by_either_scheme(plain: Box, origin: str, host: str, status: int) -> None:
    assert plain.post(LOAD, {}, {"Origin": origin, "Host": host}).status == status


@pytest.mark.parametrize("headers, is_let_in", [
    ({"X-Forwarded-Proto": "https", "X-Forwarded-Host": "box.example:8443"}, True),
    ({"X-Forwarded-Host": "elsewhere.example, box.example:8443"}, True),
    ({"X-Forwarded-Proto": "https", "X-Forwarded-Host": "box.example"}, False),
    ({}, False),
])  # fmt: skip
def test_a_trusted_proxy_says_by_which_name_it_was_asked(
    behind: Box, headers: Mapping[str, str], is_let_in: bool
) -> None:
    known = {"Origin": "https://box.example:8443", "Authorization": f"Bearer {behind.token}"}
    assert behind.post(LOAD, {}, known | headers).status == (LET_IN if is_let_in else REFUSED)


def test_a_trusted_proxy_cannot_be_asked_by_a_name_that_is_not_listed(behind: Box) -> None:
    headers = {"Origin": "https://evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    known = {"Authorization": f"Bearer {behind.token}"}
    assert behind.post(LOAD, {}, known | headers).status == REFUSED
