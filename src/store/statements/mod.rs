//! Every SQL statement. This room is compiled twice, for each database with its own `Connection`; the text is the same.
//!
//! Writers take locks in one order, so that PostgreSQL never finds two that wait for each other: first the rows of all
//! their sites, by name; then the counters, the delivery's before the deployment's. The row of a deployment is changed
//! with its site locked, or under its lease by a transaction that wants nothing else.

pub(in crate::store) mod delivery;
pub(in crate::store) mod journal;
pub(in crate::store) mod queue;
pub(in crate::store) mod reconcile;
pub(in crate::store) mod row;
pub(in crate::store) mod site;

use super::Connection;
