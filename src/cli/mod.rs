//! The command line: arguments in, text or JSON out, and what the exit code says.
//!
//! ```text
//! serve    the service: doors, workers, signals          show     status releases deployments log
//! check    the configuration, also against the remotes    orders   deploy rollback, and following them
//! forge    webhook send-test                              demo     the whole story on a temporary site
//! forge_form   what `webhook` tells to paste, forge by forge
//! deliveries   what was sent, and sending it again
//! signature    check-signature
//! ```
//!
//! Data goes to stdout, talk to stderr. Absent: what a command does beyond asking and printing (`app`).

mod check;
mod deliveries;
mod demo;
mod forge;
mod forge_form;
mod orders;
mod serve;
mod show;
mod signature;

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use chrono::Utc;
use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::app::{App, AppError};
use crate::config::{Config, ConfigError};
use crate::domain::deployment::{DeploymentId, StateName};
use crate::domain::name::{RepositoryName, SiteName};
use crate::domain::release_id::ReleaseId;
use crate::git;
use crate::sys::signals::Signals;
use crate::sys::{fs, host, user};
use crate::webhook::CannotSign;

/// git push, and the new version is live, atomically, or nothing has changed at all.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, after_help = EXIT_CODES)]
struct Arguments {
    /// The configuration.
    #[arg(
        long,
        global = true,
        env = "LANDFALL_CONFIG",
        value_name = "FILE",
        default_value = "/etc/landfall/deploy.toml"
    )]
    config: PathBuf,
    /// Print data as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive webhooks and deploy, until SIGTERM.
    Serve,
    /// Check the configuration against this machine.
    Check {
        /// Also ask each remote for the site's branch.
        #[arg(long)]
        online: bool,
    },
    /// Deploy the tip of a site's branch, also if it is live already; lifts a hold.
    Deploy {
        /// The site.
        #[arg(value_parser = site_name)]
        site: SiteName,
        /// Deploy this branch instead, or a full ref such as refs/tags/v1.
        #[arg(long, value_name = "REF")]
        r#ref: Option<String>,
        /// Queue it and return.
        #[arg(long)]
        no_wait: bool,
    },
    /// Make an older release live, and hold the site.
    Rollback {
        /// The site.
        #[arg(value_parser = site_name)]
        site: SiteName,
        /// The release; default: the newest good one before the live one.
        #[arg(long, value_name = "RELEASE", value_parser = release_id)]
        to: Option<ReleaseId>,
        /// Skip the hooks.
        #[arg(long)]
        force: bool,
    },
    /// List a site's releases.
    Releases {
        /// The site.
        #[arg(value_parser = site_name)]
        site: SiteName,
        #[command(flatten)]
        list: List,
    },
    /// Say what is live, what runs, what waits and what ended last.
    Status {
        /// Only this site.
        #[arg(value_parser = site_name)]
        site: Option<SiteName>,
    },
    /// List deployments.
    Deployments {
        /// Only this site.
        #[arg(value_parser = site_name)]
        site: Option<SiteName>,
        #[command(flatten)]
        list: List,
    },
    /// Print what a deployment and its hooks wrote.
    Log {
        /// Its number.
        #[arg(value_parser = deployment_id)]
        deployment: DeploymentId,
        /// Go on until the deployment has ended.
        #[arg(short, long)]
        follow: bool,
    },
    /// List what forges have sent, and why it did (not) deploy.
    Deliveries {
        /// Only of this repository.
        #[arg(long, value_name = "NAME", value_parser = repository_name)]
        repository: Option<RepositoryName>,
        #[command(flatten)]
        list: List,
    },
    /// Print everything there is about a delivery.
    Delivery {
        /// Its number.
        #[arg(value_name = "ID")]
        delivery: i64,
    },
    /// Decide over a stored delivery again, as if its forge had sent it again.
    Redeliver {
        /// Its number.
        #[arg(value_name = "ID")]
        delivery: i64,
        /// Queue what it leads to and return.
        #[arg(long)]
        no_wait: bool,
    },
    /// Print what to paste into the forge: URL, secret, deploy key.
    Webhook {
        /// Its name in the configuration.
        #[arg(value_parser = repository_name)]
        repository: RepositoryName,
    },
    /// Send a signed ping to the server, or a push of a ref's tip, as the forge would.
    SendTest {
        /// Its name in the configuration.
        #[arg(value_parser = repository_name)]
        repository: RepositoryName,
        /// Send a push of this branch or full ref instead of a ping.
        #[arg(long, value_name = "REF")]
        r#ref: Option<String>,
        /// Where to; default: the configured `listen` address.
        #[arg(long, value_name = "URL")]
        url: Option<String>,
    },
    /// Say why a saved webhook is (not) believed, what would have matched, and what the sites would do with it.
    CheckSignature {
        /// Its name in the configuration.
        #[arg(value_parser = repository_name)]
        repository: RepositoryName,
        /// Its headers, as the forge's page shows them or `curl -v` prints them; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        headers: PathBuf,
        /// Its body, byte for byte; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        body: PathBuf,
    },
    /// Run the main job on a temporary site, and tell what happens.
    Demo {
        /// End after the story.
        #[arg(long)]
        once: bool,
    },
}

