//! Values as people and programs read them: text in columns, and the JSON of answers.
//!
//! Absent: where the values come from, and where the text goes.

pub mod answer;
pub mod deliveries;
pub mod signature;
pub mod text;
