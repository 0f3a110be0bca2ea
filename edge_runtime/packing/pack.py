"""A .tflite file becomes a sealed bundle: looked at, asked about, tried on samples, shown, sealed, verified.

Nothing of the file is read in this process but its bytes, which are copied: each look, each picture judged and each
golden answer is a child process's (`facts`, `judging`, `predictors.golden`), which may die of it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import ModelError, UsageError
from edge_runtime.core.manifest import Thresholds
from edge_runtime.inference.engine import MAX_MODEL_BYTES
from edge_runtime.modelstore.bundle import CARD, MODEL, seal_bundle
from edge_runtime.packing.answers import Ask, Desk, Told
from edge_runtime.packing.card import card
from edge_runtime.packing.facts import Facts, look
from edge_runtime.packing.golden_set import golden_pictures
from edge_runtime.packing.judging import Judged, judge_samples
from edge_runtime.packing.limits import Limit
from edge_runtime.packing.picture_input import picture_input
from edge_runtime.packing.plan import Plan, make_plan, settle_signature, settle_size
from edge_runtime.packing.samples import find_samples
from edge_runtime.packing.sheet import draw_sheets
from edge_runtime.packing.tables import first_table, measured_table
from edge_runtime.packing.thresholds import count_of, remarks_on, settle_thresholds
from edge_runtime.packing.time_check import measured_pace
from edge_runtime.predictors.golden import add_golden, check_golden

TRUTHS = ("good", "bad", "")
LONGEST_NAME = 64
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

Progress = Callable[[str, int, int], None]  # what is being done, how many are done, of how many
Agree = Callable[[Sequence[Path], Sequence[str]], bool]  # shown these sheets and sentences, seal it?


@dataclass(frozen=True, slots=True)
class PackReport:
    """What was made. previews: contact sheets of the samples. picture_ms: median time of one on this box; fits: within
    what the station allows. remarks: what whoever uses it should know."""

    model: str
    folder: str
    digest: str
    kind: str
    settled: tuple[dict[str, str], ...]
    accept_below: float
    reject_at: float
    samples: dict[str, int]
    limit: dict[str, Any] | None
    previews: tuple[str, ...]
    golden: int
    picture_ms: float
    deadline_ms: float
    fits: bool
    remarks: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def pack(
    file: Path,
    told: Told,
    cfg: EdgeConfig,
    *,
    out: Path | None = None,
    samples: Path | None = None,
    preview: Path | None = None,
    over_reject: float = 0.01,
    ask: Ask | None = None,
    agree: Agree | None = None,
    progress: Progress | None = None,
) -> PackReport:
    """Make a bundle folder of a model file.

    out: the folder, else NAME-VERSION here. samples: pictures to try it on, see `samples`. preview: where contact
    sheets go, else OUT-samples. ask: puts a question to a person; without it, what is missing is an error. agree: asked
    before sealing. Raises ModelError for a file that cannot be used, UsageError for what was told wrongly or not at
    all.
    """
    say, desk = progress or (lambda what, done, of: None), Desk(ask)
    refuse_odd_file(file)
    name, version = told.name or _name_of(file), told.version or "1"
    if not NAME.fullmatch(name) or not NAME.fullmatch(version):
        raise UsageError(f"{name}@{version} is no name for a model", "give --name of small letters, digits and ._-")
    out = (out or Path(f"{name}-{version}")).absolute()
    if out.exists():
        raise UsageError(f"{out}: is there already", "give another --out or --version, or remove it")
    say("looking", 0, 1)
    with _workshop(out) as work:
        shutil.copyfile(file, work / MODEL)
        facts, plan = _settle(work / MODEL, file, told, cfg, desk)
        draft = seal_bundle(work, first_table(name, version, told, facts, plan, desk))
        found = find_samples(samples, plan.output) if samples else []
        judged, trial_ms = judge_samples(draft, found, cfg.model, say)
        pace = measured_pace(judged, trial_ms, cfg.decision)
        limit, thresholds = settle_thresholds(judged, told, over_reject, desk)
        table = draft.manifest.model_dump(exclude_none=True) | measured_table(plan, told, judged, limit, thresholds)
        remarks = [*pace.remarks(), *remarks_on(judged, limit, told)]
        sheets = _sheets(judged, thresholds, preview or out.with_name(f"{out.name}-samples")) if samples else []
        if agree is not None and not agree(sheets, remarks):
            raise UsageError("not sealed, as was answered", "pack it again with other options")
        (work / CARD).write_text(
            card(f"{name}@{version}", file.name, facts, plan, desk.answers, limit, count_of(judged)), encoding="utf-8"
        )
        say("sealing", 0, 1)
        pictures = golden_pictures(judged, thresholds.reject_at, plan.input)
        bundle = add_golden(seal_bundle(work, table), pictures, in_child=True)
        golden = check_golden(bundle, cfg.model)
        if golden.problem:
            raise ModelError(f"{bundle.label} does not pass its own check: {golden.problem}")
        work.rename(out)
    return PackReport(
        model=bundle.label,
        folder=str(out),
        digest=bundle.digest,
        kind=str(plan.kind),
        settled=tuple(asdict(answer) for answer in desk.answers),
        accept_below=thresholds.accept_below,
        reject_at=thresholds.reject_at,
        samples={truth or "unlabelled": count for truth in TRUTHS if (count := count_of(judged, truth))},
        limit=_limit_json(limit),
        previews=tuple(str(sheet) for sheet in sheets),
        golden=golden.pictures,
        picture_ms=pace.picture_ms,
        deadline_ms=pace.deadline_ms,
        fits=pace.fits,
        remarks=(*remarks, *filter(None, [golden.remark and f"golden pictures: {golden.remark}"])),
    )


def refuse_odd_file(file: Path) -> None:
    """What must not even be copied. Raises UsageError."""
    try:
        about = file.stat()
    except OSError as err:
        raise UsageError(f"{file}: {err.strerror or err}", "name a .tflite file") from err
    if not stat.S_ISREG(about.st_mode):
        raise UsageError(f"{file}: not a plain file", "name a .tflite file")
    if about.st_size > MAX_MODEL_BYTES:
        raise UsageError(f"{file}: {about.st_size >> 20} MB, a model has at most {MAX_MODEL_BYTES >> 20} MB")


@contextlib.contextmanager
def _workshop(out: Path) -> Iterator[Path]:
    """A hidden folder beside the bundle to be, so that it is whole or not there at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".packing-", dir=out.parent) as made:
        work = Path(made, "bundle")
        work.mkdir()
        yield work


