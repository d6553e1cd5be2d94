//! The public listener: the vault page and its API, and the links of e-mails. It has nothing of
//! `/v1`.
//!
//! The page authenticates by an opening that Telegram signed. Every handler states by the type of
//! its argument for which purpose it must have been opened ([`launched::Launched`]).

mod acts;
mod files;
mod launched;
mod launches;
pub(crate) mod peers;
mod reads;
mod sign;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::middleware::Next;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, ResponseError, get};
use kms_types::ErrorCode;
use utoipa::openapi::OpenApi as Document;

use crate::error::ApiError;
use crate::openapi;
use crate::routes::{freeze_page, stop_page};

/// The page loads nothing but itself, and only Telegram's web client may show it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; form-action 'none'; base-uri 'none'; \
    frame-ancestors https://web.telegram.org; require-trusted-types-for 'script'; \
    trusted-types 'none'";

/// What a page may ask of a browser: nothing.
const PERMISSIONS: &str = "accelerometer=(), camera=(), clipboard-read=(), display-capture=(), \
    geolocation=(), gyroscope=(), magnetometer=(), microphone=(), midi=(), payment=(), \
    publickey-credentials-get=(), screen-wake-lock=(), usb=(), web-share=()";

/// Adds every route of the public listener.
pub(crate) fn configure(config: &mut ServiceConfig) {
    let app = web::scope("/app/v1")
        .configure(launches::configure)
        .configure(acts::configure)
        .configure(reads::configure)
        .configure(sign::configure)
        .service(show_document);
    config
        .service(app)
        .configure(files::configure)
        .configure(stop_page::configure)
        .configure(freeze_page::configure)
        .default_service(web::to(no_such_route));
}

/// The OpenAPI document of the page's API.
#[get("/openapi.json")]
async fn show_document() -> HttpResponse {
    HttpResponse::Ok().json(document())
}

fn document() -> Document {
    let parts = [launches::document(), acts::document(), reads::document(), sign::document()];
    openapi::page_document(parts.into_iter())
}

async fn no_such_route() -> HttpResponse {
    let detail = "no such path";
    ApiError::refused(ErrorCode::NoSuchRoute, detail).error_response()
}

/// Adds the headers of the page to every response that does not have its own.
pub(crate) async fn protect(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let mut response = next.call(request).await?;
    let headers = response.headers_mut();
    add(headers, CONTENT_SECURITY_POLICY, POLICY);
    add(headers, REFERRER_POLICY, "no-referrer");
    add(headers, CACHE_CONTROL, "no-store");
    add(headers, X_CONTENT_TYPE_OPTIONS, "nosniff");
    add(headers, STRICT_TRANSPORT_SECURITY, "max-age=63072000");
    add(headers, HeaderName::from_static("permissions-policy"), PERMISSIONS);
    Ok(response)
}

fn add(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    if !headers.contains_key(&name) {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
