"""The tables of the state file, in one place.

A table is added at the end, by a `CREATE TABLE IF NOT EXISTS … STRICT`; a damaged file's rows are
then saved with it, without another line of code. A file whose tables read otherwise than here is
copied into one with these. Must never change a table in a way in which the released version could
not go on with the file: a vehicle may be rolled back.
"""

from __future__ import annotations

from typing import Final

FORMAT: Final = 1
"""Which versions of the agent may go on with the file."""

PAGE_BYTES: Final = 1024
"""A trip touches some ten pages and each goes to the log whole: a third of what 4,096 cost."""

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS identity (
    key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    put_at REAL NOT NULL DEFAULT 0,
    crc INTEGER,
    payload BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS outbox_by_kind ON outbox (kind, seq);
CREATE TABLE IF NOT EXISTS outbox_size (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    messages INTEGER NOT NULL,
    payload_bytes INTEGER NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS outbox_grows AFTER INSERT ON outbox BEGIN
    INSERT INTO outbox_size VALUES (1, 1, LENGTH(NEW.payload))
    ON CONFLICT (one) DO UPDATE SET messages = messages + 1,
        payload_bytes = payload_bytes + LENGTH(NEW.payload);
END;
CREATE TRIGGER IF NOT EXISTS outbox_shrinks AFTER DELETE ON outbox BEGIN
    UPDATE outbox_size SET messages = messages - 1,
        payload_bytes = payload_bytes - LENGTH(OLD.payload);
END;
CREATE TRIGGER IF NOT EXISTS outbox_rewritten AFTER UPDATE OF payload ON outbox BEGIN
    UPDATE outbox_size SET
        payload_bytes = payload_bytes + LENGTH(NEW.payload) - LENGTH(OLD.payload);
END;
CREATE TABLE IF NOT EXISTS kept_trace (
    message_id TEXT PRIMARY KEY,
    odometer REAL NOT NULL,
    breach BLOB NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parameters (
    slot TEXT PRIMARY KEY, signed BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parameter_writes (
    one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS parameters_written AFTER INSERT ON parameters BEGIN
    INSERT INTO parameter_writes VALUES (1, 1)
    ON CONFLICT (one) DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER IF NOT EXISTS parameters_forgotten AFTER DELETE ON parameters BEGIN
    UPDATE parameter_writes SET number = number + 1;
END;
CREATE TABLE IF NOT EXISTS finished_trip (
    seq INTEGER PRIMARY KEY, trip_id TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS counter (
    name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (
    seq INTEGER PRIMARY KEY,
    at REAL NOT NULL, kind TEXT NOT NULL, reason TEXT NOT NULL, payload BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS running_trip (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    trip_id TEXT NOT NULL,
    saved BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS boot (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    boot_id TEXT NOT NULL UNIQUE,
    known_unix_s REAL,
    known_monotonic_s REAL,
    newest_unix_s REAL) STRICT;
CREATE TABLE IF NOT EXISTS stamp (
    kind TEXT NOT NULL,
    ref TEXT NOT NULL,
    boot INTEGER NOT NULL,
    monotonic_s REAL NOT NULL,
    unix_s REAL NOT NULL,
    is_known INTEGER NOT NULL,
    PRIMARY KEY (kind, ref)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parked_parameters (
    bundle TEXT NOT NULL,
    slot TEXT NOT NULL,
    signed BLOB NOT NULL,
    PRIMARY KEY (bundle, slot)) STRICT, WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS stamp_of_message AFTER DELETE ON outbox BEGIN
    DELETE FROM stamp WHERE kind IN ('trip', 'ack', 'provisional') AND ref = OLD.message_id;
END;
CREATE TRIGGER IF NOT EXISTS stamp_of_refusal AFTER DELETE ON refused BEGIN
    DELETE FROM stamp WHERE kind = 'refused' AND ref = CAST(OLD.seq AS TEXT);
END;
CREATE TRIGGER IF NOT EXISTS stamp_of_trip AFTER DELETE ON running_trip BEGIN
    DELETE FROM stamp WHERE kind = 'running';
END;
CREATE TABLE IF NOT EXISTS anchor (
    seq INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, value BLOB NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS keys_written AFTER INSERT ON anchor WHEN NEW.name = 'keys' BEGIN
    INSERT INTO parameter_writes VALUES (1, 1)
    ON CONFLICT (one) DO UPDATE SET number = number + 1;
END;
"""

DERIVED: Final = frozenset({"outbox_size", "parameter_writes"})
"""Tables that triggers keep: the rows of others make them."""
