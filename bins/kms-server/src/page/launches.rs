//! Opening the page.

use actix_web::web::Data;
use actix_web::{HttpResponse, post};
use kms_core::account::SeenNames;
use kms_core::audit::Caller;
use kms_core::launch;
use kms_core::ports::AccountStore;
use kms_store::{Opened, OpenedLaunch};
use kms_types::{ErrorCode, NameOrigin, Timestamp, wire};

use super::launched::expiry;
use crate::body::Json;
use crate::clock;
use crate::error::ApiError;
use crate::request_id::request_id;
use crate::routes::accounts::observe_names;
use crate::state::State;

crate::openapi::resource!(open);

/// Binds an opening that Telegram signed to the key of the page. A repeat with the same key returns
/// the same.
#[utoipa::path(
    operation_id = "open_launch",
    tag = "page",
    request_body = wire::OpenLaunch,
    security(()),
    responses(
        (status = 200, description = "The page may act", body = wire::OpenedLaunch),
        (
            status = 403,
            description = "Telegram did not sign it for this service, or too long ago"
        ),
        (status = 409, description = "Another page has opened it"),
        (status = 429, description = "Too many openings"),
    )
)]
#[post("/launches")]
async fn open(
    state: Data<State>,
    Json(body): Json<wire::OpenLaunch>,
) -> Result<HttpResponse, ApiError> {
    let wire::OpenLaunch { init_data, key } = body;
    state.check_clock()?;
    state.openings.take_any()?;
    let launch = state.launches.verify(&init_data)?;
    // After the signature: no other caller can use up the openings of a user.
    state.openings.take_of(launch.user)?;
    let (key, now) = (launch::hash_of(&key), clock::now());
    if let Err(late) = launch.check_time(now) {
        // An answer that was lost is given again, also after that time.
        let known = state.database.launch_of_key(key).await?;
        let known = known.filter(|known| known.proof == launch.proof && now < expiry(known));
        return answer(&state, &launch, &known.ok_or(late)?).await;
    }
    let opened = OpenedLaunch { proof: launch.proof.clone(), key, opened_at: now };
    match state.database.open_launch(opened, launch.purpose.is_proof()).await? {
        Opened::Bound(opened) => {
            prove_name(&state, &launch, now).await?;
            answer(&state, &launch, &opened).await
        }
        Opened::Used => {
            let detail = "this link was opened before; open the page again from the chat";
            Err(ApiError::refused(ErrorCode::LaunchUsed, detail))
        }
    }
}

/// Stores which username Telegram signed, if the user has a wallet. A repeat changes nothing.
async fn prove_name(
    state: &State,
    launch: &launch::Launch,
    received_at: Timestamp,
) -> Result<(), ApiError> {
    let Some(account) = state.database.account(launch.user.into()).await? else { return Ok(()) };
    let names = SeenNames {
        usernames: launch.username.clone().into_iter().collect(),
        seen_at: launch.signed_at,
        received_at,
        origin: NameOrigin::Launch,
    };
    let caller = Caller::new(format!("launch {}", launch.id), request_id()).at_page();
    observe_names(state, &account, names, &caller).await
}

async fn answer(
    state: &State,
    launch: &launch::Launch,
    opened: &OpenedLaunch,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(wire::OpenedLaunch {
        purpose: launch.purpose.to_string(),
        telegram_id: launch.user,
        usernames: state.database.usernames_of(launch.user).await?,
        expires_in: expiry(opened).since(clock::now()).as_secs(),
    }))
}
