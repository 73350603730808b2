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
        refuse_hopeless_work(&config, Some(site))?;
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
    refuse_hopeless_work(&config, Some(site))?;
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
pub(super) fn refuse_hopeless_work(config: &Config, site: Option<&SiteName>) -> Result<(), CliError> {
    if let Some(site) = site {
        app::site(config, site)?;
    }
    if !app::server_runs(config)? {
        app::check(config, &variable)?;
    }
    Ok(())
}

/// Follows what a server does, or does it here if there is none.
fn see_through(shell: &Shell, app: App, id: DeploymentId, signals: &Signals) -> Result<(), CliError> {
    let (ended, interrupted) = see_all_through(app, &[id], signals)?;
    let print = |ended: Vec<Deployment>| ended.into_iter().try_for_each(|ended| print_end(shell, ended));
    print(ended).map_err(|error| error.of_interrupted(interrupted))
}

/// The same for several, one after the other. True if a signal came, which ends all that are left.
pub(super) fn see_all_through(
    app: App,
    ids: &[DeploymentId],
    signals: &Signals,
) -> Result<(Vec<Deployment>, bool), CliError> {
    let mut all = Vec::with_capacity(ids.len());
    if app.server_runs()? {
        for id in ids {
            all.push(follow_server(&app, *id, signals)?);
        }
        return Ok((all, false));
    }
    let (service, mut interrupted) = (Service::new(app, &variable)?, false);
    for id in ids {
        all.push(work(&service, *id, signals, &mut interrupted)?);
    }
    Ok((all, interrupted))
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

/// Works in a second thread, so that this one can print what happens and hear a signal, which ends what runs.
fn work(
    service: &Service,
    id: DeploymentId,
    signals: &Signals,
    interrupted: &mut bool,
) -> Result<Deployment, CliError> {
    let (stop, mut log) = (Stop::new(), LogText::default());
    if *interrupted {
        stop.cancel(INTERRUPTED);
    }
    std::thread::scope(|scope| {
        let mut worker = Some(scope.spawn(|| service.work_on(id, &stop)));
        let mut left_alone = Instant::now();
        service.app.follow(id, &mut |chunk| tell_log(&mut log, chunk), &mut |time| {
            if wait_for_signal(signals, time)?.is_some() && !*interrupted {
                *interrupted = true;
                tell("interrupted: takes back what was done");
                stop.drain();
                stop.cancel(INTERRUPTED);
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
    })
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
    let went_well = worst([state]).is_none();
    let printed = if went_well || shell.json { shell.print(&report, || format!("{text}\n")) } else { Ok(()) };
    // That nobody has read it does not make a failed deployment a good one.
    if went_well { printed } else { Err(CliError::Deployment { state, text }) }
}

/// The state of what went worst, if something did not go well. What has not ended may still.
pub(super) fn worst(states: impl IntoIterator<Item = StateName>) -> Option<StateName> {
    let badness = |state: &StateName| match state {
        StateName::Succeeded | StateName::Current | StateName::Queued | StateName::Running => 0,
        StateName::Superseded => 1,
        StateName::Failed | StateName::Cancelled | StateName::Interrupted | StateName::Stuck => 2,
    };
    states.into_iter().filter(|state| badness(state) > 0).max_by_key(badness)
}

const INTERRUPTED: &str = "interrupted by the operator";

/// What there is to say when the work has stopped by itself.
const BUG: &str = "the deployment was given up because of a bug; see the log above\nhelp: the next command or server \
takes back what it did";

/// How long a server may be away, for its restart.
const SERVER_RESTART: Duration = Duration::from_secs(10);
