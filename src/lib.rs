//! Landfall.
pub mod domain;
pub mod git;
pub mod site;
pub mod sys;
