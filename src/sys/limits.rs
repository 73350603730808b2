//! What the machine allows this process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Allows as many open files as wanted, or as many as there may be; tells how many that is.
///
/// Service managers and shells begin with 1024, for the sake of programs that use `select`, and let each program ask for more.
pub fn raise_open_files(wanted: u64) -> std::io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let raised = wanted.min(hard).max(soft);
    if raised > soft {
        setrlimit(Resource::RLIMIT_NOFILE, raised, hard)?;
    }
    Ok(raised)
}
