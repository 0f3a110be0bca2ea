"""Which bundle the box runs: what the slots say, and nothing else without a word.

    model.name = NAME@VERSION     that one; the start notes it in the slots
    model.name = NAME             the active one of the slots; where nobody has chosen yet:
        a box that ran before     what its journal says ran last
        else                      the newest that the product brings
        else                      nothing: an installed bundle runs when it was promoted, or named with its version

What cannot be opened, fails its golden test, or ended the process twice while it was loaded gives way to `previous`,
which is told; where there is none, the box does not start, and the controller gives every part its default. It is never
the newest or the shipped one instead: a model that nobody chose must not judge parts.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from edge_runtime.config.schema import EdgeConfig, ModelConfig
from edge_runtime.core.errors import ModelError, StorageError
from edge_runtime.modelstore.bundle import MANIFEST, Bundle, file_digest, load_bundle
from edge_runtime.modelstore.slots import Edit, Slots, Verb, held_of
from edge_runtime.modelstore.slots_file import Held, Slot
from edge_runtime.modelstore.store import ModelStore, Stored
from edge_runtime.process.child import Limits
from edge_runtime.recording.models_that_ran import models_that_ran
from edge_runtime.recording.wall_clock import machine_boot

log = logging.getLogger(__name__)

START_LIMITS = Limits(cpu_s=20, timeout_s=20.0)  # of a golden test at a start: systemd waits 60 s, and two may run
DEATHS = (
    2  # starts in one boot that ended with the process while the model was loaded: the third takes the previous one
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What runs. fault: why it is not what was chosen, or why that could not be noted; empty when all is well."""

    bundle: Bundle
    fault: str = ""
    is_counted: bool = False  # this start stands in the slots until `loaded` ends it

    @property
    def held(self) -> Held:
        return held_of(self.bundle)


