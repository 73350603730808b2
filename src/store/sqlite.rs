//! The statements, for SQLite.

pub(super) type Database = sqlx::Sqlite;
pub(super) type Connection = sqlx::SqliteConnection;

#[path = "statements/mod.rs"]
pub(super) mod statements;
