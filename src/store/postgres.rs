//! The statements, for PostgreSQL: the same text, compiled for another connection.

pub(super) type Database = sqlx::Postgres;
pub(super) type Connection = sqlx::PgConnection;

#[expect(clippy::duplicate_mod, reason = "one text for two databases is the point")]
#[path = "statements/mod.rs"]
pub(super) mod statements;