class Chooser:
    """Chooses for one start of one station, and remembers it in the slots. Raises EdgeError where nothing can run."""

    def __init__(self, cfg: EdgeConfig, store: ModelStore, journal: Path) -> None:
        self._cfg = cfg.model
        self._store = store
        self._journal = journal
        self._slots = Slots(store)
        self._name, _, self._version = cfg.model.name.partition("@")

    def choose(self) -> Chosen:
        """The bundle to run, opened and tested."""
        try:
            slot = self._noted(self._slots.of(self._name))
        except StorageError as err:
            return self._as_it_ran(err)
        return self._usable(slot)

    def next_start(self) -> Held | None:
        """What the next start would run; None where it would find nothing that was chosen. Nothing is written."""
        if self._version:
            return _held(self._store.find(f"{self._name}@{self._version}"))
        slot = self._slots.of(self._name)
        if slot.active:
            return slot.active
        with suppress(ModelError):
            return self._first()[0]
        return None

    def give_way(self, chosen: Chosen, why: str) -> Chosen | None:
        """The next choice when this one could not be loaded; None where there is none."""
        with suppress(StorageError):
            slot = self._slots.of(self._name)
            if chosen.held.is_same(slot.active) and slot.previous:
                return self._usable(self._fall_back(slot, why))
        return None

    def loaded(self, chosen: Chosen) -> None:
        """The model is loaded and warm: this start was none of those that end the process."""
        if chosen.is_counted:
            self._keep(lambda slot: replace(slot, starts=0))

    # -- what is wanted -----------------------------------------------------------------------------------------------

    def _noted(self, slot: Slot) -> Slot:
        """The slot with an active version, written down where it had none or the station names another."""
        if self._version:
            return self._named(slot)
        if slot.active is None:
            held, is_default, why = self._first()
            edit: Edit = lambda slot: replace(slot, active=held, is_default=is_default)  # noqa: E731
            return self._change(slot, "set", edit, "product" if is_default else "station", why)
        if slot.is_default and not self._is_there(slot.active):
            return self._of_new_product(slot, self._store.newest_shipped(self._name))
        return slot

    def _named(self, slot: Slot) -> Slot:
        """model.name names a version: it is the station's order, but one that could not run is not tried for ever."""
        active = slot.active if slot.active and slot.active.version == self._version else None
        if active and (slot.proven or self._is_there(active)):  # proven: not the product's own
            return slot
        stored = self._store.find(f"{self._name}@{self._version}")
        held = _held(stored)
        if active:  # an update of the product may seal a version anew; what else lies in its place nobody has chosen
            return self._of_new_product(slot, stored) if stored.is_shipped else slot
        if held.is_same(slot.failed):
            return slot
        edit: Edit = lambda slot: put_to_work(slot, held, slot.active)  # noqa: E731
        return self._change(slot, "set", edit, "station", f"model.name is {self._name}@{self._version}")

    def _first(self) -> tuple[Held, bool, str]:
        """What runs where nobody has chosen yet, whether it is the product's own, and why."""
        ran = self._ran_last()
        if ran and self._is_there(ran):
            shipped = self._store.newest_shipped(self._name)
            return ran, bool(shipped and _held(shipped) == ran), "it ran before versions were chosen"
        shipped = self._store.newest_shipped(self._name)
        if shipped:
            return _held(shipped), True, "it came with the product"
        newest = self._store.find(self._name)  # raises for a name that is not there at all
        raise ModelError(
            f"{newest.label} is installed and was never put to work",
            f"edge-runtime models stage {newest.label} && "
            f'edge-runtime models promote, or set model.name = "{newest.label}"',
        )

    def _of_new_product(self, slot: Slot, shipped: Stored | None) -> Slot:
        """What ran was the product's, and an update brought another in its place: that one runs now, and is told."""
        if shipped is None:
            return slot
        held = _held(shipped)
        edit: Edit = lambda slot: replace(slot, active=held)  # noqa: E731
        return self._change(slot, "set", edit, "product", "this version of the product brings it")

    def _as_it_ran(self, err: StorageError) -> Chosen:
        """Slots that cannot be known: what ran last goes on, the very same bundle, and it is told."""
        ran = self._ran_last()
        if ran is None or (self._version and ran.version != self._version):
            raise err
        try:
            bundle = self._store.open_exactly(self._name, ran.version, ran.digest)
        except ModelError:
            raise err from None
        log.error("model.slots %s; %s runs as it did last", err, bundle.label)
        return Chosen(bundle, f"{err}; {bundle.label} runs as it did last")

    def _ran_last(self) -> Held | None:
        for label, digest in models_that_ran(self._journal):
            name, _, version = label.partition("@")
            if name == self._name and version:
                return Held(version, digest)
        return None

    # -- whether it can run -------------------------------------------------------------------------------------------

    def _usable(self, slot: Slot) -> Chosen:
        while True:
            if slot.active is None:
                raise ModelError(f"{self._name} has no active version", "stage one and promote it")
            try:
                return self._tested(slot, slot.active)
            except (ModelError, StorageError) as err:
                if slot.previous is None:
                    raise
                slot = self._fall_back(slot, str(err))

    def _tested(self, slot: Slot, held: Held) -> Chosen:
        boot = machine_boot()
        died = slot.starts if slot.boot == boot else 0  # a power cut is not the model's fault
        if died >= DEATHS and slot.previous:
            raise ModelError(f"{self._name}@{held.version} ended the process {died} times while it was loaded")
        is_counted = slot.previous is not None
        if is_counted:
            self._keep(lambda now: replace(now, starts=died + 1, boot=boot))
        bundle = self._store.open_exactly(self._name, held.version, held.digest)
        proof = "" if self._store.is_shipped(bundle) else proof_of(bundle, self._cfg)  # the product was tested with it
        if proof not in ("", slot.proven):
            refuse_untested(bundle, self._cfg, START_LIMITS)
        noted = held_of(bundle)
        if (slot.proven, slot.active) != (proof, noted):
            self._keep(lambda now: replace(now, active=noted, proven=proof))
        return Chosen(bundle, slot.fault, is_counted)

    def _fall_back(self, slot: Slot, why: str) -> Slot:
        failed, previous = slot.active, slot.previous
        assert failed is not None and previous is not None
        fault = f"{self._name}@{failed.version} could not run ({why}): {self._name}@{previous.version} runs instead"
        log.error("model.fell_back %s", fault)

        def edit(now: Slot) -> Slot:
            return replace(
                now, active=previous, previous=None, candidate=now.candidate or failed, failed=failed, fault=fault,
                starts=0, proven="", is_default=False,
            )  # fmt: skip

        return self._change(slot, "fell_back", edit, "box", why)

    def _is_there(self, held: Held) -> bool:
        return not _is_gone(self._store, self._name, held)

    def _change(self, slot: Slot, verb: Verb, edit: Edit, by: str, why: str) -> Slot:
        """Written down, or where that cannot be: the same for this start alone, with the reason in `fault`.

        What is `set` follows from station and product, and so again at each start: a store that cannot be written, such
        as one in a read-only image, takes nothing from it.
        """
        try:
            return self._slots.change(self._name, verb, edit, by, why)
        except StorageError as err:
            log.error("model.slots %s", err)
            after = edit(slot)
            if verb == "set":
                return after
            return replace(after, fault="; ".join(filter(None, [after.fault, f"not noted: {err}"])))

    def _keep(self, edit: Edit) -> None:
        try:
            self._slots.amend(self._name, edit)
        except StorageError as err:  # a start is not refused for what only the next start needs
            log.error("model.slots %s", err)