#[derive(Debug, clap::Args)]
struct List {
    /// How many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
}

/// Why a command did not do as it was asked.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(String),
    /// There is no sound configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A use case said no.
    #[error(transparent)]
    App(#[from] AppError),
    /// The deployment did not go live.
    #[error("{text}")]
    Deployment {
        /// How it ended.
        state: StateName,
        /// The headline.
        text: String,
    },
    /// The server did not answer.
    #[error("{0}")]
    Unreachable(String),
    /// The server answered no.
    #[error("{0}")]
    Refused(String),
    /// Only somebody else can sign.
    #[error(transparent)]
    CannotSign(#[from] CannotSign),
    /// A saved webhook is not believed; why has been printed.
    #[error("the server does not believe this request")]
    NotAuthentic,
    /// A part of the demo did not come true.
    #[error("{0}")]
    Untrue(String),
    /// A signal came.
    #[error("interrupted: {0}")]
    Interrupted(String),
    /// What was printed did not get out.
    #[error("cannot print: {0}")]
    Output(io::Error),
    /// The machine refused something.
    #[error("cannot {operation}: {source}")]
    Machine {
        /// What was tried.
        operation: &'static str,
        /// What the machine said.
        source: io::Error,
    },
    /// The demo could not set its stage.
    #[error(transparent)]
    Stage(#[from] demo::StageError),
}

impl CliError {
    /// Says what was tried, for a machine that said no.
    fn machine(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Machine { operation, source }
    }

    /// If a signal has ended the deployment, then it is that.
    fn of_interrupted(self, interrupted: bool) -> Self {
        match self {
            Self::Deployment { text, .. } if interrupted => Self::Interrupted(text),
            other => other,
        }
    }
}

/// What the exit codes mean, for `--help`.
const EXIT_CODES: &str = "Exit codes: 0 ok, 1 the deployment failed or the signature does not match, 2 usage or configuration, \
3 not found, 4 refused, 5 store or server not reachable, 130 interrupted.";

/// The exit code of an error: the only place that chooses one.
fn exit_code(error: &CliError) -> u8 {
    match error {
        CliError::Untrue(_) | CliError::NotAuthentic => 1,
        CliError::Usage(_) | CliError::Config(_) | CliError::App(AppError::Config(_)) => 2,
        CliError::App(AppError::NotFound(_)) => 3,
        CliError::App(AppError::Refused(_)) | CliError::Refused(_) | CliError::CannotSign(_) => 4,
        CliError::App(AppError::Store(_) | AppError::Site(_) | AppError::Git(_) | AppError::Io { .. })
        | CliError::Unreachable(_)
        | CliError::Machine { .. }
        | CliError::Stage(_)
        | CliError::Output(_) => 5,
        CliError::Interrupted(_) => 130,
        CliError::Deployment { state, .. } => match state {
            StateName::Succeeded | StateName::Current | StateName::Queued | StateName::Running => 0,
            StateName::Failed | StateName::Cancelled | StateName::Interrupted | StateName::Stuck => 1,
            StateName::Superseded => 4,
        },
    }
}

/// Runs the command of this process's arguments.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            return match error.print() {
                Ok(()) => ExitCode::from(code),
                // Whoever read the help has seen enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::from(code),
                Err(_) => ExitCode::from(5),
            };
        }
    };
    fs::keep_to_ourselves();
    start_log(&arguments.command);
    if let Err(error) = git::configure_process() {
        return fail(&CliError::App(AppError::Git(error)));
    }
    let Arguments { config, json, command } = arguments;
    let shell = Shell { config, json };
    match shell.run(command) {
        // Whoever read the output has seen enough.
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &CliError) -> ExitCode {
    tell(&format!("landfall: {error}"));
    ExitCode::from(exit_code(error))
}

/// Says something to the person, not to the program that reads our output.
fn tell(text: &str) {
    if writeln!(io::stderr().lock(), "{text}").is_err() {
        // Nobody listens; the exit code still tells.
    }
}

fn start_log(command: &Command) {
    let level = match command {
        // The server crates tell of their own threads what we tell of the service, and an error of `actix_http` is any
        // stranger who speaks no HTTP, as often as he likes.
        Command::Serve => "info,actix_server=warn,actix_http=off",
        Command::Check { .. } => "warn",
        Command::Deploy { .. }
        | Command::Rollback { .. }
        | Command::Releases { .. }
        | Command::Status { .. }
        | Command::Deployments { .. }
        | Command::Log { .. }
        | Command::Deliveries { .. }
        | Command::Delivery { .. }
        | Command::Redeliver { .. }
        | Command::Webhook { .. }
        | Command::SendTest { .. }
        | Command::CheckSignature { .. }
        | Command::Demo { .. } => "error",
    };
    let mut builder = env_logger::Builder::from_env(env_logger::Env::new().filter_or("LANDFALL_LOG", level));
    builder.format_target(false);
    // The journal has its own clock.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.format_timestamp(None);
    }
    builder.init();
}

