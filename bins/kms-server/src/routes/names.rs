//! Usernames and the networks.

use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use kms_types::wire::{NameRecord, Networks};
use kms_types::{ErrorCode, Username};

use crate::auth::Reader;
use crate::body::Segment;
use crate::clock;
use crate::error::ApiError;
use crate::state::State;

crate::openapi::resource!(resolve, networks);

/// Returns the user who holds a username, and the address that payments to it go to.
#[utoipa::path(
    operation_id = "resolve_name",
    tag = "names",
    security(("token" = ["read"])),
    params(("username" = Username, Path)),
    responses(
        (status = 200, description = "The holder", body = NameRecord),
        (status = 404, description = "No user with this name has a wallet here"),
    )
)]
#[get("/names/{username}")]
pub(crate) async fn resolve(
    _reader: Reader,
    state: Data<State>,
    Segment(username): Segment<Username>,
) -> Result<HttpResponse, ApiError> {
    let found = state.database.resolve(&username, clock::now()).await?.ok_or_else(|| {
        let detail = format!("no user with the name {username} has a wallet here");
        ApiError::refused(ErrorCode::UnknownName, detail)
    })?;
    Ok(HttpResponse::Ok().json(NameRecord {
        username: found.username,
        telegram_id: found.account.telegram_id,
        address: found.account.wallet.address,
        account_since: found.account.created_at,
        reassigned_at: found.reassigned_at,
        proved_at: found.proved_at,
        payable_from: found.payable_from,
    }))
}

/// Returns the chains and their tokens.
#[utoipa::path(
    operation_id = "read_networks",
    tag = "network",
    security(("token" = ["read"])),
    responses(
        (status = 200, description = "The networks", body = Networks),
    )
)]
#[get("/networks")]
pub(crate) async fn networks(_reader: Reader, state: Data<State>) -> HttpResponse {
    HttpResponse::Ok().json(state.chains.networks())
}
