//! The words of the product as values, and every decision that follows from values alone.
//!
//! Absent from this room: input and output, the clock, the log, async. A function here is a table waiting to be tested.

pub mod admission;
pub mod deployment;
pub mod forge;
pub mod hook_name;
pub mod identity;
pub mod name;
pub mod network;
pub mod push;
pub mod reconcile;
pub mod ref_rule;
pub mod release_id;
pub mod remedy;
pub mod remote_url;
pub mod retention;
pub mod revision;
pub mod routing;
pub mod secret;