/// What every command needs to know of its surroundings.
#[derive(Debug)]
struct Shell {
    config: PathBuf,
    json: bool,
}

impl Shell {
    fn run(&self, command: Command) -> Result<(), CliError> {
        match command {
            Command::Serve => serve::serve(self),
            Command::Check { online } => check::check(self, online),
            Command::Deploy { site, r#ref, no_wait } => orders::deploy(self, &site, r#ref.as_deref(), no_wait),
            Command::Rollback { site, to, force } => orders::rollback(self, &site, to, force),
            Command::Releases { site, list } => show::releases(self, &site, list.limit),
            Command::Status { site } => show::status(self, site.as_ref()),
            Command::Deployments { site, list } => show::deployments(self, site.as_ref(), list.limit),
            Command::Log { deployment, follow } => show::log(self, deployment, follow),
            Command::Deliveries { repository, list } => deliveries::deliveries(self, repository.as_ref(), list.limit),
            Command::Delivery { delivery } => deliveries::delivery(self, delivery),
            Command::Redeliver { delivery, no_wait } => deliveries::redeliver(self, delivery, no_wait),
            Command::Webhook { repository } => forge::webhook(self, &repository),
            Command::SendTest { repository, r#ref, url } => {
                forge::send_test(self, &repository, r#ref.as_deref(), url.as_deref())
            }
            Command::CheckSignature { repository, headers, body } => {
                signature::check_signature(self, &repository, &headers, &body)
            }
            Command::Demo { once } => demo::demo(once),
        }
    }

    /// The configuration. Root that works on a plain user's state becomes that user first, so that nothing in it is
    /// root's afterwards.
    fn load(&self) -> Result<Config, CliError> {
        let config = load(&self.config)?;
        become_owner_of(&config.state_dir)?;
        Ok(config)
    }

    fn open(&self) -> Result<App, CliError> {
        Ok(App::open(self.load()?)?)
    }

    /// Prints data: as JSON, or as the text.
    fn print<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<(), CliError> {
        let text = if self.json {
            serde_json::to_string_pretty(value)
                .map(|text| text + "\n")
                .map_err(|error| CliError::Output(error.into()))?
        } else {
            text()
        };
        print(text.as_bytes())
    }
}

/// Writes to the program or person that reads our output.
fn print(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(CliError::Output)
}

/// Keeps the signals that ask to stop, from before the first thread on.
fn keep_signals() -> Result<Signals, CliError> {
    Signals::keep().map_err(CliError::machine("keep signals"))
}

/// Waits for a signal, at most this long; its name if one came.
fn wait_for_signal(signals: &Signals, limit: Duration) -> Result<Option<&'static str>, CliError> {
    signals.wait(limit).map_err(CliError::machine("wait for signals"))
}

fn load(path: &Path) -> Result<Config, CliError> {
    // Without a usable one the configuration has to name the node, and says so.
    Ok(Config::load(path, &host::name().unwrap_or_default())?)
}

fn become_owner_of(state: &Path) -> Result<(), CliError> {
    if !user::is_root() {
        return Ok(());
    }
    let error = || AppError::io("become the owner of", state);
    let owner = match fs::owner_of(state) {
        Ok(owner) => owner,
        Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(()),
        Err(other) => return Err(error()(other).into()),
    };
    if owner == 0 {
        return Ok(());
    }
    let account = user::account_of(owner).map_err(error())?.ok_or_else(|| {
        CliError::Usage(format!("`{}` belongs to user {owner}, whom this machine does not know", state.display()))
    })?;
    Ok(user::become_account(&account).map_err(error())?)
}

/// Who gives the order, for the record: the person behind sudo, if there is one.
fn asker_name() -> String {
    let behind_sudo = std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty());
    behind_sudo.or_else(|| user::current().ok().map(|account| account.name)).unwrap_or_else(|| "unknown".into())
}

fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

fn now() -> chrono::DateTime<Utc> {
    Utc::now()
}

fn site_name(text: &str) -> Result<SiteName, String> {
    SiteName::parse(text).map_err(|error| error.to_string())
}

fn repository_name(text: &str) -> Result<RepositoryName, String> {
    RepositoryName::parse(text).map_err(|error| error.to_string())
}

fn release_id(text: &str) -> Result<ReleaseId, String> {
    ReleaseId::parse(text).map_err(|error| error.to_string())
}

fn deployment_id(text: &str) -> Result<DeploymentId, String> {
    text.parse().map(DeploymentId).map_err(|_| "is no number of a deployment".to_owned())
}
