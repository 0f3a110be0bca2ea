"""The wire codec by itself: what was asked comes back as it was, and nothing else passes for an answer."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_runtime.core.errors import ProtocolError
from edge_runtime.inference.picture_wire import (
    MOST_BYTES,
    ServedModel,
    TensorForm,
    as_served,
    as_shape,
    as_text,
    datatype_of,
    dtype_of,
    size_of,
)
from edge_runtime.serve.remote.v2_messages import HEADER_LENGTH, answer, question

DATATYPES = ["BOOL", "INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64", "FP16", "FP32", "FP64"]
SERVED = ServedModel(
    "scratch", ("7",), (TensorForm("in", "INT8", (1, 2, 2, 3)),),
    (TensorForm("heat", "FP32", (1, -1, 3)), TensorForm("count", "INT32", (1,))),
)  # fmt: skip
HEAT = np.linspace(0.0, 1.0, 6, dtype=np.float32).reshape(1, 2, 3)
COUNT = np.array([5], np.int32)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def body_of(document, *arrays):
    """A server's answer: body and headers."""
    header = json.dumps(document).encode()
    body = header + b"".join(array.tobytes() for array in arrays)
    return {HEADER_LENGTH.lower(): str(len(header))}, body


def good(**changed):
    outputs = [
        {"name": "heat", "datatype": "FP32", "shape": [1, 2, 3], "parameters": {"binary_data_size": 24}},
        {"name": "count", "datatype": "INT32", "shape": [1], "parameters": {"binary_data_size": 4}},
    ]
    return {"id": "part-1", "model_name": "scratch", "model_version": "7", "outputs": outputs, **changed}


def test_an_answer_to_the_letter_is_taken():
    said = answer(SERVED, *body_of(good(), HEAT, COUNT), "part-1")
    assert said.version == "7"
    assert np.array_equal(said.outputs[0], HEAT) and np.array_equal(said.outputs[1], COUNT)


def test_outputs_in_another_order_come_as_the_description_has_them():
    document = good()
    document["outputs"].reverse()
    said = answer(SERVED, *body_of(document, COUNT, HEAT), "part-1")
    assert np.array_equal(said.outputs[0], HEAT)


def test_outputs_as_numbers_in_json_are_taken_too():
    document = good()
    for tensor, array in zip(document["outputs"], (HEAT, COUNT), strict=True):
        del tensor["parameters"]
        tensor["data"] = array.tolist()
    said = answer(SERVED, {}, json.dumps(document).encode(), "part-1")
    assert np.array_equal(said.outputs[0], HEAT) and said.outputs[1].dtype == np.int32


@pytest.mark.parametrize(
    "data", [[1.5], [2**40], [[1], [2, 3]], ["5"], [None], [], [float("nan")], {"a": 1}, None, 5.5]
)
def test_numbers_in_json_that_are_no_such_tensor_are_refused(data):
    document = good()
    document["outputs"][1] = {"name": "count", "datatype": "INT32", "shape": [1], "data": data}
    with pytest.raises(ProtocolError):
        answer(SERVED, *body_of(document, HEAT), "part-1")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(DATATYPES), st.lists(st.integers(1, 4), max_size=4), st.binary(min_size=2048, max_size=2048))
def test_every_datatype_and_shape_makes_the_way_there_and_back(datatype, shape, noise):
    """What the question's bytes are, the answer's array is."""
    dtype = dtype_of(datatype)
    assert datatype_of(dtype) == datatype
    content = noise[: size_of(datatype, shape)]
    if dtype.kind == "b":
        content = bytes(byte & 1 for byte in content)
    served = ServedModel(
        "m", (), (TensorForm("in", datatype, tuple(shape)),), (TensorForm("in", datatype, (-1,) * len(shape)),)
    )
    body, headers = question(served, datatype, shape, content, "part-2")
    header = int(headers[HEADER_LENGTH])
    asked = json.loads(body[:header])
    assert body[header:] == content and asked["inputs"][0]["parameters"]["binary_data_size"] == len(content)
    echo = {"id": asked["id"], "model_name": "m", "outputs": asked["inputs"]}
    array = np.frombuffer(content, dtype)
    if dtype.kind == "f" and not np.isfinite(array).all():
        with pytest.raises(ProtocolError, match="no numbers"):
            answer(served, *body_of(echo, array), "part-2")
    else:
        said = answer(served, *body_of(echo, array), "part-2")
        assert said.outputs[0].tobytes() == content and said.outputs[0].shape == tuple(shape)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_a_changed_answer_is_refused_or_says_the_same_kind_of_thing(data):
    """Any byte changed, cut off or put in: an error in words, or an answer of the promised shapes, of numbers."""
    headers, body = body_of(good(), HEAT, COUNT)
    at = data.draw(st.integers(0, len(body) - 1))
    how = data.draw(st.sampled_from(["change", "cut", "add"]))
    byte = bytes([data.draw(st.integers(0, 255))])
    changed = {"change": body[:at] + byte + body[at + 1 :], "cut": body[:at], "add": body[:at] + byte + body[at:]}[how]
    try:
        said = answer(SERVED, headers, changed, "part-1")
    except ProtocolError as err:
        assert str(err).isprintable()
        return
    assert how == "change"
    assert [(array.shape, array.dtype) for array in said.outputs] == [((1, 2, 3), np.float32), ((1,), np.int32)]
    assert np.isfinite(said.outputs[0]).all()


@settings(max_examples=120, deadline=None)
@given(
    JSON, st.sampled_from(["id", "model_name", "model_version", "outputs", "outputs.0", "shape", "parameters", "name"])
)
@example({}, "outputs")
@example(True, "shape")
def test_any_json_in_any_place_of_an_answer_is_refused_or_harmless(value, where):
    document = good()
    if where in document:
        document[where] = value
    elif where == "outputs.0":
        document["outputs"][0] = value
    else:
        document["outputs"][0][where] = value
    try:
        said = answer(SERVED, *body_of(document, HEAT, COUNT), "part-1")
    except ProtocolError:
        return
    assert np.array_equal(said.outputs[0], HEAT) and len(said.version) <= 256 and said.version.isprintable()


@settings(max_examples=120, deadline=None)
@given(JSON, st.sampled_from(["name", "versions", "inputs", "outputs", "shape", "datatype"]))
def test_any_json_in_any_place_of_a_description_is_refused_or_a_description(value, where):
    document = SERVED.as_dict()
    if where in document:
        document[where] = value
    else:
        document["outputs"][0][where] = value
    try:
        served = as_served(document)
    except ProtocolError:
        return
    assert as_served(json.loads(json.dumps(served.as_dict()))) == served


@pytest.mark.parametrize("length", ["", "-1", "1e3", "9" * 5000, "0" * 20 + "9" * 5000, "0x10", "\u0661"])
def test_a_header_length_that_is_none_is_refused(length):
    _, body = body_of(good(), HEAT, COUNT)
    with pytest.raises(ProtocolError):
        answer(SERVED, {HEADER_LENGTH.lower(): length}, body, "part-1")


def test_sizes_are_bounded_before_anything_is_made_of_them():
    with pytest.raises(ProtocolError, match="at most"):
        size_of("FP64", [2**30, 2**30])
    with pytest.raises(ProtocolError):
        as_shape([2**31], "x")
    assert size_of("UINT8", [MOST_BYTES]) == MOST_BYTES
    assert len(as_text("\x1b[2J\n" + "x" * 10_000)) <= 300 and as_text("\x1b[2J").isprintable()
    assert math.prod(as_shape([], "scalar")) == 1
