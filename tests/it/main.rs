//! The tests at the doors: one binary, a file per feature.

#![expect(clippy::expect_used, clippy::panic, reason = "in a story what cannot be prepared ends it")]

mod config;
mod deploy;
mod failures;
mod hooks;
mod permissions;
mod store;
mod support;
