//! What the bot says on its own: from the server's events.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kms_types::wire::{Event, EventKind, RecoveryStep, TransferState};
use tokio::sync::oneshot;

use crate::app::{App, Done, Failure};
use crate::buttons::{Keyboard, Press};
use crate::command::Name;
use crate::lanes::Lanes;
use crate::screen::{self, ClientRef};
use crate::telegram::TelegramError;
use crate::{recovery, texts};

/// How long one request waits for events.
const WAIT: Duration = Duration::from_secs(25);
/// A page is acknowledged after this long although a notice is still on its way to somebody.
const TELL_AT_MOST: Duration = Duration::from_secs(30);
/// How often a notice is tried that alone does not get through.
const TRIES: u32 = 5;

/// Follows the events for ever. They come at least once, and are acknowledged when they were
/// told: a bot that was killed tells the last ones again.
pub(crate) async fn follow(app: Arc<App>, lanes: Lanes) {
    let (mut after, mut failures) = (None, 0);
    loop {
        match app.kms.events(after, WAIT).await {
            Ok(page) => {
                failures = 0;
                tell_all(&app, &lanes, page.events).await;
                after = Some(page.next);
            }
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(%error, "events can not be read; trying again");
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

async fn tell_all(app: &Arc<App>, lanes: &Lanes, events: Vec<Event>) {
    let told = events.into_iter().map(|event| {
        let (done, is_done) = oneshot::channel();
        let app = Arc::clone(app);
        // In the person's lane, so that it does not overtake the answer to what they did.
        lanes.tell(event.telegram_id, async move {
            tell(&app, event).await;
            // Nobody waits any more if this took too long.
            let _ = done.send(());
        });
        is_done
    });
    // A dropped channel is a panic, which is logged where it is caught. One person's lane holds
    // nobody else's notices; while Telegram answers nobody, they wait.
    let mut told = std::pin::pin!(join_all(told));
    while tokio::time::timeout(TELL_AT_MOST, &mut told).await.is_err() && !app.telegram.is_alive() {
    }
}

async fn tell(app: &App, event: Event) {
    let mut failures = 0;
    while failures < TRIES {
        match try_tell(app, &event).await {
            Ok(()) => return,
            Err(Failure::Telegram(TelegramError::Gone)) => {
                tracing::info!("a notice was not told: the person can not be written to");
                return;
            }
            Err(Failure::Telegram(TelegramError::Unreachable(_))) if !app.telegram.is_alive() => {
                tokio::time::sleep(backoff(TRIES)).await;
            }
            Err(Failure::Telegram(TelegramError::Unreachable(_)) | Failure::Kms(_)) => {
                tokio::time::sleep(backoff(failures)).await;
                failures += 1;
            }
            Err(error) => {
                tracing::warn!(%error, "a notice could not be told");
                return;
            }
        }
    }
    tracing::warn!("a notice was given up");
}

async fn try_tell(app: &App, event: &Event) -> Done {
    let who = event.telegram_id;
    let text = match &event.what {
        EventKind::TransferChanged { transfer } => {
            // Transfers that another client sends have no message here.
            let Some(client_ref) = ClientRef::of(transfer) else { return Ok(()) };
            let message = client_ref.message;
            // Who deleted the message is told how it ended, once.
            return match transfer.state {
                TransferState::Mined | TransferState::Failed => {
                    screen::show(app, who, message, transfer).await
                }
                TransferState::Quoted
                | TransferState::Signed
                | TransferState::Broadcast
                | TransferState::Final
                | TransferState::Cancelled
                | TransferState::Expired
                | TransferState::Unknown => screen::update(app, who, message, transfer).await,
            };
        }
        EventKind::Received { transfer } => {
            let text = texts::received(transfer, &app.network_of(transfer.chain_id).await?);
            app.telegram.say(who, &text, balance_button()).await?;
            return Ok(());
        }
        EventKind::DepositReceived { deposit } => {
            let network = app.network_of(deposit.chain_id).await?;
            let text = texts::deposit_received(deposit, &network);
            app.telegram.say(who, &text, balance_button()).await?;
            return Ok(());
        }
        EventKind::PasswordChanged => texts::password_changed(event.at),
        EventKind::KeyExported => texts::key_exported(event.at),
        EventKind::EmailChangeRequested => texts::EMAIL_ASKED.to_owned(),
        EventKind::LimitRaiseAsked => texts::raise_asked(event.at),
        EventKind::EmailChanged => texts::EMAIL_CHANGED.to_owned(),
        EventKind::Recovery { step, recovery } => {
            let told = match step {
                RecoveryStep::Requested => texts::recovery_requested(recovery),
                RecoveryStep::CodeConfirmed => texts::recovery_confirmed(recovery),
                RecoveryStep::Ready => texts::recovery_ready(recovery),
                RecoveryStep::Completed => Some(texts::recovered(event.at)),
                RecoveryStep::Cancelled => Some(texts::RECOVERY_CANCELLED.to_owned()),
                RecoveryStep::Expired => Some(texts::RECOVERY_EXPIRED.to_owned()),
                RecoveryStep::Unknown => None,
            };
            // What it has become meanwhile tells more.
            let Some(text) = told else { return Ok(()) };
            let keyboard = match step {
                RecoveryStep::Requested | RecoveryStep::CodeConfirmed => {
                    recovery::stop_button(recovery.id)
                }
                RecoveryStep::Ready => recovery::set_or_stop(recovery.id),
                RecoveryStep::Completed
                | RecoveryStep::Cancelled
                | RecoveryStep::Expired
                | RecoveryStep::Unknown => Keyboard::none(),
            };
            app.telegram.say(who, &text, keyboard).await?;
            return Ok(());
        }
        // The reply to /start already reports it.
        EventKind::AccountCreated => return Ok(()),
        // An event of a newer server, for which this bot has no text.
        EventKind::Unknown => return Ok(()),
    };
    app.telegram.say(who, &text, Keyboard::none()).await?;
    Ok(())
}

fn balance_button() -> Keyboard {
    Keyboard::row([(texts::BALANCE, Press::Command(Name::Balance))])
}
