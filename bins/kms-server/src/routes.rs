//! The routes of `/v1`, and those beside it.

pub(crate) mod accounts;
pub(crate) mod contacts;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod health;
pub(crate) mod limits;
pub(crate) mod names;
pub(crate) mod recoveries;
pub(crate) mod stop_page;
pub(crate) mod transfers;

use actix_web::web::{self, ServiceConfig};
use kms_types::ErrorCode;

use crate::error::ApiError;
use crate::openapi;

/// Adds every route.
pub(crate) fn configure(config: &mut ServiceConfig) {
    config
        .service(
            // They are tried in this order, each by a regular expression: what is asked for most
            // comes first.
            web::scope("/v1")
                .service(names::resolve)
                .service(accounts::read)
                .service(events::read)
                .service(transfers::read)
                .service(names::network)
                .service(accounts::create)
                .service(accounts::change_password)
                .service(accounts::seen_username)
                .service(export::export)
                .service(accounts::balance)
                .service(contacts::change_mobile)
                .service(contacts::change_email)
                .service(contacts::confirm_email)
                .service(recoveries::request)
                .service(recoveries::read)
                .service(recoveries::confirm)
                .service(recoveries::cancel)
                .service(recoveries::complete)
                .service(limits::read)
                .service(limits::set)
                .service(transfers::list)
                .service(transfers::quote)
                .service(transfers::confirm)
                .service(transfers::cancel),
        )
        .service(stop_page::show)
        .service(stop_page::stop)
        .service(health::alive)
        .service(health::ready)
        .service(health::metrics)
        .configure(openapi::configure)
        .default_service(web::to(nothing_here));
}

async fn nothing_here() -> Result<String, ApiError> {
    let detail = "there is nothing here; /docs/ lists what there is";
    Err(ApiError::refused(ErrorCode::NoSuchRoute, detail))
}
