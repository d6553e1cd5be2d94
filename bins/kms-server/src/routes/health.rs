//! Whether the server lives, whether it can work, and its numbers.

use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use kms_chain::Endpoint;
use serde_json::json;

use crate::auth::Reader;
use crate::state::State;
use crate::telemetry;

/// The process lives.
#[utoipa::path(tag = "health", responses((status = 200)), security(()))]
#[get("/healthz")]
pub(crate) async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok" }))
}

/// Both databases answer. The chain and the KMS keys are told, but a server without them still
/// reads, and without the keys only recoveries fail.
#[utoipa::path(tag = "health", responses((status = 200), (status = 503)), security(()))]
#[get("/readyz")]
pub(crate) async fn ready(state: Data<State>) -> HttpResponse {
    let (database, keys, chain) = futures::join!(
        state.database.ping(),
        state.key_database.ping(),
        state.transfers.chain().first(Endpoint::block_number)
    );
    let word = |ok| if ok { "ok" } else { "down" };
    let body = json!({
        "database": word(database.is_ok()),
        "key_database": word(keys.is_ok()),
        "chain": word(chain.is_ok()),
        "kms_keys": state.kms_keys.as_str(),
    });
    if database.is_ok() && keys.is_ok() {
        HttpResponse::Ok().json(body)
    } else {
        HttpResponse::ServiceUnavailable().json(body)
    }
}

/// Numbers, in the text format of Prometheus.
#[utoipa::path(tag = "health", responses((status = 200, content_type = "text/plain")))]
#[get("/metrics")]
pub(crate) async fn metrics(_reader: Reader) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(telemetry::metrics().render())
}
