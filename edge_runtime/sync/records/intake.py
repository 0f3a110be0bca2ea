"""What comes into the outbox: rows of the journal and posted records, in one commit with what was delivered."""

from __future__ import annotations

from edge_runtime.core.errors import StorageError
from edge_runtime.sync.outbox.queue import Queue
from edge_runtime.sync.outbox.quota import Quota
from edge_runtime.sync.outbox.settlement import Settlement
from edge_runtime.sync.records.batch import Batch
from edge_runtime.sync.records.feeder import Feeder
from edge_runtime.sync.records.posts import Posts

BEHIND_BELOW = 4000  # records waiting, above which nothing old is added


class Intake:
    """Used by the thread that owns the outbox."""

    def __init__(self, outbox: Queue, feeder: Feeder, posts: Posts, quota: Quota, settlement: Settlement) -> None:
        self._outbox = outbox
        self._feeder = feeder
        self._posts = posts
        self._quota = quota
        self._settlement = settlement

    @property
    def has_more(self) -> bool:
        """Whether it is worth turning again at once."""
        return self._feeder.has_more and not self._quota.is_full

    @property
    def is_all_delivered(self) -> bool:
        """Nothing of the journal waits, as far as this process can see."""
        feeder = self._feeder
        is_read = not (feeder.has_more or feeder.rows_behind or feeder.reads_former)
        return is_read and not (self._outbox.waiting or self._quota.is_full)

    def turn(self) -> None:
        """One slice. Raises sqlite3.Error, OSError, or StorageError of the journal: the rest is stored then."""
        posts = self._posts.take()
        batch, reading = None, None
        if not self._quota.is_full:
            try:
                batch = self._feeder.look(may_catch_up=self._outbox.waiting < BEHIND_BELOW)
            except StorageError as err:
                reading = err
        if batch or posts:
            with self._outbox.transaction():
                if batch:
                    self._feeder.commit(batch)
                self._outbox.add(posts)
                self._settlement.settle()
            self._committed(batch)
        if reading:
            raise reading

    def _committed(self, batch: Batch | None) -> None:
        if batch:
            self._feeder.committed(batch)
        self._posts.stored()
        self._settlement.settled()  # may need the disk again, and what is committed is committed
