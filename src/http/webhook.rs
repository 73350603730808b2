//! `POST /hooks/{repository}`: the head, then the raw body under a limit and a deadline, then the use case, then its answer.
//!
//! Whoever cannot be authentic is refused by the head alone.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::RequestHead;
use actix_web::http::Method;
use actix_web::http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, X_FORWARDED_FOR,
};
use actix_web::rt::time::timeout;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::StreamExt;

use crate::app::receive::{Arrival, Submitted};
use crate::domain::forge::Forge;
use crate::domain::name::RepositoryName;
use crate::domain::network::{Network, client_address};
use crate::view::answer::Answer;
use crate::webhook::{Request, accepts_media_type};

use super::Doors;
use super::budget::Share;
use super::error::{Rejection, status_of};

/// Takes a webhook. It is answered after everything that follows from it is on disk.
pub(super) async fn receive(
    doors: web::Data<Doors>,
    name: web::Path<String>,
    request: HttpRequest,
    mut payload: web::Payload,
) -> Result<HttpResponse, Rejection> {
    let at = Instant::now();
    let Examined { repository, source, headers } = match examine(&doors, &name, request.head()) {
        Ok(examined) => examined,
        Err(rejection) => {
            pass_over_small_body(request.head(), &mut payload).await;
            return Err(rejection);
        }
    };
    let (body, _share) = read_body(&mut payload, request.head(), &doors).await?;
    let request = Request { headers, body };
    let Submitted { note, ticket } = submit(&doors, repository, request, Arrival { source, at }).await?;
    let receipt = doors.service.receipt(note, ticket.acceptance().await)?;
    Ok(HttpResponse::build(status_of(receipt.status)).json(Answer::of(&receipt)))
}

/// A signature over a few kilobytes takes less than going to another thread; over many it would hold the others up.
async fn submit(
    doors: &web::Data<Doors>,
    repository: RepositoryName,
    request: Request,
    arrival: Arrival,
) -> Result<Submitted, Rejection> {
    if request.body.len() <= LONGEST_AT_ONCE {
        return Ok(doors.service.submit(&repository, request, arrival)?);
    }
    let service = Arc::clone(&doors.service);
    Ok(web::block(move || service.submit(&repository, request, arrival)).await??)
}

/// Refuses a client that waits for a word before it sends a body, so that it keeps the body.
pub(super) fn expect(doors: &Doors, head: &RequestHead) -> Result<(), Rejection> {
    let name = head.uri.path().strip_prefix("/hooks/");
    // What is no webhook is answered by whoever has that path.
    let Some(name) = name.filter(|name| head.method == Method::POST && doors.service.repository(name).is_some()) else {
        return Ok(());
    };
    examine(doors, name, head).map(drop)
}

/// A webhook that may be one, as far as its head tells.
struct Examined {
    repository: RepositoryName,
    source: IpAddr,
    headers: Vec<(String, Vec<u8>)>,
}

/// Looks at all that can be known before any of the body is read, and takes no memory of it.
fn examine(doors: &Doors, name: &str, head: &RequestHead) -> Result<Examined, Rejection> {
    if doors.stop.is_draining() {
        return Err(Rejection::Stopping);
    }
    let Doors { service, .. } = doors;
    let server = &service.app.config.server;
    let (repository, forge) = service.repository(name).ok_or(Rejection::UnknownRepository)?;
    let source = source(head, &server.trusted_proxies);
    service.check_source(&repository, source)?;
    check_media(&head.headers, forge)?;
    if announced(head).is_some_and(|length| length > server.body_limit) {
        return Err(Rejection::TooLarge(server.body_limit));
    }
    let request = Request { headers: plain(&head.headers), body: Vec::new() };
    service.check_head(&repository, &request, source)?;
    Ok(Examined { repository, source, headers: request.headers })
}

fn source(head: &RequestHead, trusted: &[Network]) -> IpAddr {
    let peer = head.peer_addr.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    // The map's own iterator runs in one direction only.
    let forwarded: Vec<_> = head.headers.get_all(X_FORWARDED_FOR).map(HeaderValue::as_bytes).collect();
    client_address(peer, forwarded.into_iter(), trusted)
}

fn check_media(headers: &HeaderMap, forge: Forge) -> Result<(), Rejection> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if text(CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(Rejection::Encoded);
    }
    if !accepts_media_type(forge, text(CONTENT_TYPE)) {
        return Err(Rejection::MediaType);
    }
    Ok(())
}

fn announced(head: &RequestHead) -> Option<usize> {
    // Longer than a number can say is longer than any limit.
    let length =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().unwrap_or(usize::MAX));
    head.headers.get(CONTENT_LENGTH).and_then(|value| length(value.to_str().ok()?.trim()))
}

/// Lets a small body go by unread, so that the connection can go on after the refusal. A longer one ends it.
async fn pass_over_small_body(head: &RequestHead, payload: &mut web::Payload) {
    if head.expect() || announced(head).is_none_or(|length| length > SMALL_BODY) {
        return;
    }
    let pass_over = async { while let Some(Ok(_)) = payload.next().await {} };
    if timeout(SMALL_BODY_DEADLINE, pass_over).await.is_err() {
        log::debug!("a small body that was refused did not come in time");
    }
}

/// The bytes as they were sent. What they take of the memory for bodies is given back with the second value.
async fn read_body<'a>(
    payload: &mut web::Payload,
    head: &RequestHead,
    doors: &'a Doors,
) -> Result<(Vec<u8>, Share<'a>), Rejection> {
    let limit = doors.service.app.config.server.body_limit;
    let (mut body, mut share) = (Vec::with_capacity(first_room(head)), doors.budget.share());
    let begin = Instant::now();
    loop {
        // However long it is said to be, what counts is what came.
        let deadline = BODY_DEADLINE + Duration::from_secs(body.len() as u64 / SLOWEST_BYTES_PER_SEC);
        let left = deadline.saturating_sub(begin.elapsed());
        let Some(chunk) = timeout(left, payload.next()).await.map_err(|_| Rejection::TooSlow)? else { break };
        let chunk = chunk.map_err(|_| Rejection::BrokenBody)?;
        let length = body.len() + chunk.len();
        if length > limit {
            return Err(Rejection::TooLarge(limit));
        }
        share.grow(length)?;
        body.extend_from_slice(&chunk);
    }
    Ok((body, share))
}

/// Room for a body that is not large, so that it is not copied while it grows. Not touched before it is used, nor counted.
fn first_room(head: &RequestHead) -> usize {
    announced(head).filter(|length| *length <= LONGEST_AT_ONCE).unwrap_or_default()
}

fn plain(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

/// What a body may take, plus what has come of it at the slowest rate that is not a trick to hold a connection: no forge
/// waits longer for its answer.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
const SLOWEST_BYTES_PER_SEC: u64 = 1 << 20;

/// To prove and read this takes about a millisecond.
const LONGEST_AT_ONCE: usize = 256 << 10;

/// Nearly all pushes are below it.
const SMALL_BODY: usize = 64 << 10;

/// For a body that is on its way when its head is.
const SMALL_BODY_DEADLINE: Duration = Duration::from_secs(1);
