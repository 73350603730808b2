//! The tests at the doors: one binary, a file per feature.

#![expect(clippy::expect_used, clippy::panic, reason = "in a story what cannot be prepared ends it")]
#![expect(unreachable_pub, reason = "what the support offers to the stories is public there, and nothing is reachable")]

mod atomicity;
mod check_signature;
mod cli;
mod config;
mod crash;
mod deliveries;
mod deploy;
mod e2e;
mod failures;
mod forges;
mod health;
mod hooks;
mod limits;
mod load;
mod permissions;
mod queue;
mod racing;
mod reconcile;
mod redeliver;
mod rollback;
mod stop;
mod store;
mod support;
mod tidy;
mod webhook;
