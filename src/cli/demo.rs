//! x
use super::CliError;
pub(super) fn demo(_once: bool) -> Result<(), CliError> {
    Ok(())
}
