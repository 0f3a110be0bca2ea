"""`tools/certs`: what it makes is accepted, and nothing that exists is written over."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "certs"
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


def certs(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TOOL, *map(str, words)], capture_output=True, text=True, timeout=60, check=False)


def openssl(*words: str | Path) -> str:
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    assert certs("authority", tmp_path / "pki").returncode == 0
    return tmp_path / "pki"


def test_what_it_makes_is_verified_for_its_purpose_only(pki):
    assert certs("broker", pki, "broker.plant", "10.0.0.5").returncode == 0
    assert certs("client", pki, "box-1").returncode == 0
    verify = ("verify", "-CAfile", pki / "ca.pem")
    assert "OK" in openssl(*verify, "-purpose", "sslserver", "-verify_hostname", "broker.plant", pki / "broker.pem")
    assert "OK" in openssl(*verify, "-purpose", "sslserver", "-verify_ip", "10.0.0.5", pki / "broker.pem")
    assert "OK" in openssl(*verify, "-purpose", "sslclient", pki / "box-1.pem")
    assert "error" in openssl(*verify, "-purpose", "sslserver", pki / "box-1.pem")
    assert "error" in openssl(*verify, "-purpose", "sslclient", pki / "broker.pem")
    assert openssl("x509", "-in", pki / "box-1.pem", "-noout", "-subject").strip().endswith("CN = box-1")


def test_keys_are_for_their_owner_alone(pki):
    certs("client", pki, "box-1")
    assert {(pki / name).stat().st_mode & 0o777 for name in ("ca.key", "box-1.key")} == {0o600}


def test_nothing_is_written_over(pki):
    assert certs("client", pki, "box-1").returncode == 0
    before = (pki / "box-1.pem").read_bytes()
    again = certs("client", pki, "box-1")
    assert (again.returncode, "exists" in again.stderr) == (1, True)
    assert certs("authority", pki).returncode == 1
    assert (pki / "box-1.pem").read_bytes() == before


def test_a_revoked_certificate_is_in_the_list_and_others_are_not(pki):
    for name in ("box-1", "box-2"):
        certs("client", pki, name)
    assert certs("revoke", pki, "box-1").returncode == 0
    assert certs("revoke", pki, "box-1").returncode == 1
    words = ("verify", "-crl_check", "-CAfile", pki / "ca.pem", "-CRLfile", pki / "ca.crl")
    assert "revoked" in openssl(*words, pki / "box-1.pem")
    assert "OK" in openssl(*words, pki / "box-2.pem")


@pytest.mark.parametrize(
    ("words", "code"),
    [((), 2), (("nonsense", "x"), 2), (("client", "x"), 2), (("client", "x", "a/b"), 1), (("client", "x", "ca"), 1),
     (("client", "nowhere", "box-1"), 1), (("broker", "x"), 2), (("revoke", "nowhere", "box-1"), 1)],
)  # fmt: skip
def test_wrong_usage_is_a_sentence(tmp_path, words, code):
    done = subprocess.run([TOOL, *words], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == code
    assert done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
