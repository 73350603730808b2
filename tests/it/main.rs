//! The tests at the doors: one binary, a file per feature.

mod config;
mod store;
