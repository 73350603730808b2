//! The machine: every system call that needs care, with nothing of ours imported.

pub mod bell;
pub mod fs;
pub mod host;
pub mod limits;
pub mod log_file;
pub mod memory;
pub mod process;
pub mod signals;
pub mod stop;
pub mod tree;
pub mod user;
