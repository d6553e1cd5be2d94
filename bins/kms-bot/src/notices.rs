//! Messages that the bot sends on its own, from the server's events.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kms_process::CancellationToken;
use kms_types::wire::{Event, EventBody, Recovery, RecoveryState, Transfer, TransferState};
use kms_types::{
    AccountEvent, DepositEvent, EventStream, RecoveryStep, SecurityEvent, Timestamp, TransferEvent,
};
use tokio::sync::oneshot;

use crate::chat::keyboard::Keyboard;
use crate::chat::lanes::Lanes;
use crate::chat::telegram::TelegramError;
use crate::context::{Context, HandlerError, HandlerResult};
use crate::flows::send::screen;
use crate::flows::send::terms::ClientRef;
use crate::flows::{balance_button, recovery};
use crate::format::{amount, time};
use crate::texts::{Html, html};

/// How long one request waits for events.
const POLL: Duration = Duration::from_secs(25);
/// A page of events is acknowledged after this long even if a notice is not delivered yet.
const DELIVERY: Duration = Duration::from_secs(30);
/// The attempts to deliver one notice while Telegram is reachable.
const ATTEMPTS: u32 = 5;

/// Follows the events until the bot stops. A page is acknowledged when its notices were delivered:
/// a bot that stops before sends them again.
pub(crate) async fn follow(
    context: Arc<Context>,
    stream: EventStream,
    lanes: Lanes,
    shutdown: CancellationToken,
) {
    shutdown.run_until_cancelled(follow_forever(&context, stream, &lanes)).await;
}

async fn follow_forever(context: &Arc<Context>, stream: EventStream, lanes: &Lanes) {
    let (mut after, mut failures) = (None, 0);
    loop {
        match context.kms.events(stream, after, after, POLL).await {
            Ok(page) => {
                failures = 0;
                deliver_all(context, lanes, page.events).await;
                after = Some(page.next);
            }
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(%error, event = "events_failed", "event request failed");
                }
                tokio::time::sleep(backoff(failures)).await;
                failures += 1;
            }
        }
    }
}

/// One second, doubled with each failure, up to half a minute.
pub(crate) fn backoff(failures: u32) -> Duration {
    Duration::from_secs(2_u64.saturating_pow(failures).min(30))
}

async fn deliver_all(context: &Arc<Context>, lanes: &Lanes, events: Vec<Event>) {
    let delivered = events.into_iter().map(|event| {
        let (done, is_done) = oneshot::channel();
        let context = Arc::clone(context);
        // In the user's lane, so that a notice does not overtake the answer to what caused it.
        lanes.enqueue_notice(event.telegram_id, async move {
            deliver(&context, event).await;
            // The receiver is gone if this took too long.
            let _ = done.send(());
        });
        is_done
    });
    // A dropped sender is a panic, which the lane logs. One user's full lane does not hold up
    // other users' notices; while Telegram is unreachable, all notices wait.
    let mut delivered = std::pin::pin!(join_all(delivered));
    while tokio::time::timeout(DELIVERY, &mut delivered).await.is_err()
        && !context.telegram.is_reachable()
    {}
}

async fn deliver(context: &Context, event: Event) {
    let mut failures = 0;
    while failures < ATTEMPTS {
        match try_deliver(context, &event).await {
            Ok(()) => return,
            Err(HandlerError::Telegram(TelegramError::Gone)) => {
                tracing::info!("notice not delivered: the user cannot receive messages");
                return;
            }
            Err(HandlerError::Telegram(TelegramError::Unreachable(_)))
                if !context.telegram.is_reachable() =>
            {
                tokio::time::sleep(backoff(ATTEMPTS)).await;
            }
            Err(HandlerError::Telegram(TelegramError::Unreachable(_)) | HandlerError::Kms(_)) => {
                tokio::time::sleep(backoff(failures)).await;
                failures += 1;
            }
            Err(
                error @ HandlerError::Telegram(
                    TelegramError::Token | TelegramError::Conflict | TelegramError::Refused(_),
                ),
            ) => {
                tracing::warn!(%error, event = "notice_dropped", "notice dropped");
                return;
            }
        }
    }
    tracing::warn!(attempts = ATTEMPTS, event = "notice_dropped", "notice dropped");
}

async fn try_deliver(context: &Context, event: &Event) -> HandlerResult {
    let user = event.telegram_id;
    if let EventBody::Transfer { kind: TransferEvent::Received, .. } | EventBody::Deposit { .. } =
        &event.what
    {
        context.telegram.quiet(user).await;
    }
    if let EventBody::Transfer { kind: TransferEvent::Changed, transfer } = &event.what {
        return update_transfer(context, event, transfer).await;
    }
    if let Some((message, keyboard)) = notice(context, event).await? {
        context.telegram.send(user, &message, keyboard).await?;
    }
    Ok(())
}

