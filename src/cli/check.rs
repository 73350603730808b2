//! `check`: is the configuration sound, does it fit this machine, and with `--online`, do the remotes agree?

use serde::Serialize;

use crate::app;
use crate::config::{Config, ConfigError, Problem};

use super::{AppError, CliError, Shell, load, tell, variable};

/// What `check --json` prints.
#[derive(Debug, Serialize)]
struct CheckReport {
    ok: bool,
    repositories: usize,
    sites: usize,
    problems: Vec<ProblemReport>,
}

#[derive(Debug, Serialize)]
struct ProblemReport {
    file: String,
    line: usize,
    column: usize,
    key: String,
    message: String,
}

impl From<&Problem> for ProblemReport {
    fn from(problem: &Problem) -> Self {
        let Problem { file, place, key, message } = problem;
        Self {
            file: file.display().to_string(),
            line: place.line,
            column: place.column,
            key: key.clone(),
            message: message.clone(),
        }
    }
}

pub(super) fn check(shell: &Shell, online: bool) -> Result<(), CliError> {
    let loaded = load(&shell.config);
    let counts = loaded.as_ref().map_or((0, 0), |config| (config.repositories.len(), config.sites.len()));
    let checked = loaded.and_then(|config| check_against_machine(&config, online));
    let problems = match &checked {
        Err(CliError::Config(ConfigError::Problems(problems)) | CliError::App(AppError::Config(problems))) => {
            problems.as_slice()
        }
        Ok(()) | Err(_) => &[],
    };
    if checked.is_ok() || shell.json && !problems.is_empty() {
        let (repositories, sites) = counts;
        let problems: Vec<_> = problems.iter().map(ProblemReport::from).collect();
        let report = CheckReport { ok: checked.is_ok(), repositories, sites, problems };
        shell.print(&report, || {
            format!("{} is sound: {repositories} repositories, {sites} sites\n", shell.config.display())
        })?;
    }
    checked
}

fn check_against_machine(config: &Config, online: bool) -> Result<(), CliError> {
    app::check(config, &variable)?;
    if online {
        let tips = app::check_online(config, &variable)?;
        for (site, tip) in tips {
            tell(&format!("site {site}: the remote is at {tip}"));
        }
    }
    Ok(())
}
