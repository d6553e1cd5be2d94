//! One log line a request with its id, and metrics. Never a body, a query or a header.

use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method};
use actix_web::middleware::Next;
use actix_web::web::Data;
use kms_types::TraceId;
use uuid::Uuid;

use crate::request_id::REQUEST_ID;
use crate::state::State;

/// Gives every request an id, and records it in the log, beside the caller's trace id, and in
/// metrics. Before a stop it also ends the connection of each answer, so that the client's next
/// request goes to another server instead of meeting the end of this one.
pub(crate) async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let id = Uuid::new_v4().to_string();
    let header = request.headers().get(TraceId::HEADER).and_then(|id| id.to_str().ok());
    let trace = header.and_then(|id| id.parse::<TraceId>().ok()).map(|id| id.to_string());
    let started = Instant::now();
    let state = request.app_data::<Data<State>>().cloned();
    let method = known_method(request.method());
    let route = request.match_pattern().unwrap_or_else(|| "unknown".to_owned());
    let mut response = REQUEST_ID.scope(id.clone(), next.call(request)).await?;
    let status = response.status().as_u16();
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(request_id = id, trace, method, route, status, seconds, "request");
    let labels = [("method", method.to_owned()), ("route", route), ("status", status.to_string())];
    metrics::counter!("kms_http_requests_total", &labels).increment(1);
    metrics::histogram!("kms_http_request_duration_seconds", &labels).record(seconds);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HeaderName::from_static("x-request-id"), id);
    }
    if state.is_some_and(|state| state.readiness.is_draining()) {
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    Ok(response)
}

/// Bounds the values of the label: a client can send any method.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
