//! Liveness, readiness and metrics, outside `/v1`.

use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use kms_chain::Endpoint;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Reader;
use crate::state::State;
use crate::telemetry;

crate::openapi::resource!(alive, ready, metrics);

#[derive(Serialize, ToSchema)]
struct Liveness {
    /// Always `ok`.
    status: &'static str,
}

/// Each dependency is `ok` or `down`.
#[derive(Serialize, ToSchema)]
struct Readiness {
    /// The database of accounts and transfers.
    database: &'static str,
    /// The database of wrapped keys.
    key_database: &'static str,
    /// The endpoints of the chain.
    chain: &'static str,
    /// The KMS keys, as the last check found them; `unknown` before the first check.
    kms_keys: &'static str,
}

/// Liveness: the process answers.
#[utoipa::path(
    operation_id = "liveness",
    tag = "health",
    responses((status = 200, description = "The process is alive", body = Liveness)),
    security(())
)]
#[get("/healthz")]
pub(crate) async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(Liveness { status: "ok" })
}

/// Readiness: both databases answer. The states of the chain and of the KMS keys are reported only,
/// since a server without them still serves reads.
#[utoipa::path(
    operation_id = "readiness",
    tag = "health",
    responses(
        (status = 200, description = "The server can serve requests", body = Readiness),
        (status = 503, description = "A database is unavailable", body = Readiness),
    ),
    security(())
)]
#[get("/readyz")]
pub(crate) async fn ready(state: Data<State>) -> HttpResponse {
    let (database, keys, chain) = futures::join!(
        state.database.ping(),
        state.key_database.ping(),
        state.transfers.chain().first(Endpoint::block_number)
    );
    let word = |ok| if ok { "ok" } else { "down" };
    let body = Readiness {
        database: word(database.is_ok()),
        key_database: word(keys.is_ok()),
        chain: word(chain.is_ok()),
        kms_keys: state.kms_keys.as_str(),
    };
    if database.is_ok() && keys.is_ok() {
        HttpResponse::Ok().json(body)
    } else {
        HttpResponse::ServiceUnavailable().json(body)
    }
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(
    operation_id = "read_metrics",
    tag = "health",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain"))
)]
#[get("/metrics")]
pub(crate) async fn metrics(_reader: Reader) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(telemetry::metrics().render())
}
