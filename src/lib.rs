//! Landfall.
pub mod domain;
pub mod git;
pub mod hook;
pub mod site;
pub mod sys;
