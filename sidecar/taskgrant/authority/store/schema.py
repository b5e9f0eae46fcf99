"""The tables, and how a connection is set up.

``uses`` holds the calls that are in flight: a row is written when a use is reserved and removed when it is settled, so
that what a killed process left open can be told. Counters of a grant stand in its row.
"""

import sqlite3
from pathlib import Path
from typing import Literal

VERSION = 1

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE tasks (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, epoch TEXT NOT NULL, agent TEXT NOT NULL,
  purpose TEXT NOT NULL, state TEXT NOT NULL, created_at REAL NOT NULL, deadline REAL NOT NULL,
  created_by TEXT NOT NULL, handle_digest BLOB NOT NULL, type TEXT NOT NULL, params TEXT NOT NULL,
  on_behalf_of TEXT NOT NULL, session TEXT NOT NULL, uid INTEGER, idle_timeout REAL, last_active_at REAL,
  ended_at REAL, ended_by TEXT NOT NULL
);
CREATE INDEX tasks_state ON tasks (state);
CREATE INDEX tasks_ended ON tasks (ended_at);
CREATE TABLE grants (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, task TEXT NOT NULL, server TEXT NOT NULL,
  tools TEXT NOT NULL, schemas TEXT NOT NULL, state TEXT NOT NULL, created_at REAL NOT NULL,
  expires_at REAL NOT NULL, requested_by TEXT NOT NULL, max_uses INTEGER, idle_timeout REAL,
  reason TEXT NOT NULL, used INTEGER NOT NULL CHECK (max_uses IS NULL OR used <= max_uses),
  last_used_at REAL, ended_at REAL, ended_by TEXT NOT NULL, notes TEXT NOT NULL, approvers TEXT NOT NULL,
  activated_at REAL
);
CREATE INDEX grants_task ON grants (task);
CREATE TABLE uses (call TEXT PRIMARY KEY, grant_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE credentials (
  serial TEXT PRIMARY KEY, jti TEXT NOT NULL, task TEXT NOT NULL, server TEXT NOT NULL, grants TEXT NOT NULL,
  token_digest BLOB NOT NULL, claims TEXT NOT NULL, not_after REAL NOT NULL, revoked_at REAL
) WITHOUT ROWID;
CREATE INDEX credentials_not_after ON credentials (not_after);
CREATE TABLE freezes (kind TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE idempotency (
  principal TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, task TEXT NOT NULL, grants TEXT NOT NULL,
  at REAL NOT NULL, PRIMARY KEY (principal, key)
) WITHOUT ROWID;
"""


def connect(path: Path, fsync: Literal["interval", "always"]) -> sqlite3.Connection:
    """A connection whose transactions are explicit. It may be handed to one other thread."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if fsync == 'always' else 'NORMAL'}")
    # Checkpoints are made beside the call path, by the thread that syncs.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA busy_timeout = 5000")
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """Makes the tables in an empty database. Raises ValueError for a database of another version."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version == VERSION:
        return
    if version != 0:
        raise ValueError(f"schema version {version}; this program reads version {VERSION}")
    connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
