//! What hooks and steps write: kept raw, up to a limit, with every secret masked.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::sys::log_file;

use super::HookError;

/// A file in a deployment's log directory, of a hook or a step: bounded, with every secret masked, otherwise the raw bytes.
#[derive(Debug)]
pub struct DeploymentLog {
    file: File,
    path: PathBuf,
    mask: Mask,
    limit: u64,
    kept: u64,
}

impl DeploymentLog {
    /// Begins the next file of the directory, `01-before.pull.log`; a secret of fewer than 4 bytes would mask half the text.
    pub fn create(directory: &Path, name: &str, secrets: &[&[u8]], limit: u64) -> Result<Self, HookError> {
        let (file, path) = log_file::create_next(directory, name).map_err(|source| HookError::Io {
            operation: "make a log in",
            path: directory.to_owned(),
            source,
        })?;
        Ok(Self { file, path, mask: Mask::new(secrets), limit, kept: 0 })
    }

    /// Takes output. What may be the beginning of a secret is held back; beyond the limit nothing is kept.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.kept > self.limit {
            return Ok(());
        }
        let masked = self.mask.feed(bytes);
        self.keep(&masked)
    }

    /// Writes what was held back. More may follow.
    pub fn finish(&mut self) -> io::Result<()> {
        let masked = self.mask.flush();
        self.keep(&masked)
    }

    /// After this, `kept` is above the limit if something had to be left out.
    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.kept > self.limit {
            return Ok(());
        }
        let room = usize::try_from(self.limit - self.kept).unwrap_or(usize::MAX);
        self.kept += bytes.len() as u64;
        if bytes.len() <= room {
            return self.file.write_all(bytes);
        }
        self.file.write_all(&bytes[..room])?;
        self.file.write_all(format!("\n[… output beyond {} is not kept]\n", size(self.limit)).as_bytes())
    }
}

impl Drop for DeploymentLog {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            log::warn!("cannot write the end of log `{}`: {error}", self.path.display());
        }
    }
}

fn size(bytes: u64) -> String {
    if bytes >= MIB && bytes.is_multiple_of(MIB) { format!("{} MiB", bytes / MIB) } else { format!("{bytes} bytes") }
}

/// Replaces secrets in a stream, whatever its chunks are.
struct Mask {
    /// Longest first.
    secrets: Vec<Vec<u8>>,
    /// Whether a secret begins with this byte.
    begins: [bool; 256],
    /// What may be the beginning of a secret.
    held: Vec<u8>,
    /// How many of the next bytes belong to a secret that was replaced already.
    covered: usize,
}

impl Mask {
    fn new(secrets: &[&[u8]]) -> Self {
        let long_enough = secrets.iter().filter(|secret| secret.len() >= SHORTEST_MASKED);
        let mut secrets: Vec<_> = long_enough.map(|secret| secret.to_vec()).collect();
        secrets.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        secrets.dedup();
        let mut begins = [false; 256];
        for first in secrets.iter().filter_map(|secret| secret.first()) {
            begins[usize::from(*first)] = true;
        }
        Self { secrets, begins, held: Vec::new(), covered: 0 }
    }

    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(bytes);
        let mut masked = Vec::with_capacity(text.len());
        for position in 0..text.len() {
            let rest = &text[position..];
            if self.begins[usize::from(rest[0])] {
                if self.may_begin_longer_than(rest) {
                    self.held = rest.to_vec();
                    return masked;
                }
                self.cover(rest, &mut masked);
            }
            self.pass(rest[0], &mut masked);
        }
        masked
    }

    /// Nothing follows: what was held back can only contain secrets that are complete.
    fn flush(&mut self) -> Vec<u8> {
        let text = std::mem::take(&mut self.held);
        let mut masked = Vec::with_capacity(text.len());
        for position in 0..text.len() {
            self.cover(&text[position..], &mut masked);
            self.pass(text[position], &mut masked);
        }
        masked
    }

    fn may_begin_longer_than(&self, rest: &[u8]) -> bool {
        self.secrets.iter().any(|secret| secret.len() > rest.len() && secret.starts_with(rest))
    }

    /// Overlapping secrets are replaced as one, so that no tail of the second is left to read.
    fn cover(&mut self, rest: &[u8], masked: &mut Vec<u8>) {
        let Some(secret) = self.secrets.iter().find(|secret| rest.starts_with(secret)) else { return };
        if self.covered == 0 {
            masked.extend_from_slice(b"***");
        }
        self.covered = self.covered.max(secret.len());
    }

    fn pass(&mut self, byte: u8, masked: &mut Vec<u8>) {
        match self.covered.checked_sub(1) {
            Some(left) => self.covered = left,
            None => masked.push(byte),
        }
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Mask({} secrets)", self.secrets.len())
    }
}

/// How much of one hook's output is kept.
pub const LOG_LIMIT: u64 = 10 * MIB;

const MIB: u64 = 1024 * 1024;

/// A shorter value occurs in any text by chance.
const SHORTEST_MASKED: usize = 4;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_are_masked_wherever_chunks_end() {
        let secrets: [&[u8]; 6] = [b"sesame", b"sesame-open", b"open-door", b"abc", b"aaab", b"sesame"];
        let table: [(&str, &str); 12] = [
            ("nothing to hide", "nothing to hide"),
            ("say sesame now", "say *** now"),
            ("sesame", "***"),
            ("sesame-ope", "***-ope"),
            ("sesame-open", "***"),
            ("sesame-open-door!", "***!"),
            ("sesamesesame", "******"),
            ("sesam", "sesam"),
            ("abc is too short", "abc is too short"),
            ("aaaaab", "aa***"),
            ("sesesame", "se***"),
            ("", ""),
        ];
        for (text, expected) in table {
            for chunk in 1..=text.len().max(1) {
                let mut mask = Mask::new(&secrets);
                let mut masked: Vec<u8> = text.as_bytes().chunks(chunk).flat_map(|part| mask.feed(part)).collect();
                masked.extend(mask.flush());
                assert_eq!(String::from_utf8_lossy(&masked), expected, "{text} by {chunk}");
            }
        }
    }

    #[test]
    fn a_log_is_bounded_after_masking_and_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut log = DeploymentLog::create(directory.path(), "rollback/after", &[b"sesame"], 8).expect("a log");
        for part in [&b"12ses"[..], b"ame34", b"5", b"678", b"sesame"] {
            log.write(part).expect("written");
        }
        log.finish().expect("finished");
        let text = std::fs::read_to_string(&log.path).expect("the log");
        assert_eq!(text, "12***345\n[… output beyond 8 bytes is not kept]\n");
        assert_eq!(log.path, directory.path().join("01-rollback.after.log"));
        assert_eq!(std::fs::metadata(&log.path).expect("its metadata").permissions().mode() & 0o777, 0o600);
    }
}
