//! Liveness, readiness and metrics, on the operations listener. They answer GET and HEAD.

use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpResponse, guard};
use serde::Serialize;

use crate::readiness::{Status, Statuses};
use crate::state::State;

/// The body of `/healthz`.
#[derive(Serialize)]
struct Liveness {
    status: &'static str,
}

/// The body of `/readyz`.
#[derive(Serialize)]
struct Ready {
    /// Whether the server is about to stop.
    draining: bool,
    #[serde(flatten)]
    dependencies: Statuses,
    /// The KMS keys, as the last probe found them.
    kms_keys: &'static str,
}

/// Adds the routes of the operations listener.
pub(crate) fn configure(config: &mut ServiceConfig) {
    let read = || web::route().guard(guard::Any(guard::Get()).or(guard::Head()));
    config
        .route("/healthz", read().to(alive))
        .route("/readyz", read().to(ready))
        .route("/metrics", read().to(metrics));
}

/// Liveness: the process answers.
async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(Liveness { status: "ok" })
}

/// Readiness: both databases answered a second ago, the clocks agree, and the server is not about
/// to stop. The chain and the KMS keys are reported only, since a server without them still serves
/// reads.
async fn ready(state: Data<State>) -> HttpResponse {
    let (draining, dependencies) = (state.readiness.is_draining(), state.readiness.statuses());
    let needed = [dependencies.database, dependencies.key_database, dependencies.clock];
    let is_ready = !draining && needed.iter().all(|status| *status == Status::Ok);
    let mut response = match is_ready {
        true => HttpResponse::Ok(),
        false => HttpResponse::ServiceUnavailable(),
    };
    response.json(Ready { draining, dependencies, kms_keys: state.kms_keys.as_str() })
}

/// Metrics in the text format of Prometheus.
async fn metrics() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(kms_process::metrics().render())
}
