//! The tests at the doors: one binary, a file per feature.

#![expect(clippy::expect_used, clippy::panic, reason = "in a story what cannot be prepared ends it")]

mod atomicity;
mod config;
mod crash;
mod deploy;
mod rollback;
mod stop;
mod store;
mod support;
mod tidy;
