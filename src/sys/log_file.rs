//! The files of a log directory, numbered in the order in which they were begun: `01-before.pull.log`, `02-fetch.log`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Makes the next file, readable by its owner only, and the directory if it is missing. A `/` in the name becomes `.`.
pub fn create_next(directory: &Path, name: &str) -> io::Result<(File, PathBuf)> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let name = name.replace('/', ".");
    for _ in 0..ATTEMPTS {
        let path = directory.join(format!("{:02}-{name}.log", highest_number(directory)? + 1));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(ErrorKind::AlreadyExists, "others keep taking the next number"))
}

fn highest_number(directory: &Path) -> io::Result<u32> {
    let mut highest = 0;
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.split_once('-')).and_then(|(number, _)| number.parse().ok());
        // A number that high is not ours, and would leave no next one.
        highest = highest.max(number.filter(|number| *number < u32::MAX).unwrap_or(0));
    }
    Ok(highest)
}

/// Only a race with another writer needs more than one.
const ATTEMPTS: usize = 16;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_numbered_in_order_and_private() {
        let house = tempfile::tempdir().expect("a directory");
        let logs = house.path().join("logs/42");
        let names = ["before.pull", "fetch", "rollback/after"].map(|name| create_next(&logs, name).expect("a file").1);
        let expected = ["01-before.pull.log", "02-fetch.log", "03-rollback.after.log"].map(|name| logs.join(name));
        assert_eq!(names, expected);
        fs::write(logs.join("17-x.log"), "").expect("a file");
        let (_, next) = create_next(&logs, "y").expect("a file");
        assert_eq!(next, logs.join("18-y.log"));
        assert_eq!(fs::metadata(next).expect("its metadata").permissions().mode() & 0o777, 0o600);
    }
}
