//! The door under load: one writer takes what waits, commits it together, and tells each sender what became of his.
//!
//! While one batch is written the next one gathers. Whoever sends alone is written at once; after a batch of several the next
//! one is waited for a moment, since senders that were answered together come back together: else the first of them would
//! have a commit of its own, and the others the next.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use super::{Acceptance, Live, Memory, Store, StoreError, Submission};

/// Hands deliveries to the writer. It ends with the last of its clones.
#[derive(Debug, Clone)]
pub struct Acceptor(mpsc::Sender<Job>);

/// What became of a delivery, once it is on disk.
#[derive(Debug)]
pub struct Ticket(oneshot::Receiver<Result<Acceptance, StoreError>>);

#[derive(Debug)]
struct Job {
    submission: Submission,
    answer: oneshot::Sender<Result<Acceptance, StoreError>>,
}

impl Acceptor {
    /// Hands a delivery over. Refused if more wait than could be answered in time.
    pub fn submit(&self, submission: Submission) -> Result<Ticket, StoreError> {
        let (answer, ticket) = oneshot::channel();
        self.0.try_send(Job { submission, answer }).map_err(|_| StoreError::Busy)?;
        Ok(Ticket(ticket))
    }
}

impl Ticket {
    /// Waits until the delivery, its decision and what it queued are on disk.
    pub async fn acceptance(self) -> Result<Acceptance, StoreError> {
        self.0.await.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolClosed)))
    }
}

impl Store {
    /// Starts a writer. `live` tells what is live; it is asked within the transaction, where nothing of the site can begin
    /// or end.
    pub fn acceptor(&self, live: Arc<Live<'static>>) -> Result<Acceptor, StoreError> {
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        let runtime = self.0.runtime.as_ref().ok_or(StoreError::Unavailable(sqlx::Error::PoolClosed))?;
        // Not a clone of the store: the writer must not keep alive what it runs on.
        let store = Arc::downgrade(&self.0);
        runtime.spawn(write_all(store, receiver, live));
        Ok(Acceptor(sender))
    }
}

async fn write_all(store: std::sync::Weak<super::Inner>, mut jobs: mpsc::Receiver<Job>, live: Arc<Live<'static>>) {
    let (mut batch, mut memory) = (Vec::new(), Memory::default());
    let mut usual = 1;
    while jobs.recv_many(&mut batch, LARGEST_BATCH).await > 0 {
        gather(&mut jobs, &mut batch, usual);
        usual = batch.len();
        let Some(store) = store.upgrade().map(Store) else { return };
        let (submissions, answers): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|Job { submission, answer }| (submission, answer)).unzip();
        let count = submissions.len();
        // A writer that ends with a panic would leave the door closed for ever.
        let written = AssertUnwindSafe(write_batch(&store, submissions, &mut memory, &*live)).catch_unwind().await;
        let accepted = written.unwrap_or_else(|_| {
            log::error!("a bug: storing {count} deliveries panicked");
            (0..count).map(|_| Err(StoreError::Batch("a bug of Landfall".into()))).collect()
        });
        for (answer, accepted) in answers.into_iter().zip(accepted) {
            if answer.send(accepted).is_err() {
                // The sender has gone; what he sent is stored all the same.
            }
        }
    }
}

/// Waits for as many as came the last time, but not for long. It blocks the store's own thread, on which nothing else waits:
/// tokio's clock knows nothing shorter than a millisecond.
fn gather(jobs: &mut mpsc::Receiver<Job>, batch: &mut Vec<Job>, usual: usize) {
    let begin = Instant::now();
    while batch.len() < usual && begin.elapsed() < LONGEST_GATHERING {
        match jobs.try_recv() {
            Ok(job) => batch.push(job),
            Err(TryRecvError::Empty) => std::thread::sleep(GLANCE),
            Err(TryRecvError::Disconnected) => return,
        }
    }
}

/// Each gets an answer. What one delivery cannot have does not take it from the others: they are tried one by one.
async fn write_batch(
    store: &Store,
    submissions: Vec<Submission>,
    memory: &mut Memory,
    live: &Live<'_>,
) -> Vec<Result<Acceptance, StoreError>> {
    let error = match store.accept_all(&submissions, memory, live).await {
        Ok(accepted) => return accepted.into_iter().map(Ok).collect(),
        Err(error) => error,
    };
    if submissions.len() == 1 {
        return vec![Err(error)];
    }
    if !error.is_of_the_rows() {
        return submissions.iter().map(|_| Err(StoreError::Batch(error.to_string()))).collect();
    }
    let mut answers = Vec::with_capacity(submissions.len());
    for submission in submissions {
        let accepted = store.accept_all(std::slice::from_ref(&submission), memory, live).await;
        answers.push(accepted.and_then(|mut accepted| accepted.pop().ok_or(StoreError::Busy)));
    }
    answers
}

/// What a commit takes, more or less: to wait longer would cost more than it saves.
const LONGEST_GATHERING: Duration = Duration::from_micros(600);
const GLANCE: Duration = Duration::from_micros(30);

/// A transaction of this many takes some milliseconds.
const LARGEST_BATCH: usize = 128;

/// More than there are connections.
const MOST_WAITING: usize = 4096;
