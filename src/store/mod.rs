//! What outlives the process: deliveries, the queue, the journals. The only SQL of the house.
//!
//! ```text
//! mod          Store: opens, migrates, and the blocking front door    types       what goes in and comes out
//! acceptor     many deliveries in one transaction
//! statements/  every SQL statement, compiled once for each database   migrations/ forward only
//! ```
//!
//! SQLite and PostgreSQL run the same text. Async ends here: every method of the store blocks, and must not be called from an async
//! task; an `Acceptor` is what async tasks use. A writer's transaction is durable when its method returns (SQLite: WAL with `synchronous=FULL`).

mod acceptor;
mod postgres;
mod sqlite;
mod types;

use std::collections::BTreeSet;
use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::Connection;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::runtime::Runtime;

use crate::domain::deployment::{DeploymentId, Entry, Outcome};
use crate::domain::name::{NodeName, SiteName};
use crate::domain::push::RefName;
use crate::domain::reconcile::Sighting;
use crate::domain::release_id::ReleaseId;

pub use acceptor::{Acceptor, Ticket};
use types::Memory;
pub use types::{
    Acceptance, Claim, Delivery, DeliveryFilter, DeliveryRetention, DeliverySite, Deployment, DeploymentFilter,
    FollowUp, Hold, JournalLine, Live, NewDelivery, NewDeployment, Reconciled, Replay, RepositoryId, SiteAcceptance,
    StoreError, Submission, Verdict, VerdictFor,
};

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations");

/// The store. Clones share it; threads and processes may use it at the same time.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pools: Pools,
    runtime: Option<Runtime>,
}

#[derive(Debug)]
enum Pools {
    /// SQLite allows one writer; a second connection of ours would only wait for it.
    Sqlite { writer: SqlitePool, readers: SqlitePool },
    /// PostgreSQL sorts its writers out itself.
    Postgres(PgPool),
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The last clone may go in a thread that must not block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runs a statement in a writer's transaction, durable when it returns.
macro_rules! write_async {
    ($store:expr, $module:ident::$function:ident($($argument:expr),*)) => {
        match &$store.0.pools {
            Pools::Sqlite { writer, .. } => {
                let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
                let value = sqlite::statements::$module::$function(&mut transaction, $($argument),*).await?;
                transaction.commit().await?;
                Ok(value)
            }
            Pools::Postgres(pool) => {
                // What a server or a role may set as its default would make statements fail that only have to wait.
                let mut transaction = pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
                let value = postgres::statements::$module::$function(&mut transaction, $($argument),*).await?;
                transaction.commit().await?;
                Ok(value)
            }
        }
    };
}

/// The same, for a thread that may block.
macro_rules! write {
    ($store:expr, $module:ident::$function:ident($($argument:expr),*)) => {
        $store.block_on(async { write_async!($store, $module::$function($($argument),*)) })
    };
}

/// Runs a statement that only reads.
macro_rules! read {
    ($store:expr, $module:ident::$function:ident($($argument:expr),*)) => {
        $store.block_on(async {
            match &$store.0.pools {
                Pools::Sqlite { readers, .. } => {
                    let mut connection = readers.acquire().await?;
                    sqlite::statements::$module::$function(&mut connection, $($argument),*).await
                }
                Pools::Postgres(pool) => {
                    let mut connection = pool.acquire().await?;
                    postgres::statements::$module::$function(&mut connection, $($argument),*).await
                }
            }
        })
    };
}

impl Store {
    /// Opens `sqlite:/path/landfall.db` (made if it is not there) or `postgres://…`, and brings its schema up to date. A
    /// store that a newer Landfall has changed is refused.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(|error| StoreError::Unavailable(sqlx::Error::Io(error)))?;
        let pools = runtime.block_on(async {
            let pools = if url.starts_with("postgres") { open_postgres(url).await? } else { open_sqlite(url).await? };
            migrate(&pools).await?;
            Ok::<_, StoreError>(pools)
        })?;
        Ok(Self(Arc::new(Inner { pools, runtime: Some(runtime) })))
    }

    fn block_on<T>(&self, future: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        match &self.0.runtime {
            Some(runtime) => runtime.block_on(future),
            None => Err(StoreError::Unavailable(sqlx::Error::PoolClosed)),
        }
    }

    /// Stores a delivery with its verdict and the deployments it leads to, in one transaction. `live` tells what is live on
    /// a site; it is asked within the transaction, where nothing of the site can begin or end.
    pub fn accept(&self, submission: Submission, live: &Live<'_>) -> Result<Acceptance, StoreError> {
        let accepted =
            self.block_on(self.accept_all(std::slice::from_ref(&submission), &mut Memory::default(), live))?;
        accepted.into_iter().next().ok_or_else(|| StoreError::Corrupt("a delivery without an answer".into()))
    }

    async fn accept_all(
        &self,
        submissions: &[Submission],
        memory: &mut Memory,
        live: &Live<'_>,
    ) -> Result<Vec<Acceptance>, StoreError> {
        // What a transaction has learned counts once it is committed.
        let mut learned = memory.clone();
        let accepted: Result<_, StoreError> = write_async!(self, acceptance::accept(submissions, &mut learned, live));
        if accepted.is_ok() {
            *memory = learned;
        }
        accepted
    }

