//! The HTTP doors: async, thin, and closed to everything that was not asked for.
//!
//! ```text
//! mod      the server: listens, runs on a thread of its own, stops       webhook   POST /hooks/{repository}
//! error    which status code says what; nobody else chooses one          health    /healthz, /readyz
//! ```
//!
//! Bodies are streamed under a limit and a deadline, never decompressed. Absent: TLS and trust in `X-Forwarded-*`, which
//! are the reverse proxy's; any decision (`app`).

mod error;
mod health;
mod webhook;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::DefaultHeaders;
use actix_web::{App, HttpServer, web};
use tokio::sync::Semaphore;

use crate::app::Service;
use crate::engine::threads::Pulse;
use crate::sys::stop::Stop;

use error::Rejection;

/// What the handlers share.
#[derive(Debug)]
pub struct Doors {
    /// The use cases.
    pub service: Arc<Service>,
    /// Whether the workers live.
    pub pulse: Pulse,
    /// Whether the service stops.
    pub stop: Stop,
    memory: Semaphore,
}

impl Doors {
    /// Doors to this service.
    pub fn new(service: Arc<Service>, pulse: Pulse, stop: Stop) -> Self {
        Self { service, pulse, stop, memory: Semaphore::new(MOST_BODIES / MEMORY_UNIT) }
    }
}

/// The server on its thread. Whoever starts it stops it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    handle: ServerHandle,
    thread: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Answers on a socket that listens already, so that a port in use is known before anything else is started.
    pub fn start(listener: TcpListener, doors: Doors) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (tell, told) = mpsc::channel();
        let thread = std::thread::Builder::new().name("http".into()).spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let server = build(listener, doors)?;
                // Nobody listens only if `start` has given up.
                tell.send(server.handle()).map_err(io::Error::other)?;
                server.await
            })
        })?;
        match told.recv() {
            Ok(handle) => Ok(Self { address, handle, thread }),
            // The thread ended before it had anything to tell.
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error),
                Ok(Ok(())) | Err(_) => Err(io::Error::other("the HTTP thread ended at once")),
            },
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it still answers.
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Answers what is under way, within a limit, and ends.
    pub fn stop(self) -> io::Result<()> {
        // The command is sent when the future is made, and its answer comes after the thread has ended.
        drop(self.handle.stop(true));
        self.thread.join().map_err(|_| io::Error::other("the HTTP thread panicked"))?
    }
}

fn build(listener: TcpListener, doors: Doors) -> io::Result<actix_web::dev::Server> {
    let doors = web::Data::new(doors);
    let factory = move || {
        App::new()
            .app_data(doors.clone())
            .wrap(DefaultHeaders::new().add(("cache-control", "no-store")).add(("x-content-type-options", "nosniff")))
            .service(
                web::resource("/hooks/{repository}")
                    .route(web::post().to(webhook::receive))
                    .default_service(web::to(|| async { Rejection::WrongMethod { allowed: "POST" } })),
            )
            .service(readers("/healthz", web::to(health::alive)))
            .service(readers("/readyz", web::to(health::ready)))
            .default_service(web::to(|| async { Rejection::NotFound }))
    };
    let server = HttpServer::new(factory)
        .workers(WORKERS)
        .max_connections(MOST_CONNECTIONS / WORKERS)
        .client_request_timeout(HEAD_TIMEOUT)
        .shutdown_timeout(SHUTDOWN_SECS)
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}

/// A resource that can be read: GET, and HEAD, which load balancers like.
fn readers(path: &str, route: actix_web::Route) -> actix_web::Resource {
    use actix_web::guard;
    web::resource(path)
        .route(route.guard(guard::Any(guard::Get()).or(guard::Head())))
        .default_service(web::to(|| async { Rejection::WrongMethod { allowed: "GET, HEAD" } }))
}

/// A webhook costs a signature and one transaction; more threads would only wait for the disk.
const WORKERS: usize = 2;

/// Forges use a handful, and a reverse proxy stands before us.
const MOST_CONNECTIONS: usize = 256;

/// What all bodies together may take of the memory, in bytes: ten of the largest that GitHub sends. Whoever comes then is
/// asked to come again.
const MOST_BODIES: usize = 256 << 20;

/// The step in which that memory is counted.
const MEMORY_UNIT: usize = 1 << 10;

/// How long a client may take to send its request line and headers.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long answers that are under way are waited for.
const SHUTDOWN_SECS: u64 = 10;
