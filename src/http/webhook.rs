//! `POST /hooks/{repository}`: the raw body under a limit and a deadline, then the use case, then its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName};
use actix_web::rt::time::timeout;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::StreamExt;
use tokio::sync::SemaphorePermit;

use crate::app::receive::{Arrival, Submitted};
use crate::domain::forge::Forge;
use crate::domain::name::RepositoryName;
use crate::view::answer::Answer;
use crate::webhook::{Request, accepts_media_type};

use super::error::{Rejection, status_of};
use super::{Doors, MEMORY_UNIT};

/// Takes a webhook. It is answered after everything that follows from it is on disk.
pub(super) async fn receive(
    doors: web::Data<Doors>,
    name: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Rejection> {
    let arrival = Arrival { source: request.peer_addr().map(|peer| peer.ip()), at: Instant::now() };
    if doors.stop.is_draining() {
        return Err(Rejection::Stopping);
    }
    let (repository, forge) = doors.service.repository(&name).ok_or(Rejection::UnknownRepository)?;
    check_head(request.headers(), forge)?;
    let (body, _memory) = read_body(payload, request.headers(), &doors).await?;
    let request = Request { headers: plain(request.headers()), body };
    let Submitted { note, ticket } = submit(&doors, repository, request, arrival).await?;
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

fn check_head(headers: &HeaderMap, forge: Forge) -> Result<(), Rejection> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if text(CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(Rejection::Encoded);
    }
    if !accepts_media_type(forge, text(CONTENT_TYPE)) {
        return Err(Rejection::MediaType);
    }
    Ok(())
}

/// The bytes as they were sent. A length that is too large is refused before any of it is read.
/// What it takes of the memory for bodies is given back with the second value.
async fn read_body<'a>(
    mut payload: web::Payload,
    headers: &HeaderMap,
    doors: &'a Doors,
) -> Result<(Vec<u8>, SemaphorePermit<'a>), Rejection> {
    let limit = doors.service.app.config.server.body_limit;
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(Rejection::TooLarge(limit));
    }
    let read = async {
        let mut body = Vec::new();
        let mut memory = take_memory(doors, 0)?;
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| Rejection::BrokenBody)?;
            if body.len() + chunk.len() > limit {
                return Err(Rejection::TooLarge(limit));
            }
            let more = (body.len() + chunk.len()).div_ceil(MEMORY_UNIT) - memory.num_permits();
            memory.merge(take_memory(doors, more)?);
            body.extend_from_slice(&chunk);
        }
        Ok((body, memory))
    };
    let deadline = BODY_DEADLINE + Duration::from_secs(announced.unwrap_or(limit) as u64 / SLOWEST_BYTES_PER_SEC);
    timeout(deadline, read).await.map_err(|_| Rejection::TooSlow)?
}

fn take_memory(doors: &Doors, units: usize) -> Result<SemaphorePermit<'_>, Rejection> {
    let units = u32::try_from(units).map_err(|_| Rejection::Busy)?;
    doors.memory.try_acquire_many(units).map_err(|_| Rejection::Busy)
}

fn plain(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

/// What a body may take, plus its length at the slowest rate that is not a trick to hold a connection: no forge waits longer
/// for its answer.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
const SLOWEST_BYTES_PER_SEC: u64 = 1 << 20;

/// To prove and read this takes about a millisecond.
const LONGEST_AT_ONCE: usize = 256 << 10;