    /// Deliveries, newest first.
    pub fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<Delivery>, StoreError> {
        read!(self, delivery::deliveries(filter))
    }

    /// A delivery by its number.
    pub fn delivery(&self, id: i64) -> Result<Option<Delivery>, StoreError> {
        read!(self, delivery::delivery(id))
    }

    /// The body with this digest, if it is still kept.
    pub fn body(&self, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
        read!(self, body::body(digest))
    }

    /// Drops a part of what is not to be kept any more; gives back how many deliveries and bodies. Nothing: it is done.
    pub fn prune_deliveries(&self, retention: &DeliveryRetention, now: DateTime<Utc>) -> Result<u64, StoreError> {
        let DeliveryRetention { keep, keep_count, keep_bodies } = *retention;
        let before = (now - keep).timestamp_millis();
        let mut dropped = 0;
        for ids in read!(self, delivery::prunable(before, keep_count))?.chunks(PRUNED_TOGETHER) {
            dropped += write!(self, delivery::prune(ids))?;
        }
        let now = now.timestamp_millis();
        for digests in read!(self, body::prunable(before, keep_bodies))?.chunks(PRUNED_TOGETHER) {
            dropped += write!(self, body::prune(digests, now))?;
        }
        Ok(dropped)
    }

    /// Queues what an operator asks for: it never counts as a duplicate and takes the place of the one that waits. A
    /// manual deploy lifts a hold.
    pub fn enqueue(&self, order: &NewDeployment, now: DateTime<Utc>) -> Result<DeploymentId, StoreError> {
        write!(self, queue::enqueue(order, now))
    }

    /// Queues the tip that a remote shows, if its push was lost. That is decided within the transaction: a push, an order or
    /// a hold that came while the remote was asked is seen.
    pub fn reconcile(
        &self,
        site: &SiteName,
        node: &NodeName,
        seen: &Sighting,
        live: &Live<'_>,
        now: DateTime<Utc>,
    ) -> Result<Reconciled, StoreError> {
        write!(self, reconcile::reconcile(site, node, seen, live, now))
    }

    /// The ref that a site was last to deploy, apart from what operators ordered and what was superseded.
    pub fn last_ref(&self, site: &SiteName, node: &NodeName) -> Result<Option<RefName>, StoreError> {
        read!(self, reconcile::last_ref(site, node))
    }

    /// Ends a deployment that still waits; one that runs or has ended is left alone.
    pub fn cancel_waiting(&self, id: DeploymentId, reason: &str, now: DateTime<Utc>) -> Result<(), StoreError> {
        write!(self, queue::cancel_waiting(id, reason, now))
    }

    /// The sites of a node for which something could be claimed at this moment, what waits longest first.
    pub fn waiting_sites(&self, node: &NodeName) -> Result<Vec<SiteName>, StoreError> {
        read!(self, queue::waiting_sites(node))
    }

    /// Takes what waits for this site, if something does and nothing of the site runs.
    pub fn claim_next(
        &self,
        site: &SiteName,
        node: &NodeName,
        owner: &str,
        lease: Duration,
        now: DateTime<Utc>,
    ) -> Result<Option<Claim>, StoreError> {
        write!(self, queue::claim_next(site, node, owner, now, now + lease))
    }

    /// Takes this deployment if it waits and nothing of its site runs.
    pub fn claim_one(
        &self,
        id: DeploymentId,
        owner: &str,
        lease: Duration,
        now: DateTime<Utc>,
    ) -> Result<Option<Claim>, StoreError> {
        write!(self, queue::claim_one(id, owner, now, now + lease))
    }

    /// Takes over what a dead process ran, or left stuck. Its token counts for nothing from now on. What is stuck cannot be
    /// taken over while another of its site runs.
    pub fn take_over(
        &self,
        id: DeploymentId,
        owner: &str,
        lease: Duration,
        now: DateTime<Utc>,
    ) -> Result<Claim, StoreError> {
        write!(self, queue::take_over(id, owner, now, now + lease))
    }

    /// Renews the leases of everything that this owner runs; gives back how many.
    pub fn renew(&self, owner: &str, lease: Duration, now: DateTime<Utc>) -> Result<u64, StoreError> {
        write!(self, queue::renew(owner, now + lease))
    }

    /// Appends a line to a journal, and brings the deployment's row up to date with it.
    pub fn append(&self, id: DeploymentId, token: &str, entry: &Entry, now: DateTime<Utc>) -> Result<(), StoreError> {
        write!(self, journal::append(id, token, entry, now))
    }

    /// Records the end and everything that follows from it, in one transaction. Gives back the new attempt, if any.
    pub fn finish(
        &self,
        id: DeploymentId,
        token: &str,
        outcome: &Outcome,
        follow_up: &FollowUp,
        now: DateTime<Utc>,
    ) -> Result<Option<DeploymentId>, StoreError> {
        write!(self, journal::finish(id, token, outcome, follow_up, now))
    }

