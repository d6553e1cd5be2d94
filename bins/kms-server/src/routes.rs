//! The routes of `/v1`, those beside it, and those of the operations listener. Each file has the
//! handlers of one resource, their wiring (`configure`) and their part of the OpenAPI document
//! (`document`).

pub(crate) mod accounts;
pub(crate) mod contacts;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod freeze_page;
pub(crate) mod freezes;
pub(crate) mod health;
pub(crate) mod limits;
mod link_page;
pub(crate) mod names;
pub(crate) mod page_only;
pub(crate) mod recoveries;
pub(crate) mod stop_page;
pub(crate) mod transfers;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use actix_web::dev::ResourceDef;
use actix_web::http::header::ALLOW;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use kms_types::ErrorCode;
use utoipa::openapi::OpenApi as Document;

use crate::error::ApiError;
use crate::openapi;

/// The wiring of a resource and its part of the document.
type Resource = (fn(&mut ServiceConfig), fn() -> Document);

/// The resources of `/v1`. Paths are tried in this order, each by a regular expression, so the most
/// requested resources come first.
const RESOURCES: [Resource; 10] = [
    (names::configure, names::document),
    (accounts::configure, accounts::document),
    (events::configure, events::document),
    (transfers::configure, transfers::document),
    (limits::configure, limits::document),
    (recoveries::configure, recoveries::document),
    (contacts::configure, contacts::document),
    (freezes::configure, freezes::document),
    (page_only::configure, page_only::document),
    (export::configure, export::document),
];

/// Adds every route of the API listener.
pub(crate) fn configure(config: &mut ServiceConfig) {
    let v1 = RESOURCES.iter().fold(web::scope("/v1"), |v1, (configure, _)| v1.configure(configure));
    config.service(v1).service(openapi::page(document())).default_service(web::to(no_such_route));
}

/// Returns the OpenAPI document of all routes.
fn document() -> Document {
    openapi::document(RESOURCES.iter().map(|(_, part)| part()))
}

/// Answers 405 for a path that has other methods, and 404 for any other path.
async fn no_such_route(request: HttpRequest) -> HttpResponse {
    let allowed: BTreeSet<_> = PATHS
        .iter()
        .filter(|(path, _)| path.is_match(request.path()))
        .flat_map(|(_, methods)| methods)
        .copied()
        .collect();
    if allowed.is_empty() {
        let detail = "no such path; GET /openapi.json lists the paths";
        return ApiError::refused(ErrorCode::NoSuchRoute, detail).error_response();
    }
    let detail = "the path does not have this method; the Allow header lists its methods";
    let mut response = ApiError::refused(ErrorCode::MethodNotAllowed, detail).error_response();
    let allowed = allowed.into_iter().collect::<Vec<_>>().join(", ");
    if let Ok(allowed) = allowed.parse() {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

/// The documented paths and their methods.
static PATHS: LazyLock<Vec<(ResourceDef, Vec<&'static str>)>> = LazyLock::new(|| {
    let paths = document().paths.paths.into_iter();
    paths
        .map(|(path, item)| {
            let methods = [
                ("GET", item.get.is_some()),
                ("PUT", item.put.is_some()),
                ("POST", item.post.is_some()),
            ];
            let methods = methods.into_iter().filter(|(_, exists)| *exists);
            (ResourceDef::new(path), methods.map(|(method, _)| method).collect())
        })
        .collect()
});
