//! What is kept besides jobs: probes, events that PagerDuty has not taken yet, and notes.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, Transaction, params};

use super::StoredJob;
use super::file::{signed, unsigned};

/// The tables, which version 2 of the schema has added.
pub(super) const CREATE: &str = "
    -- Outstanding ones, and the last ones that have ended of each route.
    CREATE TABLE probes (
        id           INTEGER PRIMARY KEY,
        route        TEXT NOT NULL,
        sent_unix_ns INTEGER NOT NULL,
        outcome      TEXT,
        probe        TEXT NOT NULL
    ) STRICT;
    -- In the order in which they are to be delivered.
    CREATE TABLE alert_events (
        id        INTEGER PRIMARY KEY,
        dedup_key TEXT NOT NULL,
        event     TEXT NOT NULL
    ) STRICT;
    -- How the alerts of each route stand, and when the service was last alive.
    CREATE TABLE notes (
        name  TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;";

/// What a row is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey {
    /// A probe, by its id.
    Probe(u64),
    /// An event that was not delivered, by its number.
    Event(u64),
    /// A note, by its name.
    Note(String),
}

/// A row. What is JSON in it, the store does not look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// A probe's route, an event's `dedup_key`; of a note nothing.
    pub subject: String,
    /// When a probe was sent, in nanoseconds since 1970; 0 of others.
    pub sent_unix_ns: u64,
    /// A probe's outcome.
    pub outcome: Option<&'static str>,
    /// All of it: the probe or the event as JSON, the note's text.
    pub text: String,
}

impl Kept {
    /// Of which rows besides jobs there is one.
    pub(super) fn keys(&self) -> impl Iterator<Item = RowKey> {
        let probes = self.probes.iter().map(|(id, _)| RowKey::Probe(*id));
        let events = self.events.iter().map(|(id, _)| RowKey::Event(*id));
        probes.chain(events).chain(self.notes.keys().cloned().map(RowKey::Note))
    }
}

impl Row {
    /// A note.
    pub fn note(text: String) -> Row {
        Row { subject: String::new(), sent_unix_ns: 0, outcome: None, text }
    }
}

/// What the store held when it was opened.
#[derive(Debug, Default, PartialEq)]
pub struct Kept {
    /// The jobs, the newest first, without their results.
    pub jobs: Vec<StoredJob>,
    /// The probes, each with its number, as JSON.
    pub probes: Vec<(u64, String)>,
    /// The events, each with its number, in their order.
    pub events: Vec<(u64, String)>,
    /// The notes, by their names.
    pub notes: BTreeMap<String, String>,
}

pub(super) fn read(connection: &Connection, jobs: Vec<StoredJob>) -> rusqlite::Result<Kept> {
    let probes = connection
        .prepare("SELECT id, probe FROM probes")?
        .query_map([], |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?)))?
        .collect::<Result<_, _>>();
    let events = connection
        .prepare("SELECT id, event FROM alert_events ORDER BY id")?
        .query_map([], |row| Ok((unsigned(row.get(0)?), row.get(1)?)))?
        .collect::<Result<_, _>>();
    let notes = connection
        .prepare("SELECT name, value FROM notes")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>();
    Ok(Kept { jobs, probes: probes?, events: events?, notes: notes? })
}

pub(super) fn write(write: &Transaction<'_>, rows: &[(RowKey, Option<Arc<Row>>)]) -> rusqlite::Result<()> {
    for (key, row) in rows {
        match (key, row) {
            (RowKey::Probe(id), Some(row)) => write
                .prepare_cached("INSERT OR REPLACE INTO probes VALUES (?1, ?2, ?3, ?4, ?5)")?
                // The ids of probes are random and use all bits; the table's are signed.
                .execute(params![id.cast_signed(), row.subject, signed(row.sent_unix_ns), row.outcome, row.text])?,
            (RowKey::Probe(id), None) => {
                write.prepare_cached("DELETE FROM probes WHERE id = ?1")?.execute([id.cast_signed()])?
            }
            (RowKey::Event(id), Some(row)) => write
                .prepare_cached("INSERT OR REPLACE INTO alert_events VALUES (?1, ?2, ?3)")?
                .execute(params![signed(*id), row.subject, row.text])?,
            (RowKey::Event(id), None) => {
                write.prepare_cached("DELETE FROM alert_events WHERE id = ?1")?.execute([signed(*id)])?
            }
            (RowKey::Note(name), Some(row)) => write
                .prepare_cached("INSERT OR REPLACE INTO notes VALUES (?1, ?2)")?
                .execute(params![name, row.text])?,
            (RowKey::Note(name), None) => {
                write.prepare_cached("DELETE FROM notes WHERE name = ?1")?.execute(params![name])?
            }
        };
    }
    Ok(())
}