    /// The journal of a deployment.
    pub fn journal(&self, id: DeploymentId) -> Result<Vec<JournalLine>, StoreError> {
        read!(self, journal::lines(id))
    }

    /// A deployment by its number.
    pub fn deployment(&self, id: DeploymentId) -> Result<Option<Deployment>, StoreError> {
        read!(self, queue::deployment(id))
    }

    /// Deployments, newest first.
    pub fn deployments(&self, filter: &DeploymentFilter) -> Result<Vec<Deployment>, StoreError> {
        read!(self, queue::deployments(filter))
    }

    /// On SQLite there is one machine: what was stored under an earlier name of it is its own. Gives back how much.
    pub fn adopt(&self, node: &NodeName) -> Result<u64, StoreError> {
        match self.0.pools {
            Pools::Sqlite { .. } => write!(self, queue::adopt(node)),
            Pools::Postgres(_) => Ok(0),
        }
    }

    /// What waits or runs for a site.
    pub fn pending(&self, site: &SiteName) -> Result<Vec<Deployment>, StoreError> {
        read!(self, queue::pending_of(site))
    }

    /// What ended last for a site, apart from what was superseded.
    pub fn last_ended(&self, site: &SiteName) -> Result<Option<Deployment>, StoreError> {
        read!(self, queue::last_ended(site))
    }

    /// What runs on a node, then what is stuck there, each newest first as undos are taken: what is stuck runs again once it
    /// is taken over, which cannot be before the one of its site that runs has ended.
    pub fn unfinished(&self, node: &NodeName) -> Result<Vec<Deployment>, StoreError> {
        read!(self, queue::unfinished(node))
    }

    /// The newest name a release of the site ever had on the node, also if it failed or is gone.
    pub fn newest_release(&self, site: &SiteName, node: &NodeName) -> Result<Option<ReleaseId>, StoreError> {
        read!(self, site::newest_release(site, node))
    }

    /// The releases that were rolled away from.
    pub fn bad_releases(&self, site: &SiteName, node: &NodeName) -> Result<BTreeSet<ReleaseId>, StoreError> {
        read!(self, site::bad_releases(site, node))
    }

    /// Why and since when the site refuses pushes, if it does.
    pub fn hold(&self, site: &SiteName) -> Result<Option<Hold>, StoreError> {
        read!(self, site::hold(site))
    }

    /// Writes something that means nothing, durably: can a push be accepted?
    pub fn check_writable(&self) -> Result<(), StoreError> {
        write!(self, queue::write_something())
    }
}

async fn migrate(pools: &Pools) -> Result<(), StoreError> {
    let refused = |error| match error {
        MigrateError::VersionMissing(version) => StoreError::Newer(version),
        other => StoreError::Migration(other),
    };
    match pools {
        Pools::Sqlite { writer, .. } => {
            // sqlx locks PostgreSQL while it migrates, but not SQLite: two processes would make the same table.
            let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
            MIGRATIONS.run(&mut *transaction).await.map_err(refused)?;
            Ok(transaction.commit().await?)
        }
        Pools::Postgres(pool) => MIGRATIONS.run(pool).await.map_err(refused),
    }
}

async fn open_sqlite(url: &str) -> Result<Pools, StoreError> {
    let options = SqliteConnectOptions::from_str(url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // NORMAL would lose the last accepted pushes in a power cut.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(PREPARED)
        .foreign_keys(true);
    let writer = open_writer(&options).await?;
    let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options).await?;
    Ok(Pools::Sqlite { writer, readers })
}

/// While another process makes the file and switches it to WAL, SQLite says "busy" at once, whatever its timeout.
async fn open_writer(options: &SqliteConnectOptions) -> Result<SqlitePool, StoreError> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        let opened = SqlitePoolOptions::new()
            .max_connections(1)
            // After a full disk SQLite has rolled back by itself, and sqlx counts wrongly from then on: such a one is closed.
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .connect_with(options.clone())
            .await;
        let is_busy = |error: &sqlx::Error| {
            let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
            code.is_some_and(|code| code.parse().is_ok_and(|code: u32| code & 0xff == SQLITE_BUSY))
        };
        match opened {
            Err(error) if is_busy(&error) && Instant::now() < deadline => tokio::time::sleep(BUSY_POLL).await,
            opened => return Ok(opened?),
        }
    }
}

async fn open_postgres(url: &str) -> Result<Pools, StoreError> {
    let options = PgConnectOptions::from_str(url)?.statement_cache_capacity(PREPARED);
    Ok(Pools::Postgres(PgPoolOptions::new().max_connections(POSTGRES_CONNECTIONS).connect_with(options).await?))
}

/// In one transaction, for which pushes wait.
const PRUNED_TOGETHER: usize = 64;

/// Another process (the command line beside the server) may be writing; its transactions take milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const BUSY_POLL: Duration = Duration::from_millis(20);

/// SQLite's primary result code, the low byte of an extended one.
const SQLITE_BUSY: u32 = 5;

/// Room for each length of each statement that is for many rows at once.
const PREPARED: usize = 256;

const READERS: u32 = 4;

const POSTGRES_CONNECTIONS: u32 = 16;
