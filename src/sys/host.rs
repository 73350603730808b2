//! This machine itself.

/// Its name; none if it has none that is text.
pub fn name() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}
