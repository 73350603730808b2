//! Landfall.
pub mod domain;
pub mod site;
pub mod sys;
