"""Answers that were paid for, by the hash of their request: on disk before anyone sees them.

And, before it is sent, that a request is: so whoever goes on after a kill knows what was under way. No client can know
whether that was answered, and so paid; all it can do is to ask again under the same `Idempotency-Key`, which an endpoint
that honours the header answers without doing, and charging, the work again.

SQLite in WAL mode, since what is wanted is what it is: a commit is one synced append to the log; a process that is
killed in the middle of one leaves the last whole answer; two processes write in turn, and a key that both paid for is kept
once; and anyone can look inside. Lines of JSON would need a lock, a repair of the last line and an index in memory.
The file must be on a local disk: WAL shares memory between processes, which network file systems do not have.
"""

import json
import secrets
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from ...store.errors import DamagedError, InputError, WriteError
from ...store.reading import FOREIGN, check_path, refuse_irregular, wrong
from .reply import Reply

# what says, in its header, that a database is ours; and of which form
_MARK, _FORM = 0x76_6E_77_61, 1
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, reply TEXT NOT NULL, cost REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lost (cost REAL NOT NULL);
CREATE TABLE IF NOT EXISTS sent (
    key TEXT PRIMARY KEY, number INTEGER NOT NULL, cost REAL NOT NULL, state INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS killed (cost REAL NOT NULL);
CREATE TABLE IF NOT EXISTS salt (value TEXT NOT NULL);
"""
# of a request that was sent and has no answer here: none came, one is awaited, or its process was killed meanwhile
_NONE, _AWAITED, _KILLED = range(3)


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

    def send(self, key: str, cost: float) -> str:
        """Note that a request is about to be sent, which may cost so much; return its `Idempotency-Key`.

        It is the hash of the request, of how many tries came to a certain end (endpoints keep and repeat errors, too), and
        of a number of this file: who deletes it to ask anew gets new answers. On disk when this returns.
        """
        note = (
            "INSERT INTO sent VALUES (?, 0, ?, ?) ON CONFLICT (key) DO UPDATE "
            "SET cost = excluded.cost, state = excluded.state RETURNING number"
        )
        with self._naming(), self._lock:
            number = self._db.execute(note, (key, cost, _AWAITED)).fetchall()[0][0]
        return sha256(f"{self._salt}:{key}:{number}".encode()).hexdigest()

    def put(self, key: str, reply: Reply, cost: float) -> None:
        """Keep an answer; it is on disk when this returns. Raises: WriteError."""
        with self._naming(), self._lock, self._at_once():
            row = (key, json.dumps(reply.plain()), cost)
            if not self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", row).rowcount:
                self._db.execute("INSERT INTO lost VALUES (?)", (cost,))  # another process paid for it, too
            self._db.execute("DELETE FROM sent WHERE key = ?", (key,))

    def lose(self, key: str, cost: float, certain: bool) -> None:
        """Note that no answer came, and what was probably paid for it.

        `certain`: the endpoint said something else in its place, so that another try is another request.
        """
        with self._naming(), self._lock, self._at_once():
            if cost:
                self._db.execute("INSERT INTO lost VALUES (?)", (cost,))
            ended = "UPDATE sent SET cost = 0, state = ?, number = number + ? WHERE key = ?"
            self._db.execute(ended, (_NONE, int(certain), key))

    def take_over(self) -> int:
        """Count as spent what was under way when a process was killed; return how many such requests have no answer yet.

        For whoever has the folder to himself: nobody else may be asking.
        """
        with self._naming(), self._lock, self._at_once():
            self._db.execute("INSERT INTO killed SELECT cost FROM sent WHERE state = ?", (_AWAITED,))
            self._db.execute("UPDATE sent SET cost = 0, state = ? WHERE state = ?", (_KILLED, _AWAITED))
            return self._db.execute("SELECT COUNT(*) FROM sent WHERE state = ?", (_KILLED,)).fetchone()[0]

    def was_under_way(self, key: str) -> bool:
        """Say whether this request was under way when a process was killed, and has had no answer since."""
        with self._naming(), self._lock:
            row = self._db.execute("SELECT state FROM sent WHERE key = ?", (key,)).fetchone()
        return row is not None and row[0] == _KILLED

    def killed(self) -> int:
        """Return how many requests were under way at kills, over all of them."""
        with self._naming(), self._lock:
            return self._db.execute("SELECT COUNT(*) FROM killed").fetchone()[0]

    def spent(self) -> float:
        """Return what everything asked so far has cost, in money; what may have been paid counts."""
        total = " + ".join(f"(SELECT TOTAL(cost) FROM {table})" for table in ("answers", "lost", "killed"))
        with self._naming(), self._lock:
            return self._db.execute(f"SELECT {total}").fetchone()[0]

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
        with self._at_once():
            new = "INSERT INTO salt SELECT ? WHERE NOT EXISTS (SELECT * FROM salt)"
            self._db.execute(new, (secrets.token_hex(16),))
            self._salt = self._db.execute("SELECT value FROM salt").fetchone()[0]

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """Have all that the body writes be there, or none of it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # a full disk may have ended it already
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

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
