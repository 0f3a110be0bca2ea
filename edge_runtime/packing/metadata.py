"""What a model file says about itself beside its graph: TFLite metadata, and files in a zip at its end.

Three ways are in use. The metadata of the TFLite Task Library is a flatbuffer (mark M001, metadata_schema.fbs) in a
buffer of the model, with normalisation and colour of the input, and names of label files that lie in a zip at the end
of the file. Ultralytics puts a zip there with one file of a dictionary: names, size, description. Others put only
labels.txt. For the child process: a foreign file is opened here.
"""

from __future__ import annotations

import ast
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_runtime.packing.flat_table import Table, root
from edge_runtime.packing.labels import MOST_LABELS, parse_labels

MODEL_MARK, METADATA_MARK = b"TFL3", b"M001"
METADATA_BUFFER = "TFLITE_METADATA"
IMAGE_PROPERTIES, NORMALIZATION = 2, 1  # kinds of the unions ContentProperties and ProcessUnitOptions
COLOURS = {1: "rgb", 2: "grey"}  # ColorSpaceType
MOST_FILE_BYTES = 4 << 20  # of a label file; that of a thousand classes has 22 kB
MOST_FILES = 20
ZIP_TROUBLE = (  # all that damage makes zipfile and what it unpacks with raise
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, ValueError, RuntimeError, NotImplementedError, EOFError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FileNotes:
    """Empty where the file does not say."""

    title: str = ""
    description: str = ""
    author: str = ""
    licence: str = ""
    labels: tuple[str, ...] = ()
    labels_from: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    colour: str = ""
    size: tuple[int, int] = (0, 0)  # width, height, where the maker wrote it down
    remarks: tuple[str, ...] = ()  # what was there and could not be read


def read_notes(content: bytes) -> FileNotes:
    """Everything that the bytes of a model file say. Never raises because of them."""
    remarks: list[str] = []
    said: dict[str, Any] = {}
    files = _zipped(content, remarks)
    try:
        said |= _from_metadata(content, files)
    except (ValueError, RecursionError) as err:
        remarks.append(f"its TFLite metadata cannot be read ({err})")
    if "labels" not in said:
        said |= _from_dictionary(files, remarks) or _from_label_file(files)
    return FileNotes(**said, remarks=tuple(remarks))


def _zipped(content: bytes, remarks: list[str]) -> dict[str, bytes]:
    """Small files of the zip at the end, by name."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return {}
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist()[:MOST_FILES]:
                if entry.file_size > MOST_FILE_BYTES:
                    remarks.append(f"{entry.filename} in its zip has {entry.file_size} bytes and was not read")
                    continue
                try:
                    with archive.open(entry) as file:
                        files[entry.filename] = file.read(MOST_FILE_BYTES)
                except ZIP_TROUBLE as err:
                    remarks.append(f"{entry.filename} in its zip cannot be read ({err})")
    except ZIP_TROUBLE as err:
        remarks.append(f"the zip at its end cannot be read ({err})")
    return files


def _from_metadata(content: bytes, files: Mapping[str, bytes]) -> dict[str, Any]:
    metadata = _metadata_table(content)
    if metadata is None:
        return {}
    said = {"title": metadata.text(0), "description": metadata.text(1), "author": metadata.text(4)}
    said["licence"] = metadata.text(5)
    found: dict[str, Any] = {key: value.strip() for key, value in said.items()}
    for graph in metadata.tables(3)[:1]:
        for tensor in graph.tables(2)[:1]:
            found |= _from_input(tensor)
        names = [file.text(0) for tensor in graph.tables(3) for file in tensor.tables(6)]
        for name in names:
            if name in files:
                found |= {"labels": parse_labels(_as_text(files[name])), "labels_from": f"{name} in the file"}
                break
    return found


def _metadata_table(content: bytes) -> Table | None:
    model = root(content, MODEL_MARK)
    buffers = model.tables(4)
    for entry in model.tables(6):
        if entry.text(0) == METADATA_BUFFER and entry.number(1) < len(buffers):
            return root(buffers[entry.number(1)].data(0), METADATA_MARK)
    return None


def _from_input(tensor: Table) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for unit in tensor.tables(4):
        options = unit.table(1) if unit.small(0) == NORMALIZATION else None
        if options is not None:
            found |= {"mean": options.floats(0), "std": options.floats(1)}
    about = tensor.table(3)
    image = about.table(1) if about is not None and about.small(0) == IMAGE_PROPERTIES else None
    if image is not None:
        found["colour"] = COLOURS.get(image.small(0), "")
    return found


def _from_dictionary(files: Mapping[str, bytes], remarks: list[str]) -> dict[str, Any]:
    """The dictionary that Ultralytics writes, as JSON or as Python prints it."""
    for name, content in files.items():
        text = _as_text(content).strip()
        if not text.startswith("{"):
            continue
        try:
            said = json.loads(text) if name.endswith(".json") else ast.literal_eval(text)
            return _from_ultralytics(said, name) if isinstance(said, dict) else {}
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as err:
            remarks.append(f"{name} in its zip cannot be read ({type(err).__name__})")
    return {}


def _from_ultralytics(said: Mapping[Any, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = said.get("names")
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    if isinstance(names, list) and 0 < len(names) <= MOST_LABELS:
        found |= {"labels": tuple(str(label).strip() for label in names), "labels_from": f"{name} in the file"}
    size = said.get("imgsz")
    if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size):
        found["size"] = (size[1], size[0])  # height comes first there
    for key, field in (("description", "title"), ("author", "author"), ("license", "licence")):
        if isinstance(said.get(key), str):
            found[field] = said[key].strip()
    return found


def _from_label_file(files: Mapping[str, bytes]) -> dict[str, Any]:
    """A lone text file whose name says what it is."""
    named = [name for name in files if name.lower().endswith(".txt") and "label" in name.lower()]
    if len(named) != 1:
        return {}
    try:
        return {"labels": parse_labels(_as_text(files[named[0]])), "labels_from": f"{named[0]} in the file"}
    except ValueError:
        return {}


def _as_text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")
