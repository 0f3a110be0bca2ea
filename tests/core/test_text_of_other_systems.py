"""Files that a person edited on another system mean the same: marks at the start, line ends, blanks behind."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config.load import load
from edge_runtime.core.errors import ConfigError
from edge_runtime.core.files import as_text
from edge_runtime.sync.commands.signatures import is_signed, make_key, sign
from edge_runtime.sync.mqtt.tls_files import FileTrouble, read_password

SAVED = {
    "as it is": lambda text: text.encode(),
    "with a mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "mark and CRLF": lambda text: codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode(),
    "old Mac": lambda text: text.replace("\n", "\r").encode(),
    "UTF-16": lambda text: codecs.BOM_UTF16_LE + text.replace("\n", "\r\n").encode("utf-16-le"),
    "UTF-16, other order": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
}
ENDS = ("", "\n", "\n\n", "  ", "\t\n", " \n \n")
how = pytest.mark.parametrize("how", SAVED)


@how
@pytest.mark.parametrize("end", ENDS, ids=repr)
@pytest.mark.parametrize("password", ["secret", "two words", " blank before", "Straße 7", "ß€\U0001f511"])
def test_a_password_is_what_was_typed(tmp_path: Path, how: str, end: str, password: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(SAVED[how](password + end))
    assert read_password(str(file)) == password


@how
def test_a_station_file_is_the_same_station(tmp_path: Path, how: str) -> None:
    text = '[station]\nname = "Halle-7"\n\n[camera]\nfps = 7\n# Prüfstand ß\n'
    file = tmp_path / "station.toml"
    file.write_bytes(SAVED[how](text))
    loaded = load(file)
    assert loaded.config.station.name == "Halle-7" and loaded.config.camera.fps == 7


@how
def test_a_key_signs_and_is_believed(tmp_path: Path, how: str) -> None:
    private, public = make_key(tmp_path, "anna")
    for file in (private, public):
        file.write_bytes(SAVED[how](file.read_text() + "\n"))
    assert is_signed(tmp_path, "anna", b"message", sign(private, b"message"))
    assert not is_signed(tmp_path, "anna", b"another", sign(private, b"message"))


@pytest.mark.parametrize("raw", [b"\xe4\xf6\xfc", b"caf\xe9\n", b"\xff\xfea"])
def test_what_is_no_text_is_refused_in_a_sentence(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(raw)
    with pytest.raises(FileTrouble, match="not UTF-8 text"):
        read_password(str(file))
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load(file)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\ufeff")), st.sampled_from(sorted(SAVED)))
def test_any_text_comes_back_however_it_was_saved(text: str, how: str) -> None:
    assert as_text(SAVED[how](text)) == text
