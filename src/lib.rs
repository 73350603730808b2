//! Landfall.
pub mod config;
pub mod domain;
pub mod engine;
pub mod git;
pub mod hook;
pub mod site;
pub mod store;
pub mod sys;
pub mod webhook;
