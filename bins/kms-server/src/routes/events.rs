//! Events, by long polling.

use std::time::{Duration, Instant};

use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use kms_chain::ports::TransferStore;
use kms_core::ports::{RecoveryStore, StoreError};
use kms_store::StoredEvent;
use kms_types::wire::{Event, EventBody, EventPage, ExternalDeposit, Recovery, Transfer};
use kms_types::{
    DepositId, ErrorCode, EventCursor, EventKind, EventStream, RecoveryId, TransferId,
};
use serde::Deserialize;

use crate::auth::Chat;
use crate::body::Parameters;
use crate::clock;
use crate::error::ApiError;
use crate::routes::{recoveries, transfers};
use crate::state::State;

crate::openapi::resource!(read);

const PAGE: u32 = 100;
const LONGEST_WAIT: u64 = 60;
const CHECK_EVERY: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventParameters {
    stream: EventStream,
    after: Option<EventCursor>,
    acknowledge: Option<EventCursor>,
    #[serde(default)]
    wait: u64,
}

/// Returns the events after a position in a stream; without `after`, after the last acknowledged
/// one. First acknowledges all events of the stream up to `acknowledge`.
#[utoipa::path(
    operation_id = "read_events",
    tag = "events",
    security(("token" = ["chat"])),
    params(
        ("stream" = EventStream, Query, description = "Which events"),
        ("after" = Option<EventCursor>, Query, description = "`next` of the page before"),
        ("acknowledge" = Option<EventCursor>, Query, description = "Up to which they are handled"),
        ("wait" = Option<u64>, Query, maximum = 60, description = "Seconds to wait for an event"),
    ),
    responses(
        (status = 200, description = "The events, in commit order", body = EventPage),
        (status = 409, description = "`acknowledge` is beyond the newest event"),
    )
)]
#[get("/events")]
pub(crate) async fn read(
    Chat { caller, .. }: Chat,
    state: Data<State>,
    Parameters(parameters): Parameters<EventParameters>,
) -> Result<HttpResponse, ApiError> {
    if parameters.wait > LONGEST_WAIT {
        return Err(ApiError::field("wait", format!("wait at most {LONGEST_WAIT} seconds")));
    }
    let waits = parameters.wait > 0;
    let _poll = waits.then(|| state.polls.begin(&caller.actor)).transpose()?;
    let (database, stream) = (&state.database, parameters.stream);
    let consumer = consumer(stream);
    if let Some(cursor) = parameters.acknowledge
        && !database.acknowledge_events(consumer, stream, cursor).await?
    {
        let detail = "there is no such event yet; acknowledge `next` of an earlier page";
        return Err(ApiError::refused(ErrorCode::WrongState, detail));
    }
    let after = match parameters.after {
        Some(cursor) => cursor,
        None => database.acknowledged_events(consumer).await?,
    };
    let deadline = Instant::now() + Duration::from_secs(parameters.wait);
    let found = loop {
        let found = database.events_after(stream, after, PAGE).await?;
        if found.end != after || Instant::now() >= deadline || state.shutdown.is_cancelled() {
            break found;
        }
        // Returns early when the server stops.
        let next_check = tokio::time::sleep(CHECK_EVERY);
        let _ = state.shutdown.run_until_cancelled(next_check).await;
    };
    let mut events = Vec::with_capacity(found.events.len());
    for event in found.events {
        events.extend(show(&state, event).await?);
    }
    Ok(HttpResponse::Ok().json(EventPage { events, next: found.end }))
}

/// The consumer whose cursor is stored: there is one bot, whatever token it uses.
fn consumer(stream: EventStream) -> &'static str {
    match stream {
        EventStream::Security => "bot-security",
        EventStream::Payments => "bot-payments",
    }
}

/// Converts an event to its wire form, with its transfer, deposit or recovery as it is now; `None`
/// if that is unreadable, so that later events are still delivered.
async fn show(state: &State, event: StoredEvent) -> Result<Option<Event>, ApiError> {
    let StoredEvent { cursor, account, telegram_id, at, kind, .. } = event;
    let what = match kind {
        EventKind::Account(kind) => Some(EventBody::Account { kind }),
        EventKind::Security(kind) => Some(EventBody::Security { kind }),
        EventKind::Recovery(kind) => find_recovery(state, cursor, event.recovery)
            .await?
            .map(|recovery| EventBody::Recovery { kind, recovery }),
        EventKind::Transfer(kind) => find_transfer(state, cursor, event.transfer)
            .await?
            .map(|transfer| EventBody::Transfer { kind, transfer }),
        EventKind::Deposit(kind) => find_deposit(state, cursor, event.deposit)
            .await?
            .map(|deposit| EventBody::Deposit { kind, deposit }),
    };
    Ok(what.map(|what| Event { cursor, account, telegram_id, at, what }))
}

async fn find_transfer(
    state: &State,
    cursor: EventCursor,
    id: Option<TransferId>,
) -> Result<Option<Box<Transfer>>, ApiError> {
    let found = match id {
        Some(id) => readable(cursor, state.database.transfer(id).await)?,
        None => missing(cursor),
    };
    Ok(found.map(|transfer| Box::new(transfers::show(transfer))))
}

async fn find_deposit(
    state: &State,
    cursor: EventCursor,
    id: Option<DepositId>,
) -> Result<Option<ExternalDeposit>, ApiError> {
    match id {
        Some(id) => {
            let found = readable(cursor, state.database.external_deposit(id).await)?;
            Ok(found.map(transfers::show_deposit))
        }
        None => Ok(missing(cursor)),
    }
}

async fn find_recovery(
    state: &State,
    cursor: EventCursor,
    id: Option<RecoveryId>,
) -> Result<Option<Recovery>, ApiError> {
    let Some(id) = id else { return Ok(missing(cursor)) };
    match readable(cursor, state.database.recovery(id).await)? {
        Some(recovery) => Ok(Some(recoveries::show(state, recovery, clock::now()).await?)),
        None => Ok(None),
    }
}

/// Returns what was read; logs an unreadable row and returns `None`.
fn readable<T>(
    cursor: EventCursor,
    found: Result<Option<T>, StoreError>,
) -> Result<Option<T>, ApiError> {
    match found {
        Ok(Some(found)) => Ok(Some(found)),
        Ok(None) => Ok(missing(cursor)),
        Err(error @ StoreError::Unavailable { .. }) => Err(error.into()),
        Err(error) => {
            let event = "event_subject_unreadable";
            tracing::error!(event, %cursor, %error, "subject of an event unreadable");
            Ok(None)
        }
    }
}

fn missing<T>(cursor: EventCursor) -> Option<T> {
    tracing::error!(%cursor, event = "event_subject_missing", "subject of an event missing");
    None
}
