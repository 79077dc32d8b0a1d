"""Every answer of a language model, in one SQLite file, so that no request is sent, or paid for, twice.

An answer is stored before it is used, in a transaction of its own, so a killed process loses none that it had received.
(A power cut may lose the last few, but does not damage the file.) Unusable answers are kept too, with the reason,
because they cost tokens.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import polars as pl

from chexgen_lib.language_model.answers import Answer
from chexgen_lib.language_model.protocol import Report

SCHEMA_VERSION = 1
SCHEMA = f"""
CREATE TABLE answers (
    key TEXT NOT NULL, model TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    fault TEXT, answer TEXT
) STRICT;
CREATE UNIQUE INDEX usable ON answers (key) WHERE fault IS NULL;
CREATE INDEX unusable ON answers (key) WHERE fault IS NOT NULL;
PRAGMA user_version = {SCHEMA_VERSION};
"""


class LanguageModelError(RuntimeError):
    """The language model cannot be used as requested; the message says what to do. Finished work is kept."""


class AnswerCache:
    """The answers in one file, open for one process at a time.

    Raises:
        LanguageModelError: if another process has the file open, it is no such cache, or another version of this
            library wrote it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=2, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise LanguageModelError(f"{self.path}: {error}; name a file that can be written") from error
        try:
            self._open()
        except sqlite3.Error as error:
            self._db.close()
            busy = "locked" in str(error)
            remedy = "another run is using it: wait for it" if busy else "no cache of answers: give another path"
            raise LanguageModelError(f"{self.path}: {error}; {remedy}") from error
        except LanguageModelError:
            self._db.close()
            raise

    def _open(self) -> None:
        # An exclusive lock keeps two runs from paying for the same records; the system releases it when the process
        # ends.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("BEGIN EXCLUSIVE")
        self._db.execute("COMMIT")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
            self._db.executescript(f"BEGIN;{SCHEMA}COMMIT;")
        elif version != SCHEMA_VERSION:
            raise LanguageModelError(
                f"{self.path}: version {version} of the cache, this library reads {SCHEMA_VERSION}; "
                "use the library that wrote it, or give another path (its answers are asked again)"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def report(self, key: str) -> Report | None:
        """The usable answer to a request."""
        row = self._db.execute("SELECT answer FROM answers WHERE key = ? AND fault IS NULL", (key,)).fetchone()
        return Report.model_validate_json(row[0]) if row else None

    def given_up(self, attempts: int) -> dict[str, str]:
        """Key and last fault of the requests with that many unusable answers."""
        # SQLite takes a bare column from the row of the maximum
        query = "SELECT key, fault, max(rowid) FROM answers WHERE fault IS NOT NULL GROUP BY key HAVING count(*) >= ?"
        return {key: fault for key, fault, _ in self._db.execute(query, (attempts,))}

    def add(self, key: str, model: str, answer: Answer) -> None:
        """Keep an answer; the first usable one to a key is the one that counts."""
        report = answer.report and answer.report.model_dump_json()
        row = (key, model, *answer.tokens, answer.fault, report)
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)", row)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; LanguageModelError where it cannot be written (a full disk)."""
        try:
            with self._db:
                self._db.execute("BEGIN")
                yield
        except sqlite3.Error as error:
            raise LanguageModelError(f"{self.path}: {error}; make it writable and run again") from error

    def used(self) -> pl.DataFrame:
        """Per model: answers, those of them unusable, input_tokens and output_tokens, over all runs."""
        query = (
            "SELECT model, count(*), count(fault), sum(input_tokens), sum(output_tokens) FROM answers GROUP BY model"
        )
        columns = ["model", "answers", "unusable", "input_tokens", "output_tokens"]
        schema = {c: pl.Int64 for c in columns} | {"model": pl.String}
        return pl.DataFrame(self._db.execute(query).fetchall(), schema=schema, orient="row")
