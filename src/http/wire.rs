//! One connection: how long it may take to bring a request, and how much it may bring that nobody reads.
//!
//! ```text
//!      accepted                 a head is whole                  the answer is there
//! ───────────────▶ Waiting ───────────────────▶ Working ───────────────────────────▶ Waiting …
//!          10 s and 1 MiB, then it is over       the handler's own limits
//! ```
//!
//! actix sets a deadline for the first head of a connection only, and reads what was announced to a request that is
//! answered already: for a second or, in chunks, for ever. Here both have an end on every request. And it answers
//! whatever it has read before it looks whether anybody reads the answers: here it gets requests in small steps.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Extensions, RequestHead, ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::rt::net::TcpStream;
use actix_web::{Error, ResponseError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::error::Rejection;

/// A connection that reports its end to whoever reads from it too long or too much.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    wire: Rc<Wire>,
    deadline: Pin<Box<Sleep>>,
    /// What was read is worked on before more is read.
    is_pausing: bool,
}

/// What the handlers of a connection's requests and the connection itself both know.
#[derive(Debug)]
pub(super) struct Wire {
    state: Cell<State>,
    reader: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// For the whole of the next head, with all that comes before it.
    Waiting { until: Instant, bytes_left: usize },
    /// On a request.
    Working,
}

/// A request is worked on for as long as this lives.
#[derive(Debug)]
struct Work(Rc<Wire>);

impl Connection {
    /// Begins to wait for the first request.
    pub(super) fn new(stream: TcpStream) -> Self {
        let until = Instant::now() + LONGEST_WAIT;
        let state = Cell::new(State::Waiting { until, bytes_left: MOST_UNREAD });
        let wire = Rc::new(Wire { state, reader: RefCell::default() });
        Self { stream, wire, deadline: Box::pin(sleep_until(until)), is_pausing: false }
    }

    /// Lets the handlers of its requests find it.
    pub(super) fn introduce(&self, data: &mut Extensions) {
        data.insert(self.wire.clone());
    }
}

impl Wire {
    fn begin(wire: Rc<Self>) -> Work {
        wire.state.set(State::Working);
        Work(wire)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let Self(wire) = self;
        wire.state.set(State::Waiting { until: Instant::now() + LONGEST_WAIT, bytes_left: MOST_UNREAD });
        // Nobody else would look at the clock if nothing came any more.
        if let Some(reader) = wire.reader.borrow_mut().take() {
            reader.wake();
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, wire, deadline, is_pausing } = self.get_mut();
        let State::Waiting { until, bytes_left } = wire.state.get() else {
            wire.reader.replace(Some(context.waker().clone()));
            return Pin::new(stream).poll_read(context, buffer);
        };
        if deadline.deadline() != until {
            deadline.as_mut().reset(until);
        }
        // To say that nothing more comes is what closes the connection after the answer, if there is one.
        if bytes_left == 0 || deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if std::mem::take(is_pausing) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let room = buffer.remaining().min(LONGEST_STEP);
        let mut step = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(stream).poll_read(context, &mut step))?;
        let came = step.filled().len();
        *is_pausing = came == LONGEST_STEP;
        buffer.advance(came);
        let bytes_left = bytes_left.saturating_sub(came);
        wire.state.set(State::Waiting { until, bytes_left });
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// Works on a request, unless its head is larger than any forge's.
pub(super) async fn attend(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let _work = request.conn_data::<Rc<Wire>>().cloned().map(Wire::begin);
    if is_large(request.head()) {
        return Ok(request.into_response(Rejection::HeadTooLarge.error_response()));
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

fn is_large(head: &RequestHead) -> bool {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let lengths = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + SEPARATORS);
    target + lengths.sum::<usize>() > LARGEST_HEAD || head.headers.len() > MOST_HEADERS
}

/// From an answer to the next head that is whole: as long as an idle connection is kept, and then as long as a head may take.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What may come in that time: a head, or the rest of a body that was refused, so that its sender gets to read why.
const MOST_UNREAD: usize = 1 << 20;

/// What is read at once of requests that may be many. A forge's has less, with its body.
const LONGEST_STEP: usize = 16 << 10;

/// GitHub sends 1 kB in 15 headers, and proxies add some. actix itself gives up at 128 KiB or 96 headers, with an answer that
/// has no body.
pub(super) const LARGEST_HEAD: usize = 16 << 10;
pub(super) const MOST_HEADERS: usize = 64;

/// The colon, the space and the end of the line.
const SEPARATORS: usize = 4;
