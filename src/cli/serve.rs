//! `serve`: the service, from its first check to its last thread.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::app::{self, App, AppError, Service};
use crate::config::Config;
use crate::engine::threads::{Crew, Workers};
use crate::http::{Doors, Server};
use crate::sys::bell::Bell;
use crate::sys::fs::LockFile;
use crate::sys::signals::Signals;
use crate::sys::stop::Stop;

use super::{CliError, Shell, keep_signals, variable, wait_for_signal};

/// Serves until it is asked to stop. Then nothing new begins, what runs has a while to end, and is undone after that.
pub(super) fn serve(shell: &Shell) -> Result<(), CliError> {
    let config = shell.load()?;
    // Before anything is made: root that tries it with a mistake would leave a state directory of root's.
    app::check(&config, &variable)?;
    // Before any thread is started, so that no thread but this one gets them.
    let signals = keep_signals()?;
    let house = House::open(Service::new(App::open(config)?, &variable)?)?;
    notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
    let waited = house.wait(&signals);
    match &waited {
        Ok(signal) => log::info!("{signal}: begins nothing new, and waits for what runs"),
        Err(error) => log::error!("{error}: begins nothing new, and waits for what runs"),
    }
    notify(&[NotifyState::Stopping, NotifyState::Status("waits for running deployments")]);
    let closed = house.close(&signals);
    waited.and(closed)
}

/// The service at work: its doors, its workers and its place.
pub(super) struct House {
    service: Arc<Service>,
    server: Server,
    workers: Workers,
    stop: Stop,
    bell: Arc<Bell>,
    _place: LockFile,
}

impl House {
    /// Takes the place on the state directory, listens, and starts to work.
    pub(super) fn open(service: Service) -> Result<Self, CliError> {
        let place = take_place(&service.app)?;
        let address = service.app.config.server.listen;
        let listener = TcpListener::bind(address)
            .map_err(|error| CliError::Refused(format!("cannot listen on {address}: {error}")))?;
        let (stop, bell, engine) = (Stop::new(), service.bell.clone(), service.engine.clone());
        let Config { workers: count, reconcile, deliveries, .. } = service.app.config;
        let crew = Crew { workers: count, reconcile, retention: Some(deliveries) };
        let workers = Workers::start(&engine, crew, &stop, &bell).map_err(CliError::machine("start the workers"))?;
        let service = Arc::new(service);
        let doors = Doors::new(service.clone(), workers.pulse(), stop.clone());
        let server = match Server::start(listener, doors) {
            Ok(server) => server,
            Err(error) => {
                stop.drain();
                bell.ring();
                workers.join();
                return Err(CliError::machine("start the HTTP server")(error));
            }
        };
        log::info!("listens on http://{} workers={count} node={}", server.address(), engine.node);
        Ok(Self { service, server, workers, stop, bell, _place: place })
    }

    /// Where it answers.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Waits for a signal, and tells the service manager that all threads live as long as they do.
    pub(super) fn wait(&self, signals: &Signals) -> Result<&'static str, CliError> {
        let pulse = self.workers.pulse();
        let interval = sd_notify::watchdog_enabled().map_or(IDLE, |limit| limit / 2);
        loop {
            if let Some(signal) = wait_for_signal(signals, interval)? {
                return Ok(signal);
            }
            self.service.tell_past_refusals();
            if !self.server.is_running() {
                return Err(CliError::Unreachable("the HTTP server has ended".into()));
            }
            if pulse.is_steady() {
                notify(&[NotifyState::Watchdog]);
            }
        }
    }

    /// Begins nothing new, waits for what runs, ends it after a grace time or at the next signal, and stops the doors last:
    /// until then they answer 503, so that the forge sends again.
    pub(super) fn close(self, signals: &Signals) -> Result<(), CliError> {
        let Self { service, server, workers, stop, bell, _place } = self;
        stop.drain();
        bell.ring();
        let ended = std::thread::Builder::new().name("end".into()).spawn(move || workers.join());
        let ended = ended.map_err(CliError::machine("start a thread"))?;
        let deadline = Instant::now() + GRACE;
        while !ended.is_finished() {
            let again = wait_for_signal(signals, END_POLL)?;
            if again.is_some() || Instant::now() >= deadline {
                stop.cancel("the service stops");
            }
            notify(&[NotifyState::Watchdog]);
        }
        if ended.join().is_err() {
            log::error!("the thread that waited for the workers panicked");
        }
        server.stop().map_err(CliError::machine("stop the HTTP server"))?;
        service.tell_all_refusals();
        log::info!("stopped");
        Ok(())
    }
}

/// A command line may hold the place for a moment to ask whether it is free.
fn take_place(app: &App) -> Result<LockFile, AppError> {
    let deadline = Instant::now() + PLACE_WAIT;
    loop {
        if let Some(place) = app.take_server_place()? {
            return Ok(place);
        }
        if Instant::now() >= deadline {
            let state = app.config.state_dir.display();
            return Err(AppError::Refused(format!("another Landfall serves the state directory `{state}`")));
        }
        std::thread::sleep(END_POLL);
    }
}

/// Without a service manager this does nothing.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot notify the service manager: {error}");
    }
}

/// How long a running deployment may go on after the signal. With the hooks' own grace and `deploy.failure` it stays
/// below the 120 s that `landfall.service` grants.
const GRACE: Duration = Duration::from_secs(30);

/// How often the end of the workers is looked for.
const END_POLL: Duration = Duration::from_millis(50);

/// How often the doors are looked at without a watchdog.
const IDLE: Duration = Duration::from_secs(10);

const PLACE_WAIT: Duration = Duration::from_secs(2);
