//! Every SQL statement. This room is compiled twice, for each database with its own `Connection`; the text is the same.
//!
//! Writers take locks in one order, so that PostgreSQL never finds two that wait for each other: first the rows of all
//! their sites, by name; then the rows of repositories; then the counters, the delivery's before the deployment's. The row of a deployment is changed
//! with its site locked, or under its lease by a transaction that wants nothing else.

pub(in crate::store) mod acceptance;
pub(in crate::store) mod body;
pub(in crate::store) mod delivery;
pub(in crate::store) mod journal;
pub(in crate::store) mod queue;
pub(in crate::store) mod reconcile;
pub(in crate::store) mod row;
pub(in crate::store) mod site;

use super::{Connection, Database};

/// Cuts rows into pieces of at most 64, of which the last may have any length below 16. Each piece is a hop to the database, and
/// each length a statement that is prepared and kept: there are to be few of both.
fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = LONG_PIECES.into_iter().find(|length| *length <= rows.len()).unwrap_or(rows.len());
        let (piece, rest) = rows.split_at(length);
        rows = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Below the number of values that SQLite takes in one statement, whatever the table.
const LONG_PIECES: [usize; 3] = [64, 32, 16];
