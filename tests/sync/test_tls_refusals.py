"""Every way in which TLS to the broker fails names the file, its key in the station file, and the fix. Real brokers."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from edge_runtime.sync.mqtt.link import MqttLink
from edge_runtime.sync.mqtt.settings import LinkSettings, TlsFiles
from edge_runtime.sync.mqtt.tls_files import FileTrouble, tls_context
from tests.support.waiting import until
from tests.sync.sync_rig import Broker, mosquitto_program, nats_program
from tests.sync.uplink_rig import BOX, ExampleBroker, edge_runtime, make_authority, station

DAY = timedelta(days=1)
PEM = serialization.Encoding.PEM
KEY = re.compile(r"sync\.(?:ca|cert|key)_file")
PKCS8 = serialization.PrivateFormat.PKCS8


def issue(folder: Path, authority: Path, stem: str, *, name: str, days: tuple[int, int], dns: str = "") -> None:
    """A certificate `stem`.pem and its key; good from and until so many days from now."""
    ca = x509.load_pem_x509_certificate((authority / "ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((authority / "ca.key").read_bytes(), None)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
    )
    if dns:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    (folder / f"{stem}.pem").write_bytes(made.sign(ca_key, hashes.SHA256()).public_bytes(PEM))
    (folder / f"{stem}.key").write_bytes(key.private_bytes(PEM, PKCS8, serialization.NoEncryption()))


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`good` is the authority of broker and box, `other` somebody else's; beside them files that are no good."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("pki")
    good = make_authority(folder / "good", BOX)
    make_authority(folder / "other", BOX)
    issue(folder, good, "broker_expired", name="localhost", days=(-9, -1), dns="localhost")
    issue(folder, good, "broker_named", name="broker.plant", days=(-9, 9), dns="broker.plant")
    issue(folder, good, "expired", name=BOX, days=(-9, -1))
    issue(folder, good, "future", name=BOX, days=(9, 19))
    (folder / "text").write_text("nothing of the kind\n")
    (folder / "folder").mkdir()
    key = serialization.load_pem_private_key((good / f"{BOX}.key").read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    (folder / "locked.key").write_bytes(key.private_bytes(PEM, PKCS8, locked))
    other_kind = rsa.generate_private_key(65537, 2048)
    (folder / "rsa.key").write_bytes(other_kind.private_bytes(PEM, PKCS8, serialization.NoEncryption()))
    return folder


@pytest.fixture(scope="module")
def ports(pki: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """mosquitto with a certificate of each kind, and one without TLS; and NATS."""
    if not mosquitto_program():
        pytest.skip("needs mosquitto")
    tls = f"cafile {pki / 'good' / 'ca.pem'}\nrequire_certificate true\ntls_version tlsv1.3\n"
    tls += "certfile {0}.pem\nkeyfile {0}.key"
    kinds = {
        "good": tls.format(pki / "good" / "broker"),
        "expired": tls.format(pki / "broker_expired"),
        "named": tls.format(pki / "broker_named"),
        "plain": "",
    }
    with ExitStack() as stack:
        found = {}
        for kind, extra in kinds.items():
            broker = Broker("mosquitto", tmp_path_factory.mktemp(kind), extra).start()
            stack.callback(broker.kill)
            found[kind] = broker.port
        if nats_program():
            nats = ExampleBroker("nats", tmp_path_factory.mktemp("nats"), pki / "good").start()
            stack.callback(nats.stop)
            found["nats"] = nats.port
        yield found


GOOD = {"ca": "good/ca.pem", "cert": f"good/{BOX}.pem", "key": f"good/{BOX}.key"}
ALIEN = {"cert": f"other/{BOX}.pem", "key": f"other/{BOX}.key"}
# broker, files that differ from good ones, file that must be named (or none), words that must be there
CASES = {
    "ca missing": ("good", {"ca": "none"}, "none", ("sync.ca_file", "no such file", "the authority that signed")),
    "ca not PEM": ("good", {"ca": "text"}, "text", ("sync.ca_file", "is no certificate in PEM form")),
    "ca a key": ("good", {"ca": "good/ca.key"}, "good/ca.key", ("sync.ca_file", "is no certificate in PEM form")),
    "ca a folder": ("good", {"ca": "folder"}, "folder", ("sync.ca_file", "is a folder")),
    "ca of another": ("good", {"ca": "other/ca.pem"}, "other/ca.pem", ("not trusted", "sync.ca_file", "signed")),
    "ca of the system": ("good", {"ca": ""}, "", ("not trusted", "set sync.ca_file")),
    "broker expired": ("expired", {}, "", ("not trusted", "has expired", "renew it at the broker", "clock")),
    "broker of another name": ("named", {}, "", ("not trusted", "sync.host = localhost", "renew it")),
    "certificate missing": ("good", {"cert": "none"}, "none", ("sync.cert_file", "no such file", "put this box's")),
    "certificate not PEM": ("good", {"cert": "text"}, "text", ("sync.cert_file", "is no certificate in PEM form")),
    "certificate a key": ("good", {"cert": GOOD["key"]}, GOOD["key"], ("sync.cert_file", "is no certificate in PEM")),
    "certificate expired": ("good", {"cert": "expired.pem", "key": "expired.key"}, "expired.pem",
                            ("sync.cert_file", "has expired", "renew it", "tools/certs client")),
    "certificate not good yet": ("good", {"cert": "future.pem", "key": "future.key"}, "future.pem",
                                 ("sync.cert_file", "not accept", "edge-runtime doctor")),
    "certificate of another authority": ("good", ALIEN, ALIEN["cert"],
                                         ("sync.cert_file", "does not know the authority that signed it")),
    "no certificate": ("good", {"cert": "", "key": ""}, "", ("wants a", "set sync.cert_file and sync.key_file")),
    "key missing": ("good", {"key": "none"}, "none", ("sync.key_file", "no such file", "put the private key")),
    "key not PEM": ("good", {"key": "text"}, "text", ("sync.key_file", "is no private key in PEM form")),
    "key a certificate": ("good", {"key": GOOD["cert"]}, GOOD["cert"], ("sync.key_file", "is no private key in PEM")),
    "key locked": ("good", {"key": "locked.key"}, "locked.key", ("sync.key_file", "passphrase", "openssl pkey -in")),
    "key of another": ("good", {"key": ALIEN["key"]}, ALIEN["key"],
                       ("sync.key_file", "does not belong to sync.cert_file", "put the key there")),
    "key of another kind": ("good", {"key": "rsa.key"}, "rsa.key",
                            ("sync.key_file", "does not belong to sync.cert_file", "put the key there")),
    "no TLS there": ("plain", {}, "", ("sync.port", "TLS", "sync.tls = false")),
    "nats: certificate of another authority": ("nats", ALIEN, ALIEN["cert"], ("sync.cert_file", "not accept")),
    "nats: no certificate": ("nats", {"cert": "", "key": ""}, "", ("set sync.cert_file and sync.key_file",)),
}  # fmt: skip


def trouble(port: int, tls: TlsFiles | None, **settings: str) -> str:
    """What keeps a link from coming up."""
    link = MqttLink(LinkSettings("localhost", port, "edge-test", tls=tls, reconnect_max_s=0.1, **settings))
    before = link.trouble

    def told() -> str:
        link.turn(0.05)
        assert not link.is_up
        return link.trouble if link.trouble != before else ""

    try:
        text = until(told)
        assert text in link.health().detail
        return str(text)
    finally:
        link.close()


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_named_with_its_key_and_the_fix(pki, ports, case):
    kind, changes, file, words = CASES[case]
    if kind not in ports:
        pytest.skip(f"no {kind} here")
    files = {name: str(pki / path) if path else "" for name, path in (GOOD | changes).items()}
    text = trouble(ports[kind], TlsFiles(**files))
    assert all(word in text for word in words), text
    if file:
        assert str(pki / file) in text
    assert set(KEY.findall(text)) == set(KEY.findall(" ".join(words))), text


def test_good_files_come_up(pki, ports):
    files = TlsFiles(**{name: str(pki / path) for name, path in GOOD.items()})
    link = MqttLink(LinkSettings("localhost", ports["good"], "edge-test", tls=files))
    try:
        until(lambda: link.turn(0.05) or link.is_up)
        assert link.trouble == ""
    finally:
        link.close()


def test_a_chain_with_words_and_the_key_in_one_file_come_up(pki, ports, tmp_path):
    both = tmp_path / "box.pem"
    parts = [(pki / GOOD["key"]).read_text(), "the box at gate 3\n", (pki / GOOD["cert"]).read_text(),
             (pki / "good" / "ca.pem").read_text()]  # fmt: skip
    both.write_text("".join(parts))
    link = MqttLink(
        LinkSettings(
            "localhost", ports["good"], "edge-test", tls=TlsFiles(str(pki / "good" / "ca.pem"), str(both), str(both))
        )
    )
    try:
        until(lambda: link.turn(0.05) or link.is_up)
    finally:
        link.close()


@pytest.mark.parametrize("protocol", ["auto", "5", "3.1.1"])
def test_plain_words_to_a_port_of_tls_are_named(ports, protocol):
    text = trouble(ports["good"], None, protocol=protocol)
    assert f"{ports['good']}" in text and "set sync.tls = true" in text


@pytest.mark.parametrize(
    ("file", "words"), [("none", "no such file"), ("folder", "is a folder"), ("binary", "is not UTF-8 text")]
)
def test_a_password_that_cannot_be_read_is_named(pki, ports, file, words):
    (pki / "binary").write_bytes(b"\xff\xfe\n")
    text = trouble(ports["plain"], None, username="box", password_file=str(pki / file))
    assert f"sync.password_file = {pki / file}" in text and words in text


def answer_once(answer: Callable[[socket.socket], object], tls: TlsFiles) -> str:
    """What a link says that meets somebody who is no broker of ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        text = trouble(listener.getsockname()[1], tls)
        thread.join(10)
    return text


