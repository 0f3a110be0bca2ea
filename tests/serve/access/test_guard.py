"""Who gets to the box over HTTP, and who does not."""

from __future__ import annotations

import ssl
import stat

import pytest

from edge_runtime.config.load import load
from edge_runtime.core.errors import ConfigError, StorageError
from edge_runtime.serve.access.certificate import station_papers
from edge_runtime.serve.access.token import TOKEN, box_token
from tests.serve.http_box import box


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with box(tmp_path_factory.mktemp("state")) as running:
        yield running


def test_whoever_is_on_the_box_needs_no_token(plain):
    answer = plain.get("/healthz")
    assert answer.status == 200
    assert set(answer.json()["components"]) >= {"http", "speech"}


def test_a_forwarded_stranger_is_not_on_the_box(plain):
    """A proxy that the station does not name must not open the box to everybody behind it."""
    answer = plain.get("/healthz", **{"X-Forwarded-For": "127.0.0.1"})
    assert answer.status == 200 and "components" not in answer.json()


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "", "[::1", "a b"]
)
def test_a_host_that_is_not_this_box_is_refused(plain, host):
    answer = plain.get("/healthz", Host=host)
    assert answer.status == 421 and "serve.allowed_hosts" in answer.error


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8080"])
def test_names_of_loopback_are_this_box(plain, host):
    assert plain.get("/healthz", Host=host).status == 200


def test_a_wrong_token_is_refused_also_on_loopback(plain):
    answer = plain.get("/healthz", Authorization="Bearer nonsense")
    assert answer.status == 401 and answer.headers["www-authenticate"].startswith("Bearer")
    assert "edge-runtime serve --token" in answer.error


def test_the_right_token_is_known(plain):
    assert plain.get("/healthz", Authorization=f"Bearer {plain.token}").status == 200


def test_the_token_is_its_owners_alone_and_stays(plain):
    path = plain.state / TOKEN
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert box_token(plain.state) == plain.token and len(plain.token) >= 43


def test_a_token_that_others_can_read_is_refused(tmp_path):
    box_token(tmp_path)
    (tmp_path / TOKEN).chmod(0o644)
    with pytest.raises(StorageError, match="chmod 600"):
        box_token(tmp_path)


def test_what_is_not_there_is_said_as_json(plain):
    answer = plain.get("/../../etc/passwd")
    assert answer.status == 404 and answer.error
    assert plain.ask("DELETE", "/healthz").status == 405


def test_listening_to_the_network_without_tls_is_refused_with_the_way_out():
    with pytest.raises(ConfigError, match=r"serve.tls = true|set tls = true"):
        load(None, ['serve.host="0.0.0.0"'])


def test_the_network_gets_tls_by_a_certificate_of_the_box(tmp_path):
    settings = ('serve.host="0.0.0.0"', "serve.tls=true")
    papers = station_papers(load(None, [f'recording.state_dir="{tmp_path}"', *settings]).config)
    assert stat.S_IMODE(papers.key.stat().st_mode) == 0o600
    context = ssl.create_default_context(cafile=str(papers.certificate))
    with box(tmp_path, *settings, context=context) as running:
        running.url = running.url.replace("0.0.0.0", "127.0.0.1")
        assert running.get("/healthz").json()["state"] == "ok"
        assert len(papers.fingerprint()) == 95


def test_one_address_cannot_ask_without_end(tmp_path):
    """Behind a proxy that the station trusts, each of its clients has a share of its own."""
    with box(tmp_path, 'serve.trusted_proxies=["127.0.0.1"]', "serve.requests_per_s=2") as running:
        told = [running.get("/healthz", **{"X-Forwarded-For": "10.9.9.9"}).status for _ in range(6)]
        assert told[:4] == [200] * 4 and 429 in told[4:]
        assert running.get("/healthz", **{"X-Forwarded-For": "10.9.9.8"}).status == 200
        assert "components" not in running.get("/healthz", **{"X-Forwarded-For": "10.9.9.7"}).json()


def test_the_token_may_load_and_unload_models(plain):
    known = {"Authorization": f"Bearer {plain.token}"}
    for what in ("load", "unload", "load"):
        assert plain.post(f"/v2/repository/models/scratch/{what}", {}, known).status == 200
    assert '"who": "token"' in (plain.state / "serve-audit.jsonl").read_text().splitlines()[-1]