/// Shows a transfer's new state in its message. Transfers of other clients have no message.
async fn update_transfer(context: &Context, event: &Event, transfer: &Transfer) -> HandlerResult {
    let Some(ClientRef { message, .. }) = ClientRef::of(transfer) else { return Ok(()) };
    match transfer.state {
        // If the user deleted the message, a new one reports how the transfer ended.
        TransferState::Mined | TransferState::Failed => {
            screen::show(context, event.telegram_id, message, transfer).await
        }
        // By a transaction, after it was sent.
        TransferState::Cancelled if transfer.fee.is_some() => {
            screen::show(context, event.telegram_id, message, transfer).await
        }
        TransferState::Quoted
        | TransferState::Cancelled
        | TransferState::Signed
        | TransferState::Broadcast
        | TransferState::Final
        | TransferState::Expired
        | TransferState::Unknown => {
            screen::update(context, event.telegram_id, message, transfer).await
        }
    }
}

/// The message about an event, if there is one.
async fn notice(
    context: &Context,
    event: &Event,
) -> Result<Option<(Html, Keyboard)>, HandlerError> {
    let alert = |message| Ok(Some((message, Keyboard::none())));
    match &event.what {
        EventBody::Account { kind: AccountEvent::EmailChangeRequested } => {
            alert(html!("notice-email-change-requested"))
        }
        EventBody::Account { kind: AccountEvent::EmailChanged } => {
            alert(html!("notice-email-changed"))
        }
        EventBody::Security { kind } => alert(security_notice(*kind, event.at)),
        EventBody::Recovery { kind, recovery } => Ok(recovery_notice(*kind, recovery, event.at)),
        EventBody::Transfer { kind: TransferEvent::Received, transfer } => {
            let network = context.network.of_chain(transfer.chain_id).await?;
            let units = transfer.arrived.unwrap_or(transfer.value);
            let received = amount(units, transfer.token.as_ref(), &network);
            Ok(Some(received_notice(&received, &screen::party(&transfer.from))))
        }
        EventBody::Deposit { kind: DepositEvent::Received, deposit } => {
            let network = context.network.of_chain(deposit.chain_id).await?;
            let received = amount(deposit.value, deposit.token.as_ref(), &network);
            Ok(Some(match deposit.from {
                Some(from) => {
                    received_notice(&received, &html!("transfer-address", address = from))
                }
                None => {
                    let count = deposit.count;
                    let digest = html!("notice-received-small", count = count, amount = received);
                    (digest, Keyboard::row([balance_button()]))
                }
            }))
        }
        // The user sees these as answers in the chat: `/start`, and the transfer's message.
        EventBody::Account { kind: AccountEvent::Created }
        | EventBody::Transfer { kind: TransferEvent::Changed, .. } => Ok(None),
        // An event of a newer server.
        EventBody::Unknown { .. } => Ok(None),
    }
}

/// The notice of a security event: the message that the event names.
fn security_notice(event: SecurityEvent, at: Timestamp) -> Html {
    macro_rules! notices {
        ($($(#[$about:meta])* $event:ident = $text:literal, $id:literal;)+) => {
            match event { $(SecurityEvent::$event => html!($id, time = time(at)),)+ }
        };
    }
    kms_types::with_security_events!(notices)
}

fn received_notice(amount: &str, sender: &Html) -> (Html, Keyboard) {
    let message = html!("notice-received", amount = amount, sender = sender);
    (message, Keyboard::row([balance_button()]))
}

/// The message about a step of a recovery. A step that a later one has superseded has no message:
/// the later event reports more.
fn recovery_notice(
    step: RecoveryStep,
    recovery: &Recovery,
    at: Timestamp,
) -> Option<(Html, Keyboard)> {
    let (stop, none) = (recovery::stop_keyboard(recovery.id), Keyboard::none());
    match step {
        RecoveryStep::Requested => {
            matches!(recovery.state, RecoveryState::CodeSent | RecoveryState::Waiting)
                .then(|| (recovery::requested(recovery), stop))
        }
        RecoveryStep::CodeConfirmed => (recovery.state == RecoveryState::Waiting)
            .then(|| (html!("notice-recovery-confirmed", ready = time(recovery.ready_at)), stop)),
        RecoveryStep::Ready => (recovery.state == RecoveryState::Ready)
            .then(|| (recovery::ready(recovery), recovery::set_or_stop_keyboard(recovery.id))),
        RecoveryStep::Completed => {
            Some((html!("notice-recovery-completed", time = time(at)), none))
        }
        RecoveryStep::Cancelled => Some((html!("notice-recovery-cancelled"), none)),
        RecoveryStep::Expired => Some((html!("notice-recovery-expired"), none)),
    }
}
