"""Answers that were paid for, by the hash of their request: on disk before anyone sees them.

SQLite in WAL mode, since what is wanted is what it is: a commit is one synced append to the log; a process that is
killed in the middle of one leaves the last whole answer; two processes write in turn, and a key that both paid for is kept
once; and anyone can look inside. Lines of JSON would need a lock, a repair of the last line and an index in memory.
The file must be on a local disk: WAL shares memory between processes, which network file systems do not have.
"""

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...store.errors import DamagedError, InputError, WriteError
from ...store.reading import FOREIGN, check_path, refuse_irregular, wrong
from .reply import Reply

# what says, in its header, that a database is ours; and of which form
_MARK, _FORM = 0x76_6E_77_61, 1
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, reply TEXT NOT NULL, cost REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lost (cost REAL NOT NULL);
"""


class Cache:
    """One file of answers; threads and processes may share it."""

    def __init__(self, path: str) -> None:
        """Open a cache, or begin one.

        Raises:
            InputError: there is something else, or no local path. DamagedError: it cannot be read. WriteError: nor written.
        """
        self.path = check_path(path)
        if "://" in self.path:
            raise InputError(f"answers are kept on a local disk, not at {self.path!r}: name a local folder.")
        refuse_irregular(self.path)
        self._lock, self._asked = threading.Lock(), Counter[str]()
        self._alone: dict[str, threading.Lock] = {}
        with self._naming():
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
            self._begin()

    def get(self, key: str) -> Reply | None:
        """Return the answer to a request, or None."""
        with self._naming(), self._lock:
            row = self._db.execute("SELECT reply FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        try:
            return Reply.read(json.loads(row[0]))
        except FOREIGN as error:
            raise DamagedError(f"{self.path!r}: the answer {key} cannot be read: {wrong(error)}. {_WAY_OUT}") from error

    def put(self, key: str, reply: Reply, cost: float) -> None:
        """Keep an answer; it is on disk when this returns. Raises: WriteError."""
        with self._naming(), self._lock:
            row = (key, json.dumps(reply.plain()), cost)
            if not self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", row).rowcount:
                self._db.execute("INSERT INTO lost VALUES (?)", (cost,))  # another process paid for it, too

    def lose(self, cost: float) -> None:
        """Count what was probably paid for an answer that did not arrive."""
        if cost:
            with self._naming(), self._lock:
                self._db.execute("INSERT INTO lost VALUES (?)", (cost,))

    def spent(self) -> float:
        """Return what everything asked so far has cost, in money."""
        total = "SELECT (SELECT TOTAL(cost) FROM answers) + (SELECT TOTAL(cost) FROM lost)"
        with self._naming(), self._lock:
            return self._db.execute(total).fetchone()[0]

    def __len__(self) -> int:
        """How many answers there are."""
        with self._naming(), self._lock:
            return self._db.execute("SELECT COUNT(*) FROM answers").fetchone()[0]

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Let one thread at a time ask what has this key: the others then find its answer."""
        with self._lock:
            self._asked[key] += 1
            mine = self._alone.setdefault(key, threading.Lock())
        try:
            with mine:
                yield
        finally:
            with self._lock:
                self._asked[key] -= 1
                if not self._asked[key]:
                    del self._asked[key], self._alone[key]

    def close(self) -> None:
        """Close the file."""
        with self._naming(), self._lock:
            self._db.close()

    def _begin(self) -> None:
        mark, form = (self._db.execute(f"PRAGMA {n}").fetchone()[0] for n in ("application_id", "user_version"))
        tables = self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        if tables and (mark, form) != (_MARK, _FORM):
            raise InputError(
                f"{self.path!r} is a database, but no cache of answers of this vinnow. Name another folder."
            )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(
            f"BEGIN IMMEDIATE; PRAGMA application_id = {_MARK}; PRAGMA user_version = {_FORM}; {_TABLES} COMMIT;"
        )

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Turn what SQLite and the disk say into one line that names the file."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, (InputError, WriteError)):
                raise
            if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
                raise DamagedError(f"{self.path!r} is damaged, or no cache: {wrong(error)}. {_WAY_OUT}") from error
            raise WriteError(
                f"cannot write {self.path!r}: {wrong(error)}. Make room, or let this user write there, and run again; "
                "what is there stays."
            ) from error


_WAY_OUT = "Move it away: what it held is then asked, and paid, again."