def _settle(model: Path, file: Path, told: Told, cfg: EdgeConfig, desk: Desk) -> tuple[Facts, Plan]:
    """Look at the file as often as it takes: its signature and its size decide what there is to see."""
    try:
        facts = look(model, runtime=cfg.model.runtime)
        told = replace(told, signature=settle_signature(facts, told, desk))
        if told.signature:
            facts = look(model, signature=told.signature, runtime=cfg.model.runtime)
        picture = picture_input(facts)
        size = settle_size(facts, picture, told, desk)
        if picture.is_open:
            shape = picture.shape(*size)
            facts = look(model, signature=told.signature, input_shape=shape, runtime=cfg.model.runtime)
        plan = make_plan(facts, picture, size, told, desk)
        desk.refuse_missing(str(file))
    except ModelError as err:
        raise ModelError(f"{file}: {err.what}", err.fix) from err
    return facts, plan


def _sheets(judged: Sequence[Judged], thresholds: Thresholds, folder: Path) -> list[Path]:
    return draw_sheets(judged, thresholds.accept_below, thresholds.reject_at, folder)


def _limit_json(limit: Limit | None) -> dict[str, Any] | None:
    if limit is None:
        return None
    return asdict(limit) | {
        "over_interval": [round(end, 4) for end in limit.over_interval],
        "missed_interval": [round(end, 4) for end in limit.missed_interval] if limit.bad else None,
        "is_shown": limit.is_shown,
        "good_needed": limit.good_needed,
    }


def _name_of(file: Path) -> str:
    """The file's name as a name of a model."""
    name = re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower()).strip("-._")[:LONGEST_NAME]
    return name or "model"
