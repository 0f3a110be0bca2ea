"""The rules of single metrics: what a birth must tell of each, and how data may refer to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from spb_payload import DATASET, LAST_DATATYPE, TEMPLATE, Metric, Payload
from spb_tally import Tally

INT32 = 3
QUALITIES = (0, 192, 500)
U32 = range(1 << 32)


@dataclass(slots=True)
class _Known:
    """A metric as its birth declared it, and what was last said of it."""

    device: str | None
    name: str
    has_alias: bool
    value: object
    timestamp: int


@dataclass
class Boards:
    """Everything born in this session and not born anew."""

    names: dict[tuple[str | None, str], _Known] = field(default_factory=dict)
    aliases: dict[int, _Known] = field(default_factory=dict)

    def clear(self) -> None:
        self.names.clear()
        self.aliases.clear()

    def forget(self, device: str | None) -> None:
        self.names = {key: known for key, known in self.names.items() if key[0] != device}
        self.aliases = {alias: known for alias, known in self.aliases.items() if known.device != device}


def judge_birth_metrics(tally: Tally, boards: Boards, device: str | None, payload: Payload) -> None:
    check, kind = tally.check, "dbirth" if device is not None else "nbirth"
    boards.forget(device)
    names = [metric.name.casefold() for metric in payload.metrics if metric.name]
    check(len(set(names)) == len(names), "case-sensitivity-metric-names", f"{kind.upper()} of {device or 'the node'}")
    _judge_time_order(tally, kind, payload)
    for metric in payload.metrics:
        what = f"{kind.upper()} metric {metric.name or metric.alias}"
        _judge_features(tally, metric)
        has_value = metric.value_count == 1 or metric.is_null
        holds = bool(metric.name) and metric.datatype is not None and has_value
        check(holds, f"topics-{kind}-metrics", f"{what} lacks name, datatype or value")
        holds = (metric.value_count == 1) != metric.is_null
        check(holds, f"operational-behavior-data-publish-{kind}-values", f"{what} has {metric.value_count} values")
        check(metric.datatype is not None, "payloads-metric-datatype-req", f"{what} without datatype")
        _judge_datatype(tally, what, metric)
        check(bool(metric.name), "payloads-name-requirement", f"{what} without name")
        check(metric.timestamp is not None, "payloads-name-birth-data-requirement", f"{what} without timestamp")
        if metric.properties:
            _judge_properties(tally, what, metric, is_birth=True)
        _remember(tally, boards, device, metric)


def _remember(tally: Tally, boards: Boards, device: str | None, metric: Metric) -> None:
    name = metric.name or ""
    known = _Known(device, name, metric.alias is not None, _said(metric), metric.timestamp or 0)
    boards.names[device, name] = known
    if metric.alias is None:
        return
    tally.features.add("alias")
    what = f"alias {metric.alias} of {metric.name}"
    tally.check(metric.alias not in boards.aliases, "payloads-alias-uniqueness", f"{what} is taken")
    tally.check(bool(metric.name), "payloads-alias-birth-requirement", f"{what} without name")
    boards.aliases[metric.alias] = known


def judge_data_metrics(tally: Tally, boards: Boards, device: str | None, payload: Payload) -> None:
    check = tally.check
    kind, birth = ("ddata", "dbirth") if device is not None else ("ndata", "nbirth")
    _judge_time_order(tally, birth, payload)
    if not payload.metrics:
        check(False, f"topics-{kind}-payload", f"{kind.upper()} without metrics")
    for metric in payload.metrics:
        what = f"{kind.upper()} metric {metric.name or metric.alias}"
        _judge_features(tally, metric)
        known = boards.names.get((device, metric.name)) if metric.name else boards.aliases.get(metric.alias or -1)
        check(bool(metric.name) or known is not None, "payloads-name-requirement", f"{what} has no name that is known")
        is_declared = known is not None and known.device == device
        names = f"topics-{birth}-metric-reqs operational-behavior-data-publish-{birth} topics-{kind}-payload"
        check(is_declared, names, f"{what} is not in the {birth.upper()}")
        check(metric.datatype is None, "payloads-metric-datatype-not-req", f"{what} with datatype")
        _judge_datatype(tally, what, metric)
        check(metric.timestamp is not None, "payloads-name-birth-data-requirement", f"{what} without timestamp")
        if metric.properties:
            _judge_properties(tally, what, metric, is_birth=False)
        if known is None:
            continue
        if known.has_alias:
            holds = metric.alias is not None and metric.name is None
            check(holds, "payloads-alias-data-cmd-requirement", f"{what} repeats the name")
        if not metric.is_historical:
            _judge_news(tally, birth, what, metric, known)


def _judge_news(tally: Tally, birth: str, what: str, metric: Metric, known: _Known) -> None:
    names = f"principles-rbe-recommended operational-behavior-data-publish-{birth}-change"
    tally.check(_said(metric) != known.value, names, f"{what} says {metric.value!r} again")
    stamp = metric.timestamp or 0
    order = f"operational-behavior-data-publish-{birth}-order"
    tally.check(stamp >= known.timestamp, order, f"{what} is older than what was said before")
    known.value, known.timestamp = _said(metric), stamp


def _judge_time_order(tally: Tally, birth: str, payload: Payload) -> None:
    stamps = [metric.timestamp or 0 for metric in payload.metrics if not metric.is_historical]
    order = f"operational-behavior-data-publish-{birth}-order"
    tally.check(stamps == sorted(stamps), order, "metrics of one message are not in order of time")


def _judge_datatype(tally: Tally, what: str, metric: Metric) -> None:
    if metric.datatype is not None:
        tally.check(metric.datatype in U32, "payloads-metric-datatype-value-type", f"{what}: {metric.datatype}")
        holds = 1 <= metric.datatype <= LAST_DATATYPE
        tally.check(holds, "payloads-metric-datatype-value", f"{what}: {metric.datatype}")


def _judge_features(tally: Tally, metric: Metric) -> None:
    tally.features |= {"dataset"} if metric.kind == DATASET else set()
    tally.features |= {"template"} if metric.kind == TEMPLATE else set()


def _judge_properties(tally: Tally, what: str, metric: Metric, *, is_birth: bool) -> None:
    found = metric.properties
    if found is None:
        return
    check = tally.check
    tally.features.add("property")
    names = "payloads-propertyset-keys-array-size payloads-propertyset-values-array-size"
    check(len(found.keys) == len(found.values), names, f"{what}: {len(found.keys)} keys, {len(found.values)} values")
    for key, kind, value in zip(found.keys, found.types, found.values, strict=False):
        if is_birth:
            check(kind is not None, "payloads-metric-propertyvalue-type-req", f"{what}: {key} without type")
        if kind is not None:
            check(kind in U32, "payloads-metric-propertyvalue-type-type", f"{what}: {key} of type {kind}")
            holds = 1 <= kind <= LAST_DATATYPE
            check(holds, "payloads-metric-propertyvalue-type-value", f"{what}: {key} of type {kind}")
        if key == "Quality":
            tally.features.add("quality")
            check(kind == INT32, "payloads-propertyset-quality-value-type", f"{what}: type {kind}")
            check(value in QUALITIES, "payloads-propertyset-quality-value-value", f"{what}: {value}")


def _said(metric: Metric) -> object:
    return None if metric.is_null else (metric.value, type(metric.value))
