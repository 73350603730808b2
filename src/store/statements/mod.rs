//! Every SQL statement. This room is compiled twice, for each database with its own `Connection`; the text is the same.

pub(in crate::store) mod delivery;
pub(in crate::store) mod journal;
pub(in crate::store) mod queue;
pub(in crate::store) mod row;
pub(in crate::store) mod site;

use super::Connection;
