"""What a file says about itself, in each of the ways in use, and damaged in every way."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.core.errors import UsageError
from edge_runtime.packing.labels import label_names, parse_labels
from edge_runtime.packing.metadata import METADATA_BUFFER, read_notes
from tests.support import spot_models
from tests.support.tflite_files import Model

PLAIN = spot_models.classifier()


def with_zip(files: Mapping[str, str], content: bytes = PLAIN) -> bytes:
    buffer = io.BytesIO(content)
    buffer.seek(0, 2)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


# -- a flatbuffer of metadata, written field by field ----------------------------------------------------------------


def table(fields: Mapping[int, bytes | int]) -> bytes:
    """A table whose fields are bytes (an object behind an offset) or numbers of one byte; its children follow it."""
    count = max(fields, default=-1) + 1
    size = 4 + 4 * count
    places = struct.pack("<HH", 4 + 2 * count, size) + b"".join(
        struct.pack("<H", 4 + 4 * field if field in fields else 0) for field in range(count)
    )
    places += b"\0" * (-len(places) % 4)
    slots, children = b"", b""
    for field in range(count):
        value = fields.get(field, 0)
        if isinstance(value, bytes):
            target = size + len(children) + (0 if value[:4] != TABLE else struct.unpack("<I", value[4:8])[0])
            children += value if value[:4] != TABLE else value[8:]
            children += b"\0" * (-len(children) % 4)
            slots += struct.pack("<I", target - (4 + 4 * field))
        else:
            slots += struct.pack("<I", value)
    body = places + struct.pack("<i", len(places)) + slots + children
    return TABLE + struct.pack("<I", len(places)) + body


TABLE = b"\xfftab"  # in front of a table while it is built: where in its bytes the table itself begins


def text(value: str) -> bytes:
    content = value.encode()
    return struct.pack("<I", len(content)) + content + b"\0"


def floats(*values: float) -> bytes:
    return struct.pack(f"<I{len(values)}f", len(values), *values)


def tables(*items: bytes) -> bytes:
    offsets, content = [], b""
    for item in items:
        begins, body = struct.unpack("<I", item[4:8])[0], item[8:]
        offsets.append(4 * len(items) + len(content) + begins)
        content += body + b"\0" * (-len(body) % 4)
    return (
        struct.pack("<I", len(items))
        + b"".join(struct.pack("<I", offset - 4 * number) for number, offset in enumerate(offsets))
        + content
    )


def root_of(item: bytes, mark: bytes) -> bytes:
    begins = struct.unpack("<I", item[4:8])[0]
    return struct.pack("<I", 8 + begins) + mark + item[8:]


def task_library_metadata() -> bytes:
    """Name, author and licence; an rgb input less 127.5 by 64; labels in things.txt of the zip."""
    normalised = table({0: 1, 1: table({0: floats(127.5), 1: floats(64.0)})})
    content = table({0: 2, 1: table({0: 1})})
    image = table({3: content, 4: tables(normalised)})
    output = table({6: tables(table({0: text("things.txt")}))})
    graph = table({2: tables(image), 3: tables(output)})
    return root_of(table({0: text("Dents"), 3: tables(graph), 4: text("A. Maker"), 5: text("MIT")}), b"M001")


def with_metadata(content: bytes) -> bytes:
    model = Model()
    graph = model.graph()
    graph.outputs(graph.input("image", (1, 64, 64, 3)))
    model.metadata(METADATA_BUFFER, content)
    return with_zip({"things.txt": "clean\ndent\n"}, model.bytes())


def test_metadata_of_the_task_library_is_read():
    notes = read_notes(with_metadata(task_library_metadata()))
    assert (notes.title, notes.author, notes.licence) == ("Dents", "A. Maker", "MIT")
    assert (notes.mean, notes.std, notes.colour) == ((127.5,), (64.0,), "rgb")
    assert notes.labels == ("clean", "dent") and notes.labels_from == "things.txt in the file"
    assert notes.remarks == ()


@pytest.mark.parametrize("name", ["metadata.json", "TEMP_META.TXT"])
def test_the_dictionary_of_ultralytics_is_read(name):
    said = {"description": "Spots", "names": {1: "spot", 0: "clean", 10: "far"}, "imgsz": [48, 64], "task": "detect"}
    written = json.dumps(said) if name.endswith("json") else repr(said)
    notes = read_notes(with_zip({name: written}))
    assert notes.labels == ("clean", "spot", "far")
    assert (notes.size, notes.title) == ((64, 48), "Spots")


def test_a_lone_label_file_is_read_and_a_plain_file_says_nothing():
    assert read_notes(with_zip({"labels.txt": "clean\nspot"})).labels == ("clean", "spot")
    assert read_notes(with_zip({"notes.txt": "clean\nspot"})).labels == ()
    assert read_notes(PLAIN).labels == () and read_notes(PLAIN).remarks == ()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_a_remark_and_never_an_exception(data):
    content = bytearray(with_metadata(task_library_metadata()))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    read_notes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    read_notes(bytes(content))


@pytest.mark.parametrize(
    "hostile",
    [
        "{'names': " + "[" * 3000 + "]" * 3000 + "}",
        "{'names': __import__('os').system('x')}",
        "{'names': {'a': 1}}",
        "{",
    ],
)
def test_a_hostile_dictionary_is_a_remark(hostile):
    notes = read_notes(with_zip({"temp_meta.txt": hostile}))
    assert notes.labels == () and "temp_meta.txt in its zip cannot be read" in notes.remarks[0]


def test_a_huge_file_in_the_zip_is_not_read():
    notes = read_notes(with_zip({"labels.txt": "x" * (5 << 20)}))
    assert notes.labels == () and "has 5242880 bytes and was not read" in notes.remarks[0]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_file_in_the_zip_is_a_remark_and_the_others_are_read(method):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("broken.txt", "no label " * 40)
        archive.writestr("labels.txt", "clean\nspot")
        begin = archive.infolist()[0].header_offset + 30 + len("broken.txt")
        end = archive.infolist()[1].header_offset
    damaged = bytearray(buffer.getvalue())
    damaged[begin:end] = bytes(255 - byte for byte in damaged[begin:end])
    notes = read_notes(bytes(damaged))
    assert notes.labels == ("clean", "spot")
    assert any("broken.txt in its zip cannot be read" in remark for remark in notes.remarks)


def test_label_files_are_read_as_people_write_them(tmp_path):
    assert parse_labels("\ufeffclean\r\nspot\r\n") == ("clean", "spot")
    assert parse_labels("0 clean\n1 big spot\n") == ("clean", "big spot")
    assert parse_labels("1 clean\n2 spot") == ("1 clean", "2 spot")
    assert parse_labels("clean\n\nspot") == ("clean", "label 1", "spot")
    (tmp_path / "names.txt").write_text("clean\nspot\n")
    assert label_names(str(tmp_path / "names.txt")) == label_names("clean, spot") == ("clean", "spot")
    assert label_names("spot") == ("spot",)
    for wrong in ("names.txt", "./names", str(tmp_path / "empty.txt")):
        (tmp_path / "empty.txt").write_text("\n")
        with pytest.raises(UsageError):
            label_names(wrong)
