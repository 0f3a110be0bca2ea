"""An update repository as TUF has it, read from its folder, changed, signed and written back.

    DIR/root.json                       the first root, for boxes to trust
    DIR/metadata/N.root.json ...        N.snapshot.json, N.targets.json, N.site-SITE.json, timestamp.json
    DIR/targets/SITE/SHA256.NAME.tar    the bundle of the newest release of a model for a site

Targets `all/*` are signed by `targets` itself; those of a site by a role of its own, `site-SITE`, which may sign for
`SITE/*` alone. A signed timestamp tells when it was made (`made`): boxes without a clock learn the time from it.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from repo_keys import Keys, RepoError
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edge_runtime.core.files import write_atomic
from edge_runtime.modelstore.bundle import Bundle, load_bundle, pack_bundle, unpack_bundle

ROOT_DAYS = 3650  # boxes live for ten years, and a root that expires bricks nothing but stops updates
TARGETS_DAYS = 1825
SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
EVERYWHERE = "all"
ONLINE = ("snapshot", "timestamp")

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)
Utc = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Added:
    label: str
    release: int


class UpdateRepository:
    """One repository. Each verb reads what is there and writes what comes of it; `add` is not seen before `sign`."""

    def __init__(self, folder: Path, keys: Keys, utc: Utc = lambda: datetime.now(UTC)) -> None:
        self._folder, self._keys, self._utc = folder, keys, utc
        self._metadata = folder / "metadata"

    # -- the verbs ----------------------------------------------------------------------------------------------------

    def init(self, root_keys: int, threshold: int) -> None:
        if not 1 <= threshold <= root_keys <= 16:
            raise RepoError(f"{threshold} of {root_keys} root keys cannot be; take 2 of 3, and 16 at most")
        if self._metadata.exists():
            raise RepoError(f"{self._folder} holds a repository already; take another folder")
        root = Root(expires=self._in(ROOT_DAYS), consistent_snapshot=True)
        signers = [self._keys.make(f"root-{number}") for number in range(1, root_keys + 1)]
        for signer in signers:
            root.add_key(signer.public_key, "root")
        root.roles["root"].threshold = threshold
        for role in ("targets", *ONLINE):
            root.add_key(self._keys.make(f"{role}-1").public_key, role)
        self._write_root(Metadata(root), [f"root-{number}" for number in range(1, root_keys + 1)])
        shutil.copy(self._metadata / "1.root.json", self._folder / "root.json")
        self._write("targets", Metadata(Targets()))
        self._publish({"targets"}, 30)
        self._drop_drafts()

    def add(self, source: Path, site: str, release: int | None = None) -> Added:
        """Place a bundle as the newest release of its model for a site, unsigned yet."""
        if not SITE.fullmatch(site):
            raise RepoError(f"{site!r} is no site; write letters, digits, dots and dashes, as station.site has it")
        with tempfile.TemporaryDirectory() as work:
            bundle = load_bundle(source) if source.is_dir() else unpack_bundle(source, Path(work, "bundle"))
            number = self._next_release(bundle.manifest.name, release)
            packed = Path(work, "bundle.tar")
            pack_bundle(bundle, packed)
            target = self._place(packed, bundle, site, number)
        role = self._role_of(site)
        metadata = self._drafted(role)
        metadata.signed.targets[target.path] = target
        self._draft(role).parent.mkdir(exist_ok=True)
        write_atomic(self._draft(role), metadata.to_bytes())
        return Added(bundle.label, number)

    def sign(self, days: float) -> list[str]:
        """Sign everything that was added, then the snapshot and the time. What was signed, by name."""
        drafts = self._drafts()
        changed: set[str] = set()
        for role in drafts:
            changed.add(role)
            if role != "targets" and self._delegate(role):
                changed.add("targets")
        self._publish(changed, days)
        self._drop_drafts()
        return [*sorted(changed), *ONLINE]

    def refresh(self, days: float) -> datetime:
        """The snapshot and the time anew; the offline keys stay where they are."""
        self._publish(set(), days)
        return self._read("timestamp", Timestamp).signed.expires

    def rotate_root(self, role: str) -> int:
        """The next root, signed by the keys before and by those after. The keys of `role` are replaced by new ones."""
        root = self._read("root", Root)
        if role not in root.signed.roles:
            raise RepoError(f"{role!r} is no role of the root; it has {', '.join(root.signed.roles)}")
        before = self._names_in(root.signed, "root")
        gone = list(root.signed.roles[role].keyids)
        latest = max(int(name.rpartition("-")[2]) for name in self._keys.names(role))
        for number, keyid in enumerate(gone, latest + 1):
            root.signed.revoke_key(keyid, role)
            root.signed.add_key(self._keys.make(f"{role}-{number}").public_key, role)
        root.signed.version += 1
        root.signed.expires = self._in(ROOT_DAYS)
        self._write_root(root, [*before, *self._names_in(root.signed, "root")])
        if role != "root":
            self._publish({"targets"} if role == "targets" else set(), 30)
        return root.signed.version

    def lines(self) -> list[str]:
        root = self._read("root", Root).signed
        role = root.roles["root"]
        timestamp = self._read("timestamp", Timestamp).signed
        lines = [f"root {root.version}: {role.threshold} of {len(role.keyids)} keys, until {root.expires:%Y-%m-%d}",
                 f"signed until {timestamp.expires:%Y-%m-%d %H:%M} UTC"]  # fmt: skip
        for name in self._target_roles():
            signed = self._read(name, Targets).signed
            for path, target in sorted(signed.targets.items()):
                custom = target.custom or {}
                lines.append(
                    f"{path:<40} {custom.get('version')}  release {custom.get('release')}  {target.length} bytes"
                )
        return lines

    # -- signing ------------------------------------------------------------------------------------------------------

    def _publish(self, changed: set[str], days: float) -> None:
        """New versions of the roles that changed, then snapshot and timestamp: the last file makes all of it seen."""
        if not 0 < days <= ROOT_DAYS:
            raise RepoError(f"{days:g} days cannot be; take from a day to ten years")
        snapshot = self._read("snapshot", Snapshot) if self._newest("snapshot") else Metadata(Snapshot())
        for role in sorted(changed):
            metadata = self._drafted(role)
            metadata.signed.version = self._version(role) + 1
            metadata.signed.expires = self._in(TARGETS_DAYS)
            self._sign(metadata, self._signers(role))
            content = metadata.to_bytes()
            self._put(f"{metadata.signed.version}.{role}.json", content)
            snapshot.signed.meta[f"{role}.json"] = MetaFile.from_data(metadata.signed.version, content, ["sha256"])
        snapshot.signed.version = self._version("snapshot") + 1
        snapshot.signed.expires = self._in(days)
        self._sign(snapshot, self._signers("snapshot"))
        content = snapshot.to_bytes()
        self._put(f"{snapshot.signed.version}.snapshot.json", content)
        timestamp = self._read("timestamp", Timestamp) if self._newest("timestamp") else Metadata(Timestamp())
        timestamp.signed.version = timestamp.signed.version + 1 if self._newest("timestamp") else 1
        timestamp.signed.expires = self._in(days)
        timestamp.signed.snapshot_meta = MetaFile.from_data(snapshot.signed.version, content, ["sha256"])
        timestamp.signed.unrecognized_fields["made"] = self._utc().replace(microsecond=0).isoformat()
        self._sign(timestamp, self._signers("timestamp"))
        self._put("timestamp.json", timestamp.to_bytes())

    def _write_root(self, root: Metadata[Root], names: list[str]) -> None:
        root.signatures.clear()
        for name in dict.fromkeys(names):
            if self._keys.has(name):  # a threshold of them is enough, the others may lie in another safe
                root.sign(self._keys.signer(name), append=True)
        try:
            root.verify_delegate("root", root)
        except RepositoryError as err:
            raise RepoError(f"not enough root keys lie in {self._keys.folder}: {err}; bring more of them") from err
        self._put(f"{root.signed.version}.root.json", root.to_bytes())

    def _sign(self, metadata: Metadata[T], names: list[str]) -> None:
        metadata.signatures.clear()
        for name in names:
            metadata.sign(self._keys.signer(name), append=True)

    def _signers(self, role: str) -> list[str]:
        if role in ("targets", *ONLINE):
            return self._names_in(self._read("root", Root).signed, role)
        return [f"{role}"]

    def _names_in(self, root: Root, role: str) -> list[str]:
        """Names of the key files that stand in a root for a role, of those that are here."""
        wanted = set(root.roles[role].keyids)
        found = [name for name in self._keys.names(role) if self._keys.signer(name).public_key.keyid in wanted]
        if not found:
            raise RepoError(f"no key of {role} lies in {self._keys.folder}; bring one, or name its folder with --keys")
        return found

    def _delegate(self, role: str) -> bool:
        """A site that is new gets a key and a place in `targets`. False where it has them."""
        targets = self._drafted("targets")
        delegations = targets.signed.delegations or Delegations({}, {})
        roles = delegations.roles if delegations.roles is not None else {}
        if role in roles:
            return False
        site = role.removeprefix("site-")
        signer = self._keys.signer(role) if self._keys.has(role) else self._keys.make(role)
        delegations.roles = roles
        roles[role] = DelegatedRole(role, [], 1, terminating=True, paths=[f"{site}/*"])
        targets.signed.delegations = delegations
        targets.signed.add_key(signer.public_key, role)
        self._draft("targets").parent.mkdir(exist_ok=True)
        write_atomic(self._draft("targets"), targets.to_bytes())
        return True

    # -- files --------------------------------------------------------------------------------------------------------

    def _place(self, packed: Path, bundle: Bundle, site: str, release: int) -> TargetFile:
        name = f"{site}/{bundle.manifest.name}.tar"
        target = TargetFile.from_file(name, str(packed), ["sha256"])
        custom = {"version": bundle.manifest.version, "release": release, "digest": bundle.digest}
        target.unrecognized_fields["custom"] = custom
        place = self._folder / "targets" / site / f"{target.hashes['sha256']}.{bundle.manifest.name}.tar"
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, packed.read_bytes())
        return target

    def _next_release(self, name: str, wanted: int | None) -> int:
        """One above every release of that model for any site, signed or added."""
        highest = 0
        for role in {*self._target_roles(), *self._drafts()}:
            for path, target in self._drafted(role).signed.targets.items():
                if path.rpartition("/")[2] == f"{name}.tar":
                    highest = max(highest, int((target.custom or {}).get("release", 0)))
        if wanted is not None and wanted < highest:
            raise RepoError(f"release {wanted} is not above {highest}, which {name} has; numbers only grow")
        return highest + 1 if wanted is None else wanted

    def _target_roles(self) -> list[str]:
        snapshot = self._read("snapshot", Snapshot).signed
        return [name.removesuffix(".json") for name in snapshot.meta]

    def _role_of(self, site: str) -> str:
        return "targets" if site == EVERYWHERE else f"site-{site}"

    def _draft(self, role: str) -> Path:
        return self._folder / "drafts" / f"{role}.json"

    def _drafts(self) -> list[str]:
        return sorted(path.stem for path in self._draft("targets").parent.glob("*.json"))

    def _drafted(self, role: str) -> Metadata[Targets]:
        draft = self._draft(role)
        if draft.exists():
            return _parsed(draft, Targets)
        return self._read(role, Targets) if self._newest(role) else Metadata(Targets())

    def _drop_drafts(self) -> None:
        shutil.rmtree(self._draft("targets").parent, ignore_errors=True)

    def _version(self, role: str) -> int:
        """Of what was published last; 0: nothing yet."""
        newest = self._newest(role)
        return int(newest.name.split(".")[0]) if newest else 0

    def _newest(self, role: str) -> Path | None:
        if role == "timestamp":
            path = self._metadata / "timestamp.json"
            return path if path.exists() else None
        found = [path for path in self._metadata.glob(f"*.{role}.json") if path.name.split(".")[0].isdigit()]
        found = [path for path in found if path.name.split(".", 1)[1] == f"{role}.json"]
        return max(found, key=lambda path: int(path.name.split(".")[0]), default=None)

    def _read(self, role: str, kind: type[T]) -> Metadata[T]:
        path = self._newest(role)
        if path is None:
            raise RepoError(f"{self._folder} has no {role} metadata; first: tools/repo init {self._folder}")
        return _parsed(path, kind)

    def _write(self, role: str, metadata: Metadata[Targets]) -> None:
        self._draft(role).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._draft(role), metadata.to_bytes())

    def _put(self, name: str, content: bytes) -> None:
        self._metadata.mkdir(parents=True, exist_ok=True)
        write_atomic(self._metadata / name, content)

    def _in(self, days: float) -> datetime:
        return self._utc().replace(microsecond=0) + timedelta(days=days)


def _parsed(path: Path, kind: type[T]) -> Metadata[T]:
    try:
        metadata: Metadata[T] = Metadata.from_bytes(path.read_bytes())
    except (OSError, RepositoryError) as err:
        raise RepoError(f"{path} cannot be read: {err}; bring the repository back from a copy") from err
    if not isinstance(metadata.signed, kind):
        raise RepoError(f"{path} is no {kind.type} metadata; bring the repository back from a copy")
    return metadata
