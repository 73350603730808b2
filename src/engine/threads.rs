//! The threads: workers, recovery, leases, reconcile, forget. Whoever starts them joins them.
//!
//! The queue is the store: nothing is kept in memory that a crash could lose. A wake-up is a hint, polling the truth.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::store::DeliveryRetention;
use crate::sys::bell::Bell;
use crate::sys::stop::Stop;

use super::forget::forget_loop;
use super::reconcile::reconcile_loop;
use super::recover::{Recovered, Scope, recover};
use super::worker::{Engine, LEASE};

/// Which threads there are, beside the one that recovers what the dead have left and the one that renews leases.
#[derive(Debug, Clone, Copy)]
pub struct Crew {
    /// How many sites deploy at the same time.
    pub workers: usize,
    /// How often the sites are compared with their remotes; zero: never.
    pub reconcile: Duration,
    /// How much of the past deliveries is kept; none: nothing is dropped.
    pub retention: Option<DeliveryRetention>,
}

/// The threads that do the work. Whoever starts them joins them.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    leases: JoinHandle<()>,
    /// Leases are renewed until the last worker has ended, however long that takes after the stop.
    leases_stop: Stop,
    alive: Arc<()>,
}

impl Workers {
    /// Starts the threads of a crew.
    pub fn start(engine: &Arc<Engine>, crew: Crew, stop: &Stop, bell: &Arc<Bell>) -> std::io::Result<Self> {
        let Crew { workers, reconcile, retention } = crew;
        let (alive, leases_stop) = (Arc::new(()), Stop::new());
        let spawn = |name: String, stop: &Stop, body: Body| {
            let (engine, stop, bell, pulse) = (engine.clone(), stop.clone(), bell.clone(), alive.clone());
            std::thread::Builder::new().name(name).spawn(move || {
                body(&engine, &stop, &bell);
                drop(pulse);
            })
        };
        let mut threads = vec![spawn("recover".into(), stop, Box::new(recover_loop))?];
        for number in 1..=workers {
            threads.push(spawn(format!("deploy-{number}"), stop, Box::new(work_loop))?);
        }
        if !reconcile.is_zero() {
            let body = move |engine: &Engine, stop: &Stop, bell: &Bell| reconcile_loop(engine, reconcile, stop, bell);
            threads.push(spawn("reconcile".into(), stop, Box::new(body))?);
        }
        if let Some(retention) = retention {
            let body = move |engine: &Engine, stop: &Stop, _: &Bell| forget_loop(engine, &retention, stop);
            threads.push(spawn("forget".into(), stop, Box::new(body))?);
        }
        let leases = spawn("leases".into(), &leases_stop, Box::new(lease_loop))?;
        Ok(Self { threads, leases, leases_stop, alive })
    }

    /// A question that can be asked from elsewhere: are all threads alive?
    pub fn pulse(&self) -> Pulse {
        Pulse { expected: self.threads.len() + 1, alive: Arc::downgrade(&self.alive) }
    }

    /// Waits for all threads to end; they do when the stop says so.
    pub fn join(self) {
        self.threads.into_iter().for_each(join);
        self.leases_stop.drain();
        join(self.leases);
    }
}

/// What a thread does until the stop says so.
type Body = Box<dyn FnOnce(&Engine, &Stop, &Bell) + Send>;

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or("?").to_owned();
    if thread.join().is_err() {
        log::error!("thread {name} panicked");
    }
}

/// Whether the worker threads live. Each holds a reference that goes with it, also when it panics.
#[derive(Debug, Clone)]
pub struct Pulse {
    expected: usize,
    alive: std::sync::Weak<()>,
}

impl Pulse {
    /// True while no thread has ended.
    pub fn is_steady(&self) -> bool {
        // One reference is the owner's own.
        self.alive.strong_count() > self.expected
    }
}

fn work_loop(engine: &Engine, stop: &Stop, bell: &Bell) {
    let mut heard = 0;
    while !stop.is_draining() {
        match engine.step(stop) {
            Ok(true) => {}
            Ok(false) => heard = bell.wait(heard, POLL),
            Err(error) => {
                log::error!("cannot work on the queue: {error}");
                stop.wait(STORE_TROUBLE_PAUSE);
            }
        }
    }
}

/// A thread of its own, since a recovery may run hooks for minutes, and pushes and leases do not wait.
fn recover_loop(engine: &Engine, stop: &Stop, bell: &Bell) {
    let mut scope = Scope::RunningAndStuck;
    while !stop.is_draining() {
        match recover(engine, scope, stop) {
            Ok(Recovered { ended, postponed }) => {
                // A worker may have been faster, with a push for the very site.
                if postponed == 0 {
                    scope = Scope::Running;
                }
                if ended > 0 {
                    bell.ring();
                }
            }
            Err(error) => log::error!("cannot look for what dead processes left: {error}"),
        }
        stop.wait(RECOVER_POLL);
    }
}

fn lease_loop(engine: &Engine, stop: &Stop, _: &Bell) {
    while !stop.is_draining() {
        if let Err(error) = engine.renew() {
            log::error!("cannot renew leases: {error}");
        }
        stop.wait(LEASE / 3);
    }
}

/// The bell is a hint; this is the longest a queued deployment waits when it was not heard.
const POLL: Duration = Duration::from_secs(1);

/// How soon what a process left is found that died while another one of this node lives.
const RECOVER_POLL: Duration = Duration::from_secs(10);

/// The pause after the store did not answer.
const STORE_TROUBLE_PAUSE: Duration = Duration::from_secs(1);
