//! `deliveries`, `delivery` and `redeliver`: what was sent, why it did (not) deploy, and doing it again.

use crate::app::App;
use crate::app::orders::Asker;
use crate::app::receive::Receipt;
use crate::app::report::DeploymentReport;
use crate::domain::admission::{DeliveryStatus, SiteStatus};
use crate::domain::name::RepositoryName;
use crate::store::Deployment;
use crate::view::answer::Answer;
use crate::view::{deliveries as view, text};

use super::orders::{refuse_hopeless_work, see_all_through, worst};
use super::{CliError, Shell, asker_name, keep_signals, now, tell};

pub(super) fn deliveries(shell: &Shell, repository: Option<&RepositoryName>, limit: i64) -> Result<(), CliError> {
    let deliveries = shell.open()?.deliveries(repository, limit)?;
    shell.print(&deliveries, || view::deliveries(&deliveries, now()))
}

pub(super) fn delivery(shell: &Shell, id: i64) -> Result<(), CliError> {
    let details = shell.open()?.delivery(id)?;
    shell.print(&details, || view::delivery(&details, now()))
}

pub(super) fn redeliver(shell: &Shell, id: i64, no_wait: bool) -> Result<(), CliError> {
    let signals = keep_signals()?;
    let config = shell.load()?;
    if !no_wait {
        refuse_hopeless_work(&config, None)?;
    }
    let app = App::open(config)?;
    let asker = asker_name();
    let receipt = app.redeliver(id, Asker { name: &asker, now: now() })?;
    let deployments = receipt.deployments();
    if no_wait || deployments.is_empty() {
        if no_wait && !deployments.is_empty() && !app.server_runs()? {
            tell("no server runs here: what was queued waits until one does");
        }
        return print_end(shell, receipt, Vec::new());
    }
    let (ended, interrupted) = see_all_through(app, &deployments, &signals)?;
    print_end(shell, receipt, ended).map_err(|error| error.of_interrupted(interrupted))
}

/// Prints the answer, with how far the deployments are now; the worst of them is how the command ends.
fn print_end(shell: &Shell, mut receipt: Receipt, ended: Vec<Deployment>) -> Result<(), CliError> {
    let ended: Vec<_> = ended.into_iter().map(DeploymentReport::from).collect();
    for deployment in &ended {
        receipt.update(deployment.id, deployment.state);
    }
    let lines: Vec<_> = [receipt.headline()].into_iter().chain(ended.iter().map(text::headline)).collect();
    let text = lines.join("\n");
    let is_ignored = receipt.status == DeliveryStatus::Of(SiteStatus::Ignored);
    let bad = worst(ended.iter().map(|deployment| deployment.state));
    let is_good = !is_ignored && bad.is_none();
    let printed =
        if is_good || shell.json { shell.print(&Answer::of(&receipt), || format!("{text}\n")) } else { Ok(()) };
    // That nobody has read it does not make a failed deployment a good one.
    match bad {
        Some(state) => Err(CliError::Deployment { state, text }),
        None if is_ignored => Err(CliError::Refused(text)),
        None => printed,
    }
}
