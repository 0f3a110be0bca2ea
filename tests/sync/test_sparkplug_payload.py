"""Sparkplug payloads: what is written is read back, and nothing that comes in does harm."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.core.errors import ProtocolError
from edge_runtime.sync.sparkplug.payload import (
    BAD,
    GOOD,
    INTEGERS,
    QUALITY,
    DataType,
    Metric,
    Payload,
    Property,
    as_type,
    decode,
    encode,
)

U64 = st.integers(0, 2**64 - 1)
GOOD_192 = Property(DataType.INT32, GOOD)
TEXTS = (DataType.STRING, DataType.TEXT, DataType.UUID)


def values(kind: DataType) -> st.SearchStrategy[object]:
    if kind in INTEGERS:
        return st.integers(INTEGERS[kind].start, INTEGERS[kind].stop - 1)
    if kind is DataType.BOOLEAN:
        return st.booleans()
    if kind in TEXTS:
        return st.text()
    if kind in (DataType.BYTES, DataType.FILE):
        return st.binary()
    return st.floats(width=32 if kind is DataType.FLOAT else 64, allow_nan=False)


@st.composite
def typed_values(draw: st.DrawFn, kinds: list[DataType]) -> tuple[DataType, object]:
    kind = draw(st.sampled_from(kinds))
    return kind, draw(st.none() | values(kind))


@st.composite
def metrics(draw: st.DrawFn) -> Metric:
    kind, value = draw(typed_values(list(DataType)))
    plain = [kind for kind in DataType if kind not in (DataType.BYTES, DataType.FILE)]
    properties = draw(st.dictionaries(st.text(), typed_values(plain), max_size=3))
    return Metric(
        name=draw(st.none() | st.text()),
        value=value,
        datatype=kind,
        alias=draw(st.none() | U64),
        timestamp_ms=draw(st.none() | U64),
        is_historical=draw(st.booleans()),
        is_transient=draw(st.booleans()),
        properties={key: Property(kind, value) for key, (kind, value) in properties.items()},
    )


payloads = st.builds(Payload, st.lists(metrics(), max_size=4).map(tuple), st.none() | U64, st.none() | U64)


@given(payloads)
def test_a_birth_reads_back_as_it_was_written(payload: Payload) -> None:
    assert decode(encode(payload)) == payload


@given(metrics())
def test_data_without_datatype_is_whole_once_the_birth_is_asked(metric: Metric) -> None:
    [read] = decode(encode(Payload([metric]), is_birth=False)).metrics
    assert read.datatype is None
    assert as_type(read.value, metric.datatype or 0) == metric.value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_payload_or_a_protocol_error(data: bytes) -> None:
    try:
        decode(data)
    except ProtocolError:
        pass


@given(payloads, st.data())
def test_a_damaged_payload_is_read_or_refused(payload: Payload, draw: st.DataObject) -> None:
    data = bytearray(encode(payload))
    for _ in range(min(3, len(data))):
        data[draw.draw(st.integers(0, len(data) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    try:
        decode(bytes(data))
    except ProtocolError:
        pass


@given(U64)
def test_numbers_of_64_bits_read_back(value: int) -> None:
    assert decode(encode(Payload((), timestamp_ms=value, seq=value))) == Payload((), value, value)


@pytest.mark.parametrize("field", ["alias", "timestamp_ms"])
def test_a_number_beyond_64_bits_is_not_written(field: str) -> None:
    for value in (-1, 2**64):
        with pytest.raises(ValueError, match="range"):
            encode(Payload([Metric("x", 1, DataType.INT32, **{field: value})]))


def test_the_bytes_are_those_of_the_published_schema() -> None:
    metric = Metric("bdSeq", 7, DataType.INT64, timestamp_ms=1)
    written = encode(Payload([metric], timestamp_ms=300, seq=0))
    assert written.hex(" ") == "08 ac 02 12 0d 0a 05 62 64 53 65 71 18 01 20 04 58 07 18 00"


@pytest.mark.parametrize("raw", [0xFF, 0xFFFF_FFFF], ids=["cut to its width", "sign-extended to 32 bits"])
def test_minus_one_of_eight_bits_is_read_in_both_customs(raw: int) -> None:
    assert as_type(raw, DataType.INT8) == -1


def test_a_value_that_does_not_fit_its_datatype_is_not_written() -> None:
    for kind, value in [(DataType.UINT8, 256), (DataType.BOOLEAN, 1), (DataType.INT64, 1.5), (DataType.STRING, 3)]:
        with pytest.raises(ValueError, match=r"fit|is not a"):
            encode(Payload([Metric("x", value, kind)]))
    with pytest.raises(ValueError, match="does not fit a FLOAT"):
        encode(Payload([Metric("x", 1e300, DataType.FLOAT)]))


def test_nan_goes_through() -> None:
    [read] = decode(encode(Payload([Metric("x", math.nan, DataType.DOUBLE)]))).metrics
    assert isinstance(read.value, float) and math.isnan(read.value)


def test_quality_is_a_property() -> None:
    metric = Metric("x", 1, DataType.INT32, properties={QUALITY: Property(DataType.INT32, GOOD)})
    assert decode(encode(Payload([metric]))).metrics[0].properties[QUALITY].value == 192


def test_an_unchanged_birth_has_the_same_bytes() -> None:
    metrics = [
        Metric("b", None, DataType.DOUBLE, 1, 5, properties={QUALITY: Property(DataType.INT32, BAD)}),
        Metric("a", 2**63, DataType.UINT64, 2, 5, properties={"z": Property(DataType.STRING, "ms"), QUALITY: GOOD_192}),
    ]
    once, again = (encode(Payload(metrics, 7, 0)) for _ in range(2))
    assert once == again
    assert [metric.name for metric in decode(once).metrics] == ["b", "a"], "metrics keep their order"
    assert list(decode(once).metrics[1].properties) == ["z", QUALITY], "and so do properties"


def test_fields_that_nobody_knows_are_skipped() -> None:
    unknown = bytes.fromhex("98 06 05")  # field 99, a varint
    assert decode(unknown + encode(Payload(seq=3))) == Payload(seq=3)


def test_what_is_no_text_is_refused() -> None:
    data = bytearray(encode(Payload([Metric("name", 1, DataType.INT32)])))
    data[data.index(b"name")] = 0xFF
    with pytest.raises(ProtocolError, match=r"(?i)utf-8"):
        decode(bytes(data))


@pytest.mark.parametrize(
    "data", [b"\x00\x00", b"\x12\x05\x0a", b"\x08" + b"\xff" * 10 + b"\x01"], ids=["field 0", "cut", "long"]
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="no Sparkplug B payload"):
        decode(data)


@pytest.mark.parametrize("number", [17, 18, 19], ids=["data set", "template", "extension"])
def test_values_that_nobody_looks_into_are_kept_as_bytes(number: int) -> None:
    inner = bytes([number << 3 & 0x7F | 2 | 0x80, 1, 2, 0x08, 0x01])
    [metric] = decode(bytes([0x12, len(inner)]) + inner).metrics
    assert metric.value == b"\x08\x01"
