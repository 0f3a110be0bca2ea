"""From what was seen of a file and what was told to the specs of a bundle: what goes in, what comes out, what counts.

Each function settles one thing at the desk: told, known from the file, asked, or taken by convention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_runtime.core.errors import UsageError
from edge_runtime.core.manifest import InputSpec, Kind, OutputSpec
from edge_runtime.inference.findings import BACKGROUND
from edge_runtime.inference.segments import is_label_map
from edge_runtime.packing.answers import Desk, Question, Told
from edge_runtime.packing.facts import Facts
from edge_runtime.packing.labels import label_names, nearest, short, shown, split_names
from edge_runtime.packing.normalisation import NAMED, Numbers, from_bytes, from_mean, normalisation
from edge_runtime.packing.picture_input import PictureInput
from edge_runtime.packing.readings import Reading, are_shares, is_in_pixels, readings

ALL = "all"
MOST_PIECES = 10  # between the commas of one label; ImageNet's have at most eight
EXCLUSIVE = (Kind.CLASSIFICATION, Kind.SEGMENTATION)  # something is always one of the labels
GOOD_WORDS = {"good", "ok", "okay", "clean", "normal", "pass", "background", "none", "no_defect", "no defect", "fine"}
YOLO_BOXES = ("yolov5", "yolov8", "nms")
PIXELS_OF_DEFECT = 2000  # one of so many cells makes a defect, unless told
FEWEST_PIXELS, MOST_PIXELS = 3, 1000  # a single hot cell may be noise


@dataclass(frozen=True, slots=True)
class Plan:
    kind: Kind
    input: InputSpec
    output: OutputSpec
    signature: str


def make_plan(facts: Facts, picture: PictureInput, size: tuple[int, int], told: Told, desk: Desk) -> Plan:
    """Settle everything that the bundle's specs need. size: of the input, width and height. Raises ModelError or
    UsageError; what is missing is left at the desk."""
    found = readings(facts, size)
    labels = _labels(facts, found, told, desk)
    reading = _reading(facts, found, labels, told, desk)
    if reading.boxes == "postprocess" and reading.kind is Kind.DETECTION:
        labels = _without_ground(labels, desk)
    return Plan(
        kind=reading.kind,
        input=_input(facts, picture, size, reading, told, desk),
        output=_output(facts, size, reading, labels, told, desk),
        signature=told.signature,
    )


# -- what it is --------------------------------------------------------------------------------------------------------


def _labels(facts: Facts, found: list[Reading], told: Told, desk: Desk) -> tuple[str, ...]:
    if told.labels:
        desk.note("labels", short(told.labels), f"told by --labels, {told.labels_from}")
        return told.labels
    if facts.notes.labels:
        desk.note("labels", short(facts.notes.labels), facts.notes.labels_from)
        return facts.notes.labels
    counts = list(dict.fromkeys(str(one.labels or "some") for one in found))
    question = Question(
        "--labels", f"names of its {' or '.join(counts)} labels", "a file with one a line, or names with commas", "",
        check=label_names,
    )  # fmt: skip
    text = desk.settle(question)
    if text:
        return label_names(text)
    return tuple(f"label {number}" for number in range(found[0].labels or 1))


def _reading(facts: Facts, found: list[Reading], labels: tuple[str, ...], told: Told, desk: Desk) -> Reading:
    """The one reading that is left, by what was told, by how many labels there are, and by what values say."""
    wanted = [one for one in found if told.kind in (None, one.kind) and (not told.boxes or one.boxes == told.boxes)]
    if not wanted:
        asked = f"--kind {told.kind}" if told.kind else f"--boxes {told.boxes}"
        raise UsageError(f"{asked} does not fit: {_read_as(found)}", f"leave {asked.split(maxsplit=1)[0]} away")
    fitting = [one for one in wanted if one.labels in (None, len(labels))]
    if not fitting:
        counts = " or ".join(dict.fromkeys(str(one.labels) for one in wanted))
        raise UsageError(
            f"{len(labels)} labels were given ({short(labels)}), the model has {counts}: {_read_as(wanted)}",
            "give a label file with one line for each, background included",
        )
    first = fitting[0]
    kinds = tuple(dict.fromkeys(str(one.kind) for one in fitting))
    is_settled_by_values = are_shares(facts.seen[0])  # they sum to one, or do not
    question = Question(
        "--kind", "kind of model", "one label for each cell, or a heat of each label by itself?", kinds[0], kinds
    )
    known = str(first.kind) if len(kinds) == 1 or is_settled_by_values else ""
    chosen = desk.settle(question, str(told.kind or ""), known, first.why)
    reading = next(one for one in fitting if one.kind == chosen)
    if reading.kind is Kind.DETECTION:
        desk.note("form of its boxes", reading.boxes, "told by --boxes" if told.boxes else reading.why)
    return reading


def _read_as(found: list[Reading]) -> str:
    ways = [
        f"{one.kind}{f' ({one.boxes})' if one.kind is Kind.DETECTION else ''} of {one.labels or 'any number of'} labels"
        for one in found
    ]
    return f"it can be read as {' or '.join(ways)}"


def _without_ground(labels: tuple[str, ...], desk: Desk) -> tuple[str, ...]:
    """Label files of such detectors often begin with the background, which the operator does not count."""
    if len(labels) > 1 and labels[0].lower() in ("???", "background"):
        desk.note("first label", f"{labels[0]} left away", "TFLite_Detection_PostProcess numbers from the next one")
        return labels[1:]
    return labels


# -- what goes in ------------------------------------------------------------------------------------------------------


def _input(
    facts: Facts, picture: PictureInput, size: tuple[int, int], reading: Reading, told: Told, desk: Desk
) -> InputSpec:
    colour = _colour(facts, picture, told, desk)
    scale, offset = _numbers(facts, picture, reading, told, desk)
    is_yolo = reading.boxes in YOLO_BOXES
    fit = desk.settle(
        Question(
            "--fit", "fit", "letterbox keeps the aspect, stretch fills", "letterbox" if is_yolo else "stretch",
            ("letterbox", "stretch"), is_convention=True,
        ),
        told.fit,
    )  # fmt: skip
    table: dict[str, Any] = {
        "width": size[0], "height": size[1], "colour": colour, "scale": scale, "offset": offset, "fit": fit,
        "layout": picture.layout, "pad": "grey" if is_yolo else "black",
    }  # fmt: skip
    return InputSpec.model_validate(table)


def _colour(facts: Facts, picture: PictureInput, told: Told, desk: Desk) -> str:
    if picture.channels == 1:
        return desk.note("colour", "grey", "one channel goes in")
    known = facts.notes.colour if facts.notes.colour == "rgb" else ""
    question = Question(
        "--colour", "order of colours", "networks trained with OpenCV pictures want bgr", "rgb", ("rgb", "bgr"),
        is_convention=True,
    )  # fmt: skip
    return desk.settle(question, told.colour, known)


def _numbers(facts: Facts, picture: PictureInput, reading: Reading, told: Told, desk: Desk) -> Numbers:
    notes, known, numbers = facts.notes, "", None
    if picture.tensor.is_byte:
        numbers, known = from_bytes(picture.tensor), f"pixels as they are, {picture.tensor.dtype_name}"
    elif notes.mean:
        try:
            numbers, known = from_mean(notes.mean, notes.std), f"{_row(notes.mean)}/{_row(notes.std)}"
        except ValueError as err:
            desk.note("normalisation in the file", "not usable", str(err))
    question = Question(
        "--normalise", "normalisation", "what a pixel of 0 to 255 becomes; its training code says so",
        "0..1" if reading.boxes in YOLO_BOXES else "-1..1", tuple(NAMED), check=normalisation,
    )  # fmt: skip
    text = desk.settle(question, told.normalise, known)
    return numbers if numbers is not None and not told.normalise else normalisation(text)


# -- what comes out ----------------------------------------------------------------------------------------------------


def _output(
    facts: Facts, size: tuple[int, int], reading: Reading, labels: tuple[str, ...], told: Told, desk: Desk
) -> OutputSpec:
    table: dict[str, Any] = {"labels": labels, "defect_labels": _defects(reading, labels, told, desk)}
    if reading.kind is Kind.DETECTION:
        table["boxes"] = reading.boxes
        if reading.boxes in YOLO_BOXES:
            table["box_extent"] = _extent(facts, size, reading, labels, told, desk)
    else:
        table["activation"] = _activation(facts, reading, told, desk)
    if reading.kind in (Kind.HEATMAP, Kind.SEGMENTATION):
        cells = facts.outputs[0].size // (1 if is_label_map(facts.outputs[0]) else len(labels))
        usual = min(max(round(cells / PIXELS_OF_DEFECT), FEWEST_PIXELS), MOST_PIXELS)
        question = Question(
            "--least-pixels", "pixels of its map that make a defect", "more: less is found, noise is not",
            str(usual), is_convention=True, check=_pixels,
        )  # fmt: skip
        table["top_k"] = _pixels(desk.settle(question, str(told.least_pixels or "")))
    return OutputSpec.model_validate(table)


def _defects(reading: Reading, labels: tuple[str, ...], told: Told, desk: Desk) -> tuple[str, ...]:
    if told.good:
        _refuse_unknown(told.good, labels, "--good")
        chosen = tuple(dict.fromkeys(label for label in labels if label not in told.good))
        desk.note("defects", short(chosen), "all that --good does not name")
    elif len(labels) == 1 and not told.defects:
        desk.note("defects", labels[0], "the only label")
        chosen = labels
    else:
        guess = [label for label in labels if label.lower() not in GOOD_WORDS]
        question = Question(
            "--defect", "labels that are defects", f"labels are {short(labels)}; '{ALL}' for each of them",
            ",".join(map(shown, guess)) if len(guess) < len(labels) else ALL,
            check=lambda text: _refuse_unknown(_defects_of(text, labels), labels, "--defect"),
        )  # fmt: skip
        text = desk.settle(question, ",".join(map(shown, told.defects)))
        if question in desk.missing:
            return labels
        chosen = _every(told.defects, labels) if told.defects else _defects_of(text, labels)
    _refuse_unknown(chosen, labels, "--defect")
    if not chosen:
        raise UsageError("no label is a defect: such a model accepts every part", "name one with --defect")
    if reading.kind in EXCLUSIVE and len(labels) > 1 and set(chosen) == set(labels):
        raise UsageError(
            "every label is a defect: such a model rejects every part", "name them with --defect or --good"
        )
    ground = [label for label in chosen if label.lower() == BACKGROUND]
    if reading.kind is Kind.SEGMENTATION and ground:
        raise UsageError(
            f"label {ground[0]!r} is no defect: every part that shows some of it would be rejected",
            f"leave it out of --defect, or name it with --good {ground[0]}",
        )
    return chosen


def _defects_of(text: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    """An answer in one line, with commas between labels; those of a label's own ("tench, Tinca tinca") need no quotes
    where they are as in its name."""
    pieces = [piece for piece in split_names(text) if piece]
    names: list[str] = []
    while pieces:
        lengths = range(min(len(pieces), MOST_PIECES), 0, -1)
        length = next((length for length in lengths if ", ".join(pieces[:length]) in labels), 1)
        names.append(", ".join(pieces[:length]))
        pieces = pieces[length:]
    return _every(tuple(names), labels)


def _every(names: tuple[str, ...], labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(labels)) if names == (ALL,) and ALL not in labels else names


def _pixels(text: str) -> int:
    if not (text.isdigit() and 1 <= int(text) <= MOST_PIXELS):
        raise UsageError(f"{text!r} is no number of pixels", f"give 1 to {MOST_PIXELS}")
    return int(text)


def _refuse_unknown(names: tuple[str, ...], labels: tuple[str, ...], option: str) -> None:
    for name in names:
        if name not in labels:
            near = " or ".join(map(repr, nearest(name, labels)))
            raise UsageError(
                f"{option} {name!r} is none of its {len(labels)} labels ({short(labels)})",
                f"did you mean {near}?" if near else "name one of them",
            )


def _activation(facts: Facts, reading: Reading, told: Told, desk: Desk) -> str:
    """Shares need none; other numbers are logits."""
    if is_label_map(facts.outputs[0]):
        return desk.note("activation", "none", "numbers of labels")
    is_exclusive = reading.kind in EXCLUSIVE and reading.labels != 1
    question = Question(
        "--activation", "activation", "its outputs are no shares of 0..1, so they are logits",
        "softmax" if is_exclusive else "sigmoid", ("none", "sigmoid", "softmax"), is_convention=True,
    )  # fmt: skip
    known = "none" if are_shares(facts.seen[0]) else ""
    return desk.settle(question, told.activation, known, "its outputs are shares of 0..1")


def _extent(
    facts: Facts, size: tuple[int, int], reading: Reading, labels: tuple[str, ...], told: Told, desk: Desk
) -> tuple[float, float]:
    columns = {"yolov5": 5, "yolov8": 4}.get(reading.boxes, 0) + len(labels)
    is_turned = reading.boxes != "nms" and facts.outputs[0].shape[2] != columns
    pixels = is_in_pixels(facts.seen[0], is_turned)
    question = Question(
        "--box-unit", "unit of its boxes", "shares of 0..1, or pixels of the input?", "share", ("share", "pixel")
    )
    known = "" if pixels is None else "pixel" if pixels else "share"
    unit = desk.settle(question, told.box_unit, known, "by where its boxes lie")
    return (float(size[0]), float(size[1])) if unit == "pixel" else (1.0, 1.0)


def settle_signature(facts: Facts, told: Told, desk: Desk) -> str:
    """Which signature runs; empty for the graph as it is. Raises UsageError."""
    if told.signature:
        if told.signature not in facts.signatures:
            known = ", ".join(facts.signatures) or "none"
            raise UsageError(f"--signature {told.signature!r} is not in the file (found: {known})")
        return desk.note("signature", told.signature, "told by --signature")
    if len(facts.signatures) < 2:
        return ""
    names = facts.signatures
    question = Question("--signature", "signature", f"{len(names)} are in the file", names[0], names)
    chosen = desk.settle(question)
    desk.refuse_missing("the file")  # nothing else can be said before
    return chosen


def settle_size(facts: Facts, picture: PictureInput, told: Told, desk: Desk) -> tuple[int, int]:
    """Width and height of the input. Raises UsageError, ModelError."""
    if not picture.is_open:
        if told.size is not None and told.size != (picture.width, picture.height):
            raise UsageError(
                f"--size {told.size[0]}x{told.size[1]} does not fit: the file fixes {picture.width}x{picture.height}",
                "leave --size away",
            )
        return picture.width, picture.height
    known = facts.notes.size
    question = Question(
        "--size", "size of the input", "the file leaves it open; WIDTHxHEIGHT in training", "320x320", check=parse_size
    )
    text = desk.settle(
        question,
        f"{told.size[0]}x{told.size[1]}" if told.size else "",
        f"{known[0]}x{known[1]}" if known != (0, 0) else "",
    )
    desk.refuse_missing("the file")
    return parse_size(text)


def parse_size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT in pixels. Raises UsageError."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise UsageError(f"size {text!r} is none", "give WIDTHxHEIGHT in pixels, such as 320x320")
    return int(width), int(height)


def _row(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{number:g}" for number in numbers)
