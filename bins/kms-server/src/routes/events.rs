//! Events, by long polling.

use std::time::{Duration, Instant};

use actix_web::web::Data;
use actix_web::{HttpResponse, get};
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
        if !found.is_empty() || Instant::now() >= deadline || *stopping.borrow() {
            break found;
        }
        // Wakes early when the server stops.
        let _ = tokio::time::timeout(LOOK_EVERY, stopping.changed()).await;
    };
    let next = found.last().map_or(after, |event| event.cursor);
    let mut events = Vec::with_capacity(found.len());
    for event in found {
        events.push(show(&state, event).await?);
    }
    Ok(HttpResponse::Ok().json(EventPage { events, next }))
}

async fn show(state: &State, event: StoredEvent) -> Result<Event, ApiError> {
    let transfer = match event.transfer {
        Some(id) => state.transfers.transfer(id, clock::now()).await?,
        None => None,
    };
    let transfer = transfer.map(|transfer| Box::new(transfers::show(transfer)));
    let what = match (event.kind, transfer) {
        (StoredEventKind::AccountCreated, _) => EventKind::AccountCreated,
        (StoredEventKind::PasswordChanged, _) => EventKind::PasswordChanged,
        (StoredEventKind::Recovered, _) => EventKind::Recovered,
        (StoredEventKind::TransferChanged, Some(transfer)) => {
            EventKind::TransferChanged { transfer }
        }
        (StoredEventKind::Received, Some(transfer)) => EventKind::Received { transfer },
        (_, None) => return Err(ApiError::no_transfer()),
    };
    let StoredEvent { cursor, account, telegram_id, at, .. } = event;
    Ok(Event { cursor, account, telegram_id, at, what })
}
