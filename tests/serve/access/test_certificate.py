"""The box's own certificate, by a TLS client that verifies it: every name and address of the box, and a new one."""

from __future__ import annotations

import logging
import socket
import ssl

import pytest

from edge_runtime.config.load import load
from edge_runtime.serve.access import certificate
from edge_runtime.serve.access.certificate import Papers, own_papers, station_papers
from edge_runtime.serve.access.own_addresses import own_addresses
from tests.serve.http_box import box

OPEN = ('serve.host="0.0.0.0"', "serve.tls=true")
HOST = socket.gethostname().lower()


def config(state, *more):
    return load(None, [f'recording.state_dir="{state}"', *OPEN, *more]).config


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    with box(state, *OPEN, 'serve.allowed_hosts=["box.plant.example"]') as running:
        yield running, station_papers(config(state))


def shake_hands(running, papers: Papers, name: str, port_of: str = "127.0.0.1") -> None:
    """As a client does that was given serve.pem. Raises ssl.SSLCertVerificationError for another name."""
    context = ssl.create_default_context(cafile=str(papers.certificate))
    with socket.create_connection((port_of, running.address[1]), timeout=30) as plain:
        context.wrap_socket(plain, server_hostname=name).close()


@pytest.mark.parametrize(
    "name", ["localhost", "127.0.0.1", "::1", HOST, f"{HOST.partition('.')[0]}.local", "box.plant.example"]
)
def test_a_client_that_verifies_gets_through_by_every_name(served, name):
    shake_hands(*served, name)


def test_a_client_that_verifies_gets_through_by_every_address(served):
    for address in own_addresses():
        shake_hands(*served, address, address if ":" not in address else "127.0.0.1")


def test_an_address_of_another_machine_is_not_in_it(served):
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        shake_hands(*served, "203.0.113.9")


def test_the_addresses_are_those_the_kernel_routes_from(served):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no route to anywhere")
        assert asking.getsockname()[0] in own_addresses()


def test_a_new_address_makes_a_new_certificate_of_the_same_key_when_it_is_served(tmp_path, monkeypatch, caplog):
    cfg = config(tmp_path)
    first = station_papers(cfg, renew=True).fingerprint()
    key = station_papers(cfg).key.read_bytes()
    assert station_papers(cfg, renew=True).fingerprint() == first  # a second start changes nothing
    monkeypatch.setattr(certificate, "own_addresses", lambda: ["198.51.100.7"])
    assert station_papers(cfg).fingerprint() == first  # who only tells of it changes nothing
    with caplog.at_level(logging.WARNING):
        papers = station_papers(cfg, renew=True)
    assert papers.key.read_bytes() == key and papers.fingerprint() != first
    assert all(word in caplog.text for word in ("198.51.100.7", papers.fingerprint(), first))
    with box(tmp_path, *OPEN) as running:
        shake_hands(running, papers, "198.51.100.7")


def test_an_address_that_is_gone_costs_nobody_the_trust(tmp_path):
    before = own_papers(tmp_path, "box", ["localhost", "198.51.100.7"]).fingerprint()
    assert own_papers(tmp_path, "box", ["localhost"]).fingerprint() == before
