//! Landfall.
pub mod domain;
pub mod sys;