def would_run(reference: str, store: ModelStore) -> Stored:
    """The bundle that a station's `model.name` means now. Nothing is written.

    For who looks: where nobody has chosen, what the product brings, else the newest. Raises EdgeError.
    """
    name, _, version = reference.partition("@")
    active = None if version else Slots(store).of(name).active
    if active:
        return store.find_exactly(name, active.version, active.digest)
    shipped = None if version else store.newest_shipped(name)
    return shipped or store.find(reference)


def station_bundle(reference: str, store: ModelStore) -> Bundle:
    """The same, opened and its digests compared."""
    return _opened(would_run(reference, store))


def would_listen(reference: str, store: ModelStore) -> Bundle:
    """The bundle that `voice.model` or `sound.model` means now, opened. Nothing is written. Raises EdgeError.

    Where none was chosen, or an update took away what the product brought: of the version that the product brings,
    where the box's own wins; else the newest.
    """
    name, _, version = reference.partition("@")
    slot = Slot() if version else Slots(store).of(name)
    if slot.active and not (slot.is_default and _is_gone(store, name, slot.active)):
        return _opened(store.find_exactly(name, slot.active.version, slot.active.digest))
    shipped = None if version else store.newest_shipped(name)
    return _opened(store.find(shipped.label if shipped else reference))


def ear_bundle(reference: str, store: ModelStore) -> Bundle:
    """The same for who listens: it is noted, so that a later version of the name waits until the station names it."""
    bundle = would_listen(reference, store)
    name, held, slots = bundle.manifest.name, held_of(bundle), Slots(store)
    is_default = store.is_shipped(bundle) and "@" not in reference
    edit: Edit = lambda slot: replace(put_to_work(slot, held, slot.active), is_default=is_default)  # noqa: E731
    if not held.is_same(slots.of(name).active):
        try:
            slots.change(name, "set", edit, "product" if is_default else "station", f"it is {reference}")
        except StorageError as err:
            log.error("model.slots %s", err)
    return bundle


def _is_gone(store: ModelStore, name: str, held: Held) -> bool:
    with suppress(ModelError):
        store.find_exactly(name, held.version, held.digest)
        return False
    return True


def _opened(stored: Stored) -> Bundle:
    bundle = load_bundle(stored.folder)
    if bundle.label != stored.label:
        raise ModelError(f"{stored.folder}: the manifest calls itself {bundle.label}", "move it to where it belongs")
    return bundle


def proof_of(bundle: Bundle, cfg: ModelConfig) -> str:
    """What a passed golden test is worth: for this bundle on this runtime. Another runtime flips decisions."""
    from edge_runtime.inference.engine import pick_runtime  # numpy, which `models list` does without

    return f"{bundle.digest} {pick_runtime(cfg.runtime).label}"


def refuse_untested(bundle: Bundle, cfg: ModelConfig, limits: Limits | None = None) -> None:
    """Load it in a child process and ask its golden pictures. Raises ModelError when it does not say the same."""
    from edge_runtime.predictors.golden import check_golden  # numpy and OpenCV, 0.5 s

    problem = check_golden(bundle, cfg, limits).problem
    if problem:
        raise ModelError(f"{bundle.label} fails its own test and stays out: {problem}")


def put_to_work(slot: Slot, held: Held, running: Held | None) -> Slot:
    """`held` becomes active, what ran until now previous; what was wrong before is over."""
    previous = slot.previous if running is None or held.is_same(running) else running
    candidate = None if held.is_same(slot.candidate) else slot.candidate
    return Slot(active=held, candidate=candidate, previous=previous)


def _held(stored: Stored) -> Held:
    return Held(stored.version, file_digest(stored.folder / MANIFEST))