def test_a_server_that_answers_a_tls_hello_in_plain_words_is_named():
    text = answer_once(lambda peer: (peer.recv(4096), peer.sendall(b"220 mail.plant ESMTP\r\n")), TlsFiles())
    assert "does not seem to speak TLS" in text and "sync.port" in text


def test_a_broker_that_knows_no_tls_1_3_is_named(pki):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.load_cert_chain(pki / "good" / "broker.pem", pki / "good" / "broker.key")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    text = answer_once(lambda peer: old.wrap_socket(peer, server_side=True), TlsFiles(str(pki / "good" / "ca.pem")))
    assert "does not speak TLS 1.3" in text and not KEY.search(text)


@pytest.mark.parametrize("content", [b"", bytes(range(256)), "-----BEGIN CERTIFICATE-----\nü\n".encode()])
def test_a_file_of_anything_is_no_certificate(tmp_path, content):
    file = tmp_path / "ca.pem"
    file.write_bytes(content)
    with pytest.raises(FileTrouble, match=r"sync\.ca_file = .* is no certificate in PEM form"):
        tls_context(TlsFiles(str(file)))


def test_a_comment_beside_a_certificate_may_be_in_any_language(pki, tmp_path):
    file = tmp_path / "ca.pem"
    file.write_bytes("Prüfstelle Süd\n".encode() + (pki / GOOD["ca"]).read_bytes())
    assert tls_context(TlsFiles(str(file))).get_ca_certs()


def test_a_file_that_may_not_be_read_is_named(pki, monkeypatch):
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(
        FileTrouble, match=r"sync\.ca_file = /etc/ca\.pem cannot be read \(Permission denied\): .* chown"
    ):
        tls_context(TlsFiles("/etc/ca.pem"))


def test_the_command_ends_with_the_sentence_and_asks_no_passphrase(pki, ports, tmp_path):
    files = {"ca_file": pki / GOOD["ca"], "cert_file": pki / GOOD["cert"], "key_file": pki / "locked.key"}
    file = station(tmp_path, {"host": "localhost", "port": ports["good"], "tls": True,
                              **{key: str(path) for key, path in files.items()}})  # fmt: skip
    done = edge_runtime("sync", "--once", "--timeout", "1", "--config", str(file))
    assert done.returncode == 1 and "pass phrase" not in done.stderr
    assert f"sync.key_file = {pki / 'locked.key'} is locked by a passphrase" in done.stderr
