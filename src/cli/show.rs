//! `status`, `releases`, `deployments` and `log`: what is, and what was.

use serde::Serialize;

use crate::app::App;
use crate::app::orders::Chunk;
use crate::app::report::DeploymentReport;
use crate::domain::deployment::DeploymentId;
use crate::domain::name::SiteName;
use crate::store::JournalLine;
use crate::view::text::{self, LogText};

use super::{CliError, Shell, now, print};

pub(super) fn status(shell: &Shell, site: Option<&SiteName>) -> Result<(), CliError> {
    let app = shell.open()?;
    match site {
        Some(site) => {
            let report = app.site_report(site)?;
            shell.print(&report, || text::site(&report, now()))
        }
        None => {
            let reports = app.site_reports()?;
            shell.print(&reports, || text::sites(&reports, now()))
        }
    }
}

pub(super) fn releases(shell: &Shell, site: &SiteName, limit: i64) -> Result<(), CliError> {
    let mut releases = shell.open()?.releases(site)?;
    releases.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    shell.print(&releases, || text::releases(&releases, now()))
}

pub(super) fn deployments(shell: &Shell, site: Option<&SiteName>, limit: i64) -> Result<(), CliError> {
    let deployments = shell.open()?.deployments(site, limit)?;
    shell.print(&deployments, || text::deployments(&deployments, now()))
}

/// What `log --json` prints.
#[derive(Debug, Serialize)]
struct LogReport {
    deployment: DeploymentReport,
    journal: Vec<JournalLine>,
    logs: Vec<LogFile>,
}

/// One step's or hook's output; what is no UTF-8 is replaced.
#[derive(Debug, Serialize)]
struct LogFile {
    name: String,
    text: String,
}

pub(super) fn log(shell: &Shell, id: DeploymentId, follow: bool) -> Result<(), CliError> {
    let app = shell.open()?;
    let mut last = DeploymentReport::from(app.deployment(id)?);
    let (mut files, mut text) = (Vec::<(String, Vec<u8>)>::new(), LogText::default());
    let mut sink = |chunk: &Chunk| -> Result<(), CliError> {
        if !shell.json {
            // The log itself is the data here.
            return print(&text.next(chunk));
        }
        if chunk.begins {
            files.push((chunk.name.clone(), Vec::new()));
        }
        if let Some((_, bytes)) = files.last_mut() {
            bytes.extend_from_slice(&chunk.bytes);
        }
        Ok(())
    };
    if follow {
        let ended = app.follow(id, &mut sink, &mut |time| {
            std::thread::sleep(time);
            Ok(true)
        })?;
        last = ended.into();
    } else {
        app.log_tail(id).pass_on(&mut sink)?;
    }
    print_rest(shell, &app, last, files, text.end())
}

fn print_rest(
    shell: &Shell,
    app: &App,
    deployment: DeploymentReport,
    files: Vec<(String, Vec<u8>)>,
    end: &str,
) -> Result<(), CliError> {
    let journal = app.journal(deployment.id)?;
    let headline = text::headline(&deployment);
    let text = |(name, bytes): (String, Vec<u8>)| LogFile { name, text: String::from_utf8_lossy(&bytes).into_owned() };
    let report = LogReport { deployment, journal, logs: files.into_iter().map(text).collect() };
    shell.print(&report, || format!("{end}── journal\n{}── {headline}\n", text::journal(&report.journal)))
}
