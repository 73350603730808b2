//! The tests at the doors: one binary, a file per feature.

#![expect(clippy::expect_used, clippy::panic, reason = "in a story what cannot be prepared ends it")]
#![expect(unreachable_pub, reason = "what the support offers to the stories is public there, and nothing is reachable")]

mod cli;
mod atomicity;
mod config;
mod crash;
mod deploy;
mod health;
mod queue;
mod store;
mod support;
mod webhook;
mod rollback;
mod stop;
mod store;
mod support;
mod tidy;
