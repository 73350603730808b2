//! `deploy` and `rollback`: an order, and following it to its end.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::app::orders::{Asker, Chunk};
use crate::app::report::DeploymentReport;
use crate::app::{self, App, Service};
use crate::config::Config;
use crate::domain::deployment::{DeploymentId, StateName};
use crate::domain::name::SiteName;
use crate::domain::push::RefName;
use crate::domain::release_id::ReleaseId;
use crate::store::Deployment;
use crate::sys::signals::Signals;
use crate::sys::stop::Stop;
use crate::view::text::{self, LogText};

use super::{CliError, Shell, asker_name, keep_signals, now, tell, variable, wait_for_signal};

pub(super) fn deploy(shell: &Shell, site: &SiteName, wanted: Option<&str>, no_wait: bool) -> Result<(), CliError> {
    let ref_name = wanted.map(parse_ref).transpose()?;
    let signals = keep_signals()?;
    let config = shell.load()?;
    if !no_wait {
        refuse_hopeless_work(&config, site)?;
    }
    let app = App::open(config)?;
    let asker = asker_name();
    let id = app.order_deploy(site, ref_name, Asker { name: &asker, now: now() })?;
    if no_wait {
        if !app.server_runs()? {
            tell("no server runs here: the deployment waits until one does");
        }
        return print_end(shell, app.deployment(id)?);
    }
    see_through(shell, app, id, &signals)
}

pub(super) fn rollback(shell: &Shell, site: &SiteName, to: Option<ReleaseId>, force: bool) -> Result<(), CliError> {
    let signals = keep_signals()?;
    let config = shell.load()?;
    refuse_hopeless_work(&config, site)?;
    let app = App::open(config)?;
    let asker = asker_name();
    let id = app.order_rollback(site, to, force, Asker { name: &asker, now: now() })?;
    see_through(shell, app, id, &signals)
}

/// A branch, as people write it, or a full ref.
pub(super) fn parse_ref(text: &str) -> Result<RefName, CliError> {
    let is_commit = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_commit {
        return Err(CliError::Usage(
            "a bare commit cannot be deployed by this version; name a branch or a full ref".into(),
        ));
    }
    let parsed = if text.starts_with("refs/") { RefName::parse(text) } else { RefName::of_branch(text) };
    parsed.map_err(|error| CliError::Usage(error.to_string()))
}

/// Without a server this process does the work. What it cannot do must not wait in the queue: the operator was told that it
/// was refused, and a server would do it at some later time. Nothing is made before: root with a mistake in the
/// configuration would leave a state directory of root's.
fn refuse_hopeless_work(config: &Config, site: &SiteName) -> Result<(), CliError> {
    app::site(config, site)?;
    if !app::server_runs(config)? {
        app::check(config, &variable)?;
    }
    Ok(())
}

/// Follows what a server does, or does it here if there is none.
fn see_through(shell: &Shell, app: App, id: DeploymentId, signals: &Signals) -> Result<(), CliError> {
    if app.server_runs()? {
        let ended = follow_server(&app, id, signals)?;
        return print_end(shell, ended);
    }
    let service = Service::new(app, &variable)?;
    let (ended, interrupted) = work(&service, id, signals)?;
    print_end(shell, ended).map_err(|error| match error {
        CliError::Deployment { text, .. } if interrupted => CliError::Interrupted(text),
        other => other,
    })
}

fn follow_server(app: &App, id: DeploymentId, signals: &Signals) -> Result<Deployment, CliError> {
    let (mut seen_alive, mut interrupted, mut log) = (Instant::now(), false, LogText::default());
    let ended = app.follow(id, &mut |chunk| tell_log(&mut log, chunk), &mut |time| {
        interrupted = wait_for_signal(signals, time)?.is_some();
        if app.server_runs()? {
            seen_alive = Instant::now();
        }
        Ok(!interrupted && seen_alive.elapsed() < SERVER_RESTART)
    })?;
    if ended.state.is_final() {
        return Ok(ended);
    }
    let help = format!("help: `landfall log {id} -f` follows it");
    if interrupted {
        return Err(CliError::Interrupted(format!("deployment {id} goes on in the server\n{help}")));
    }
    Err(CliError::Unreachable(format!("the server has ended; deployment {id} goes on when it starts again\n{help}")))
}

/// Works in a second thread, so that this one can print what happens and hear a signal. True if one came.
fn work(service: &Service, id: DeploymentId, signals: &Signals) -> Result<(Deployment, bool), CliError> {
    let (stop, mut interrupted, mut log) = (Stop::new(), false, LogText::default());
    let ended = std::thread::scope(|scope| {
        let mut worker = Some(scope.spawn(|| service.work_on(id, &stop)));
        let mut left_alone = Instant::now();
        service.app.follow(id, &mut |chunk| tell_log(&mut log, chunk), &mut |time| {
            if wait_for_signal(signals, time)?.is_some() && !interrupted {
                interrupted = true;
                tell("interrupted: takes back what was done");
                stop.drain();
                stop.cancel("interrupted by the operator");
            }
            if let Some(ended) = worker.take_if(|worker| worker.is_finished()) {
                let worked = ended.join().map_err(|_| CliError::Unreachable(BUG.into()))?;
                worked.map_err(CliError::App)?;
                left_alone = Instant::now();
            }
            // A worker that has ended without the deployment has left it to a server; if there is none, to nobody.
            if worker.is_none() && service.app.server_runs()? {
                left_alone = Instant::now();
            }
            if worker.is_none() && left_alone.elapsed() >= SERVER_RESTART {
                return Err(CliError::Unreachable(BUG.into()));
            }
            Ok(true)
        })
    })?;
    Ok((ended, interrupted))
}

/// Prints what a deployment writes as it comes. Never an error: whoever stops reading has not stopped the deployment.
fn tell_log(log: &mut LogText, chunk: &Chunk) -> Result<(), CliError> {
    if io::stderr().lock().write_all(&log.next(chunk)).is_err() {
        // Nobody listens; the exit code still tells.
    }
    Ok(())
}

fn print_end(shell: &Shell, deployment: Deployment) -> Result<(), CliError> {
    let report = DeploymentReport::from(deployment);
    let text = text::headline(&report);
    let state = report.state;
    let went_well = matches!(state, StateName::Succeeded | StateName::Current | StateName::Queued | StateName::Running);
    let printed = if went_well || shell.json { shell.print(&report, || format!("{text}\n")) } else { Ok(()) };
    // That nobody has read it does not make a failed deployment a good one.
    if went_well { printed } else { Err(CliError::Deployment { state, text }) }
}

/// What there is to say when the work has stopped by itself.
const BUG: &str = "the deployment was given up because of a bug; see the log above\nhelp: the next command or server \
takes back what it did";

/// How long a server may be away, for its restart.
const SERVER_RESTART: Duration = Duration::from_secs(10);
