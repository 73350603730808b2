//! A place in a hook where a deployment waits until the story lets it go on.

use std::path::{Path, PathBuf};

use super::wait_for;

/// Closed when it is made. Its hooks end when its files are gone, so that a story that fails leaves no process.
#[derive(Debug)]
pub struct Gate {
    closed: PathBuf,
    reached: PathBuf,
}

impl Gate {
    pub fn new(directory: &Path, name: &str) -> Self {
        let gate = Self {
            closed: directory.join(format!("{name}.closed")),
            reached: directory.join(format!("{name}.reached")),
        };
        std::fs::write(&gate.closed, "").expect("a gate");
        gate
    }

    /// The lines of a hook that waits here.
    pub fn hook(&self) -> String {
        let Self { closed, reached } = self;
        format!(
            "echo $DEPLOYMENT_ID >> {}\nwhile [ -e {} ]; do sleep 0.02; done\n",
            reached.display(),
            closed.display()
        )
    }

    /// Waits until this many hooks have come here.
    pub fn wait_for(&self, count: usize) {
        wait_for("a hook at the gate", || {
            let reached = std::fs::read_to_string(&self.reached).unwrap_or_default();
            (reached.lines().count() >= count).then_some(())
        });
    }

    pub fn open(&self) {
        std::fs::remove_file(&self.closed).expect("a closed gate");
    }
}
