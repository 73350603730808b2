//! The binary: arguments to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    landfall::cli::run()
}
