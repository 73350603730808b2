//! The HTTP doors: async, thin, and closed to everything that was not asked for.
//!
//! ```text
//! mod      the server: listens, runs on a thread of its own, stops       webhook   POST /hooks/{repository}
//! error    which status code says what; nobody else chooses one          health    /healthz, /readyz
//! wire     what a connection may bring between two requests, and when    budget    what bodies may take of the memory
//! ```
//!
//! Bodies are streamed under a limit and a deadline, never decompressed. Absent: TLS, which is the reverse proxy's; any
//! decision (`app`, `domain`).

mod budget;
mod error;
mod health;
mod webhook;
mod wire;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use actix_http::{HttpService, Request, Response};
use actix_service::{ServiceFactoryExt, map_config};
use actix_web::body::BoxBody;
use actix_web::dev::{AppConfig, Server as HttpServer, ServerHandle, fn_service};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpResponse, ResponseError, web};
use futures_util::future::ready;

use crate::app::Service;
use crate::engine::threads::Pulse;
use crate::sys::stop::Stop;
use crate::sys::{limits, memory};

use budget::Budget;
use error::Rejection;
use wire::Connection;

/// What the handlers share.
#[derive(Debug)]
pub struct Doors {
    /// The use cases.
    pub service: Arc<Service>,
    /// Whether the workers live.
    pub pulse: Pulse,
    /// Whether the service stops.
    pub stop: Stop,
    budget: Budget,
}

impl Doors {
    /// Doors to this service.
    pub fn new(service: Arc<Service>, pulse: Pulse, stop: Stop) -> Self {
        let budget = Budget::new(service.app.config.server.body_limit);
        Self { service, pulse, stop, budget }
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
        memory::give_large_buffers_back();
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

/// What `actix_web::HttpServer` does, with a say in what is read from a connection, and in who is told to send a body.
fn build(listener: TcpListener, doors: Doors) -> io::Result<HttpServer> {
    let address = listener.local_addr()?;
    let doors = web::Data::new(doors);
    let builder = HttpServer::build();
    let stopping = builder.graceful_shutdown_signal();
    let serve = move || {
        let (stopping, expected) = (stopping.clone(), doors.clone());
        let app = App::new().app_data(doors.clone()).wrap(from_fn(wire::attend)).wrap(always()).configure(routes);
        let http = HttpService::build()
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(HEAD_TIMEOUT)
            .client_disconnect_timeout(LINGER)
            .local_addr(address)
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .on_connect_ext(Connection::introduce)
            .expect(fn_service(move |request: Request| {
                let refused = webhook::expect(&expected, request.head());
                ready(refused.map(|()| request).map_err(|rejection| with_headers(rejection.error_response())))
            }))
            .h1(map_config(app, |()| AppConfig::default()));
        let connect = |stream: TcpStream| {
            let peer = stream.peer_addr().ok();
            ready(Ok((Connection::new(stream), peer)))
        };
        fn_service(connect).and_then(http)
    };
    let server = builder
        .workers(WORKERS)
        .max_concurrent_connections(connections() / WORKERS)
        .shutdown_timeout(SHUTDOWN_SECS)
        .disable_signals()
        .listen("http", listener, serve)?;
    Ok(server.run())
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource("/hooks/{repository}")
                .route(web::post().to(webhook::receive))
                .default_service(web::to(|| async { Rejection::WrongMethod { allowed: "POST" } })),
        )
        .service(readers("/healthz", web::to(health::alive)))
        .service(readers("/readyz", web::to(health::ready)))
        .default_service(web::to(|| async { Rejection::NotFound }));
}

/// The headers of every answer.
fn always() -> DefaultHeaders {
    ALWAYS.into_iter().fold(DefaultHeaders::new(), DefaultHeaders::add)
}

/// The same, for an answer that does not pass the app.
fn with_headers(mut response: HttpResponse) -> Response<BoxBody> {
    for (name, value) in ALWAYS {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response.into()
}

/// How many connections this process may have open, and be able to work.
fn connections() -> usize {
    let files = limits::raise_open_files((MOST_CONNECTIONS + OTHER_FILES) as u64).unwrap_or_else(|error| {
        log::warn!("cannot ask for more open files: {error}");
        FEWEST_FILES
    });
    let spare = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(OTHER_FILES);
    if spare < MOST_CONNECTIONS {
        log::warn!("may open {files} files only, and takes fewer connections for it; raise the limit (`ulimit -Hn`)");
    }
    spare.clamp(FEWEST_CONNECTIONS, MOST_CONNECTIONS)
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

/// Forges use a handful, but whoever means harm takes what there is, and has each for no longer than the largest body may
/// take. An idle one costs 11 kB, one with an unfinished head up to 128 KiB: with `budget`'s 96 MiB for bodies the whole stays
/// below 256 MiB. Beyond this many the next ones wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 1024;

/// Fewer would be a service in name only.
const FEWEST_CONNECTIONS: usize = 64;

/// Files that are open besides: the store, and pipes and directories of the deployments.
const OTHER_FILES: usize = 512;

/// What every system grants.
const FEWEST_FILES: u64 = 1024;

const ALWAYS: [(&str, &str); 2] = [("cache-control", "no-store"), ("x-content-type-options", "nosniff")];

/// How long a connection without a request is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How long a client that was answered before it had sent everything has to read the answer.
const LINGER: Duration = Duration::from_secs(1);

/// How long a client may take to send its request line and headers.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long answers that are under way are waited for.
const SHUTDOWN_SECS: u64 = 10;
