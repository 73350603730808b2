//! Landfall.
pub mod domain;
