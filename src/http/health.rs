//! For load balancers and watchdogs: does the process answer, and could it do its work?

use actix_web::{HttpResponse, web};

use super::Doors;
use super::error::{Rejection, status_of_readiness};

/// The process answers. Asks nothing else, so that a slow disk does not get a healthy process restarted.
pub(super) async fn alive() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok\n")
}

/// A push could be taken and deployed now; which check says no, if one does.
pub(super) async fn ready(doors: web::Data<Doors>) -> Result<HttpResponse, Rejection> {
    let readiness = web::block(move || doors.service.readiness(&doors.pulse, &doors.stop)).await?;
    Ok(HttpResponse::build(status_of_readiness(readiness.ready)).json(readiness))
}
