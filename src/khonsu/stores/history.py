"""The table of the feed: one row for each revision, trimmed by age and size. On the store's thread.

Its oldest row is the base: the revision after which the history is whole. It is never without a row. A row is dropped
when the one after it, which then is the new base, is not to be kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from typing import Any

from attrs import frozen

from khonsu.abc.store import ChangeList
from khonsu.core.revision import Revision
from khonsu.errors import HistoryGone
from khonsu.stores.bulk import Database, insert_columns
from khonsu.stores.changes import pack, unpack
from khonsu.stores.tables import Table

SECONDS_MAX = 600.0
BYTES_MAX = 256 * 1024 * 1024

_SLACK = 0.1  # how far a limit is passed before anything is trimmed, so that not every group trims
_TRIM_ROWS_MAX = 1_000
_TRIM_BYTES_MAX = 8 * 1024 * 1024  # of one group, so that no write waits long for it
_READ_ROWS_MAX = 100
_READ_BYTES_MAX = 1024 * 1024
_ROW_BYTES = 40  # besides what is packed


@frozen
class Limits:
    """How much history is kept, whichever limit is reached first."""

    seconds_max: float = SECONDS_MAX
    bytes_max: int = BYTES_MAX


class History:
    """The table `changes` of an open state file.

    Args:
        database: The open database.
        tables: The tables of records.
        version: The version of their schema.
        limits: When it is trimmed.

    """

    def __init__(self, database: Database, tables: Mapping[str, Table], version: int, limits: Limits) -> None:
        """Read where the history begins and ends."""
        self._database = database
        self._tables = tables
        self._version = version
        self._limits = limits
        self.refresh()

    def refresh(self) -> None:
        """Read where the history begins and ends; outside of a transaction, or what that wrote is among it."""
        terms = self._sql("SELECT term, min(revision) FROM changes GROUP BY term ORDER BY revision").fetchall()
        ends = self._sql("SELECT term, revision FROM changes ORDER BY revision DESC LIMIT 1").fetchall()
        sums = self._sql("SELECT sum(length(packed)), count(*) FROM changes").fetchall()
        oldest = self._sql("SELECT at FROM changes ORDER BY revision LIMIT 1 OFFSET 1").fetchall()
        self.terms = tuple(Revision(term, number) for term, number in terms)
        """The first revision of each term."""
        self.base = self.terms[0]
        self.end = Revision(*ends[0])
        self._bytes: int = sums[0][0] + sums[0][1] * _ROW_BYTES
        self._oldest_at: float = oldest[0][0] if oldest else math.inf
        self._trims = False
        self.doubtful = False
        """Whether a commit failed since, so that nothing of it is known for sure."""

    def doubt(self) -> None:
        """Know nothing for sure: a commit failed."""
        self.doubtful = True

    def add(self, lists: Sequence[ChangeList], at: float) -> None:
        """Write change lists, at least one, and trim; call `doubt` if the transaction fails.

        Args:
            lists: The change lists, in order.
            at: The time, in seconds since 1970 UTC.

        """
        packed = [pack(found.changes) for found in lists]
        count = len(lists)
        columns = (
            ("revision", [found.revision.number for found in lists]),
            ("term", [found.revision.term for found in lists]),
            ("schema", [self._version] * count),
            ("at", [at] * count),
            ("packed", packed),
        )
        insert_columns(self._database, "changes", columns)
        self.end = lists[-1].revision
        self._bytes += sum(map(len, packed)) + count * _ROW_BYTES
        self._oldest_at = min(self._oldest_at, at)
        self._trim(at)

    def read(self, after: Revision) -> list[ChangeList]:
        """Read some of the change lists after a revision.

        Raises:
            HistoryGone: They are pruned.

        """
        if after.number < self.base.number:
            raise HistoryGone(f"the changes after revision {after} are pruned; they begin after {self.base}")
        found: list[ChangeList] = []
        size = 0
        cursor = self._sql(
            "SELECT term, revision, packed FROM changes WHERE revision > ? ORDER BY revision LIMIT ?",
            after.number,
            _READ_ROWS_MAX,
        )
        with closing(cursor):
            for term, number, packed in cursor:
                found.append(ChangeList(Revision(term, number), unpack(packed, self._tables)))
                size += len(packed)
                if size >= _READ_BYTES_MAX:
                    break
        return found

    def _trim(self, at: float) -> None:
        """Drop the oldest rows beyond the limits, a bounded number of them."""
        limits = self._limits
        large = self._bytes > limits.bytes_max
        old = self._oldest_at < at - limits.seconds_max * (1 + _SLACK)
        if not (large or old or self._trims):
            return
        rows = self._sql(
            "SELECT term, revision, at, length(packed) FROM changes ORDER BY revision LIMIT ?", _TRIM_ROWS_MAX + 1
        ).fetchall()
        bytes_kept = limits.bytes_max * (1 - _SLACK)
        dropped = freed = 0
        for (_, _, _, size), (_, _, next_at, _) in pairwise(rows):
            if self._bytes - freed <= bytes_kept and next_at >= at - limits.seconds_max:
                break
            if freed >= _TRIM_BYTES_MAX:
                break
            dropped += 1
            freed += size + _ROW_BYTES
        self._trims = dropped == _TRIM_ROWS_MAX or freed >= _TRIM_BYTES_MAX
        if dropped:
            term, number, _, _ = rows[dropped]
            self._sql("DELETE FROM changes WHERE revision < ?", number)
            self._bytes -= freed
            self.base = Revision(term, number)
            self._oldest_at = rows[dropped + 1][2] if dropped + 1 < len(rows) else at

    def _sql(self, sql: str, *parameters: object) -> Any:
        return self._database.execute_sql(sql, parameters)
