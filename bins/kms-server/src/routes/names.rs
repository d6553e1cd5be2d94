//! Names and the network.

use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use kms_types::wire::{NameRecord, Network};
use kms_types::{ErrorCode, Problem, Username};

use crate::auth::Reader;
use crate::body::Segment;
use crate::clock;
use crate::error::ApiError;
use crate::state::State;

/// Where money for a name goes.
#[utoipa::path(
    tag = "names",
    params(("username" = Username, Path)),
    responses((status = 200, body = NameRecord), (status = 404, body = Problem))
)]
#[get("/names/{username}")]
pub(crate) async fn resolve(
    _reader: Reader,
    state: Data<State>,
    Segment(username): Segment<Username>,
) -> Result<HttpResponse, ApiError> {
    let found = state.database.resolve(&username, clock::now()).await?.ok_or_else(|| {
        let detail = format!("nobody with the name {username} has a wallet here");
        ApiError::refused(ErrorCode::UnknownName, detail)
    })?;
    Ok(HttpResponse::Ok().json(NameRecord {
        username: found.username,
        telegram_id: found.account.telegram_id,
        address: found.account.wallet.address,
        account_since: found.account.created_at,
        moved_at: found.moved_at,
    }))
}

/// The chain that money moves on.
#[utoipa::path(tag = "network", responses((status = 200, body = Network)))]
#[get("/network")]
pub(crate) async fn network(_reader: Reader, state: Data<State>) -> HttpResponse {
    HttpResponse::Ok().json(&state.network)
}
