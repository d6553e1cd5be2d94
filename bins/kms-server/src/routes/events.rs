//! Events, by long polling.

use std::time::{Duration, Instant};

use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use kms_core::ports::StoreError;
use kms_store::{StoredEvent, StoredEventKind};
use kms_types::wire::{Event, EventKind, EventPage};
use kms_types::{EventCursor, Problem};
use serde::Deserialize;

use crate::auth::Bot;
use crate::body::Parameters;
use crate::clock;
use crate::error::ApiError;
use crate::routes::transfers;
use crate::state::State;

/// There is one bot; its cursor outlives its tokens.
const CONSUMER: &str = "bot";
const PAGE: u32 = 100;
const LONGEST_WAIT: u64 = 60;
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventParameters {
    after: Option<EventCursor>,
    #[serde(default)]
    wait: u64,
}

/// What happened after a place in the stream. Giving `after` acknowledges everything up to it;
/// without it the answer goes on after the last acknowledgement.
#[utoipa::path(
    tag = "events",
    params(
        ("after" = Option<EventCursor>, Query, description = "`next` of the page before"),
        ("wait" = Option<u64>, Query, description = "Seconds to wait for an event, up to 60"),
    ),
    responses((status = 200, body = EventPage), (status = 400, body = Problem))
)]
#[get("/events")]
pub(crate) async fn read(
    _bot: Bot,
    state: Data<State>,
    Parameters(parameters): Parameters<EventParameters>,
) -> Result<HttpResponse, ApiError> {
    if parameters.wait > LONGEST_WAIT {
        return Err(ApiError::field("wait", format!("expected at most {LONGEST_WAIT}")));
    }
    let database = &state.database;
    let after = match parameters.after {
        Some(cursor) => {
            if !database.acknowledge_events(CONSUMER, cursor).await? {
                let detail = "expected `next` of an earlier answer; \
                    without it the stream goes on after the last acknowledgement";
                return Err(ApiError::field("after", detail));
            }
            cursor
        }
        None => database.acknowledged_events(CONSUMER).await?,
    };
    let deadline = Instant::now() + Duration::from_secs(parameters.wait);
    let mut stopping = state.stopping.clone();
    let found = loop {
        let found = database.events_after(after, PAGE).await?;
        if found.end != after || Instant::now() >= deadline || *stopping.borrow() {
            break found;
        }
        // Wakes early when the server stops.
        let _ = tokio::time::timeout(LOOK_EVERY, stopping.changed()).await;
    };
    let mut events = Vec::with_capacity(found.events.len());
    for event in found.events {
        events.extend(show(&state, event).await?);
    }
    Ok(HttpResponse::Ok().json(EventPage { events, next: found.end }))
}

/// The event with its transfer as it stands now; nothing if that can not be read, so that the
/// events after it are told.
async fn show(state: &State, event: StoredEvent) -> Result<Option<Event>, ApiError> {
    let StoredEvent { cursor, account, telegram_id, at, kind, transfer } = event;
    let transfer = match transfer {
        Some(id) => match state.transfers.transfer(id, clock::now()).await {
            Err(error @ StoreError::Unavailable { .. }) => return Err(error.into()),
            Err(error) => {
                tracing::error!(event = %cursor, transfer = %id, %error, "unreadable transfer");
                return Ok(None);
            }
            Ok(transfer) => transfer.map(|transfer| Box::new(transfers::show(transfer))),
        },
        None => None,
    };
    let what = match (kind, transfer) {
        (StoredEventKind::AccountCreated, _) => EventKind::AccountCreated,
        (StoredEventKind::PasswordChanged, _) => EventKind::PasswordChanged,
        (StoredEventKind::Recovered, _) => EventKind::Recovered,
        (StoredEventKind::TransferChanged, Some(transfer)) => {
            EventKind::TransferChanged { transfer }
        }
        (StoredEventKind::Received, Some(transfer)) => EventKind::Received { transfer },
        (_, None) => {
            tracing::error!(event = %cursor, "an event has lost its transfer");
            return Ok(None);
        }
    };
    Ok(Some(Event { cursor, account, telegram_id, at, what }))
}
