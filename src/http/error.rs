//! What a client did wrong, or we could not do: the only place that chooses a status code.

use std::fmt;

use actix_web::body::BoxBody;
use actix_web::error::BlockingError;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, RETRY_AFTER};
use actix_web::{HttpRequest, HttpResponse, Responder, ResponseError};
use serde::Serialize;

use crate::app::receive::ReceiveError;
use crate::domain::admission::{DeliveryStatus, SiteStatus};

use super::wire::{LARGEST_HEAD, MOST_HEADERS};

/// A request that is not answered with what it asked for.
#[derive(Debug)]
pub(super) enum Rejection {
    /// No page has this path.
    NotFound,
    /// No repository has this name.
    UnknownRepository,
    /// The path takes other methods.
    WrongMethod {
        /// Those.
        allowed: &'static str,
    },
    /// The headers are longer, or more, than any forge's.
    HeadTooLarge,
    /// The body is longer than the limit, in bytes.
    TooLarge(usize),
    /// The body did not come in time.
    TooSlow,
    /// The client went away, or sent what is no HTTP.
    BrokenBody,
    /// A compressed body: the signature is over what was sent, and bombs are small.
    Encoded,
    /// The forge sends another media type.
    MediaType,
    /// Not authentic. Says nothing more.
    Unauthorized,
    /// Authentic, and makes no sense, for this reason.
    Malformed(String),
    /// The store did not take it.
    StoreUnavailable,
    /// The service stops.
    Stopping,
    /// All memory for bodies is in use.
    Busy,
    /// A bug of ours.
    Internal,
}

#[derive(Serialize)]
struct Body<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Rejection {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound | Self::UnknownRepository => StatusCode::NOT_FOUND,
            Self::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BrokenBody | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Encoded | Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::StoreUnavailable | Self::Stopping | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::NotFound | Self::UnknownRepository => "not_found",
            Self::WrongMethod { .. } => "method_not_allowed",
            Self::HeadTooLarge | Self::TooLarge(_) => "too_large",
            Self::TooSlow => "timeout",
            Self::BrokenBody | Self::Malformed(_) => "malformed",
            Self::Encoded | Self::MediaType => "unsupported",
            Self::Unauthorized => "unauthorized",
            Self::StoreUnavailable | Self::Stopping | Self::Busy => "unavailable",
            Self::Internal => "error",
        }
    }

    fn reason(&self) -> Option<String> {
        match self {
            Self::NotFound => Some("there is no such page".into()),
            Self::UnknownRepository => Some("there is no repository of this name".into()),
            Self::WrongMethod { allowed } => Some(format!("this path takes {allowed}")),
            Self::HeadTooLarge => {
                Some(format!("the headers are longer than {LARGEST_HEAD} bytes, or more than {MOST_HEADERS}"))
            }
            Self::TooLarge(limit) => Some(format!("the body is longer than {limit} bytes")),
            Self::TooSlow => Some("the body took too long".into()),
            Self::BrokenBody => Some("the body could not be read".into()),
            Self::Malformed(reason) => Some(reason.clone()),
            Self::Encoded => Some("a body with a content-encoding is not taken".into()),
            Self::MediaType => Some("the forge of this repository sends another content-type".into()),
            Self::StoreUnavailable => Some("the delivery could not be stored; send it again".into()),
            Self::Stopping => Some("the service stops; send it again".into()),
            Self::Busy => Some("too many deliveries at once; send it again".into()),
            Self::Unauthorized | Self::Internal => None,
        }
    }
}

impl From<BlockingError> for Rejection {
    fn from(error: BlockingError) -> Self {
        log::error!("a handler did not come to its end: {error}");
        Self::Internal
    }
}

impl From<ReceiveError> for Rejection {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::UnknownRepository => Self::UnknownRepository,
            ReceiveError::Refused => Self::Unauthorized,
            ReceiveError::Malformed(malformed) => Self::Malformed(malformed.to_string()),
            ReceiveError::Store(_) => Self::StoreUnavailable,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

impl ResponseError for Rejection {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status());
        match self {
            Self::WrongMethod { allowed } => {
                response.insert_header((ALLOW, *allowed));
            }
            Self::StoreUnavailable | Self::Stopping | Self::Busy => {
                response.insert_header((RETRY_AFTER, RETRY_AFTER_SECS));
            }
            // What is left of the body is not read: the connection cannot go on.
            Self::HeadTooLarge | Self::TooLarge(_) | Self::TooSlow | Self::BrokenBody => {
                response.force_close();
            }
            Self::NotFound
            | Self::UnknownRepository
            | Self::Encoded
            | Self::MediaType
            | Self::Unauthorized
            | Self::Malformed(_)
            | Self::Internal => {}
        }
        response.json(Body { status: self.word(), reason: self.reason().as_deref() })
    }
}

impl Responder for Rejection {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        self.error_response()
    }
}

/// The status code of a delivery that was taken.
pub(super) fn status_of(status: DeliveryStatus) -> StatusCode {
    match status {
        DeliveryStatus::Of(SiteStatus::Queued | SiteStatus::Duplicate) => StatusCode::ACCEPTED,
        DeliveryStatus::Pong | DeliveryStatus::Of(SiteStatus::Current | SiteStatus::Ignored) => StatusCode::OK,
    }
}

/// The status code of a readiness.
pub(super) fn status_of_readiness(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

const RETRY_AFTER_SECS: u64 = 30;
