//! Messages that the bot sends on its own, from the server's events.

use kms_types::wire::{Event, EventBody, Recovery, RecoveryState, Transfer, TransferState};
use kms_types::{
    AccountEvent, DepositEvent, EventKind, EventStream, Purpose, RecoveryStep, Remedy,
    SecurityEvent, TelegramId, Timestamp, Token, TransferEvent, Units,
};
use teloxide_core::types::MessageId;

use crate::chat::keyboard::Keyboard;
use crate::context::{Context, HandlerError, HandlerResult};
use crate::flows::send::terms::ClientRef;
use crate::flows::send::{screen, speed_up};
use crate::flows::{FLOWS, balance_button, freeze, history_button, recovery, start};
use crate::format::time;
use crate::journal::Chat;
use crate::journal::missed::MissedPart;
use crate::journal::reports::{Mark, PaymentMessage, Report};
use crate::page::{self, OnPage, Place};
use crate::texts::{Count, Html, html};

/// Delivers the notice of an event, if there is one.
pub(crate) async fn deliver(context: &Context, event: &Event) -> HandlerResult {
    if let EventBody::Transfer { kind: TransferEvent::Changed, transfer } = &event.what {
        return update_transfer(context, event.telegram_id, transfer).await;
    }
    let user = event.telegram_id;
    if let EventBody::Transfer { kind: TransferEvent::Received, transfer } = &event.what {
        return update_incoming(context, user, transfer).await;
    }
    let Some((stream, mark)) = Mark::of(event) else { return Ok(()) };
    let chat = context.journal.chat(user);
    if chat.is_done_with(event)
        || kind(&event.what).is_some_and(|kind| context.take_answered(user, kind))
    {
        return Ok(());
    }
    let is_new = matches!(&event.what, EventBody::Account { kind: AccountEvent::Created });
    if !chat.has_reported(stream, mark) {
        let Some((message, keyboard)) = notice(context, event).await? else { return Ok(()) };
        if is_new {
            context.journal.change(user, |chat| chat.owes_offer = true);
        } else {
            page::end(context, user);
        }
        context.report(user, Report::Events(stream, mark), &message, keyboard).await?;
    }
    if is_new {
        // Also if the bot was stopped in between, or Telegram failed.
        let owner = context.telegram.user(user).await?;
        start::go_on(context, &owner, || page::end(context, user), FLOWS).await?;
    }
    Ok(())
}

/// Several deposits of one asset.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    chain_id: u64,
    token: Option<Token>,
    count: u64,
    total: Units,
    largest: Units,
    /// Who sent the largest, if that is known: not of small deposits that the server summed up, and
    /// not of coin that came through a contract.
    sender: Option<Html>,
    /// The transaction of the largest.
    tx_hash: Option<String>,
}

impl Received {
    /// The deposit that an event reports. A transfer of this service has a message of its own,
    /// which follows it until it is final.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        let EventBody::Deposit { kind: DepositEvent::Received, deposit } = &event.what else {
            return None;
        };
        let (token, total) = (deposit.token.clone(), deposit.value);
        let sender = deposit.from.map(|from| html!("transfer-address", address = from));
        let largest = if deposit.count == 1 { total } else { Units::default() };
        let (chain_id, count) = (deposit.chain_id, deposit.count);
        let tx_hash = deposit.tx_hash.clone();
        Some(Self { chain_id, token, count, total, largest, sender, tx_hash })
    }

    /// Reports whether both are of the same asset.
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        (self.chain_id, &self.token) == (other.chain_id, &other.token)
    }

    /// Adds payments of the same asset.
    pub(crate) fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.total = Units(self.total.0.saturating_add(other.total.0));
        if other.largest > self.largest {
            self.largest = other.largest;
            self.sender = other.sender;
            self.tx_hash = other.tx_hash;
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}

/// Reports several received payments in one message. `mark` is of their last event.
pub(crate) async fn deliver_digest(
    context: &Context,
    user: TelegramId,
    received: &[Received],
    mark: Mark,
) -> HandlerResult {
    if context.journal.chat(user).has_reported(EventStream::Payments, mark) {
        return Ok(());
    }
    let report = Report::Events(EventStream::Payments, mark);
    let (message, keyboard) = digest(context, received).await?;
    context.report(user, report, &message, keyboard).await?;
    Ok(())
}

async fn digest(
    context: &Context,
    received: &[Received],
) -> Result<(Html, Keyboard), HandlerError> {
    if let [only @ (Received { count: 1, .. } | Received { sender: None, .. })] = received {
        return received_notice(context, only).await;
    }
    let count = Count(received.iter().map(Received::count).sum());
    let mut parts = vec![html!("notice-received-many", count = count)];
    for received in received {
        let Received { chain_id, token, total, largest, sender, .. } = received;
        let total = context.network.amount(*total, token.as_ref(), *chain_id).await?;
        let largest = context.network.amount(*largest, token.as_ref(), *chain_id).await?;
        let largest = match sender {
            Some(sender) => {
                html!("notice-received-largest", amount = largest, sender = sender)
            }
            None => Html::default(),
        };
        parts.push(Html::lines([
            html!("notice-received-total", amount = total),
            largest,
            hash(received.tx_hash.as_deref()),
        ]));
    }
    Ok((Html::paragraphs(parts), payments_keyboard()))
}

fn payments_keyboard() -> Keyboard {
    Keyboard::row([balance_button(), history_button()])
}

/// Reports to a user who blocked the bot and came back what happened meanwhile. Should it fail, the
/// rest is reported later.
pub(crate) async fn deliver_missed(context: &Context, user: TelegramId) -> HandlerResult {
    context.settle_report(user).await?;
    while let Some(part) = context.journal.chat(user).missed.first() {
        match missed_notice(context, user, part).await? {
            Some((message, keyboard)) => {
                context.report(user, Report::Missed, &message, keyboard).await?;
            }
            None => drop(context.journal.change(user, |chat| chat.missed.remove_first())),
        }
    }
    Ok(())
}

/// The message about a part of what a user missed, unless it has one of its own.
async fn missed_notice(
    context: &Context,
    user: TelegramId,
    part: MissedPart,
) -> Result<Option<(Html, Keyboard)>, HandlerError> {
    match part {
        MissedPart::Greeting => Ok(Some((html!("notice-missed"), Keyboard::none()))),
        MissedPart::More(count) => {
            let text = html!("notice-missed-more", count = Count(count));
            Ok(Some((text, freeze::ask_keyboard())))
        }
        MissedPart::Event(mut event) => {
            if let EventBody::Recovery { recovery, .. } = &mut event.what
                && let Some(open) = context.kms.recovery(user.into()).await?
                && open.id == recovery.id
            {
                *recovery = open;
            }
            notice(context, &event).await
        }
        MissedPart::TakenBack(transfer) => {
            if let Some(transfer) = context.kms.transfer(transfer).await? {
                update_incoming(context, user, &transfer).await?;
            }
            Ok(None)
        }
        MissedPart::Contradicted(transfer) => {
            if let Some(transfer) = context.kms.transfer(transfer).await? {
                update_transfer(context, user, &transfer).await?;
            }
            Ok(None)
        }
        MissedPart::Received(count) => {
            let text = html!("notice-missed-payments", count = Count(count));
            Ok(Some((text, payments_keyboard())))
        }
    }
}

/// Keeps an event that cannot be delivered for when the user comes back.
pub(crate) fn keep_missed(chat: &mut Chat, event: Event) {
    let shown = |transfer: &Transfer| chat.payment(transfer.id).map(|known| known.state);
    let is_contradicted = match &event.what {
        EventBody::Transfer { transfer, .. } => {
            shown(transfer).is_some_and(|shown| contradicts(shown, transfer))
        }
        EventBody::Account { .. }
        | EventBody::Security { .. }
        | EventBody::Recovery { .. }
        | EventBody::Deposit { .. }
        | EventBody::Unknown { .. } => false,
    };
    let missed = &mut chat.missed;
    match &event.what {
        EventBody::Security { .. } | EventBody::Recovery { .. } | EventBody::Account { .. } => {
            missed.push(event);
        }
        EventBody::Deposit { deposit, .. } => missed.deposits += deposit.count,
        EventBody::Transfer { kind: TransferEvent::Received, transfer } => match transfer.state {
            TransferState::Mined | TransferState::Final => {
                missed.transfers.insert(transfer.id);
                missed.taken_back.remove(&transfer.id);
            }
            TransferState::Signed
            | TransferState::Broadcast
            | TransferState::Failed
            | TransferState::Cancelled => {
                missed.transfers.remove(&transfer.id);
                missed.taken_back.insert(transfer.id);
            }
            TransferState::Quoted | TransferState::Expired | TransferState::Unknown => {}
        },
        EventBody::Transfer { kind: TransferEvent::Changed, transfer } if is_contradicted => {
            missed.contradicted.insert(transfer.id);
        }
        // The transfer's message, which the user sees in the history.
        EventBody::Transfer { kind: TransferEvent::Changed, transfer } => {
            missed.contradicted.remove(&transfer.id);
        }
        EventBody::Unknown { .. } => {}
    }
}

fn hash(tx_hash: Option<&str>) -> Html {
    tx_hash.map(|hash| html!("transfer-hash", hash = hash)).unwrap_or_default()
}

/// Shows a transfer's new state in its message. Transfers of other clients have no message.
async fn update_transfer(
    context: &Context,
    user: TelegramId,
    transfer: &Transfer,
) -> HandlerResult {
    let Some(ClientRef { message, .. }) = ClientRef::of(transfer) else { return Ok(()) };
    context.end_step_if(user, |step: &OnPage| step.purpose == Purpose::Confirm(transfer.id));
    // Its message shows the payment, and does not ask for a password any more.
    speed_up::end(context, user, transfer.id);
    if let Some(known) = context.journal.chat(user).payment(transfer.id) {
        if contradicts(known.state, transfer) {
            // The event may be older than the message.
            let current = context.kms.transfer(transfer.id).await?;
            let current = current.filter(|current| contradicts(known.state, current));
            let Some(current) = current else { return Ok(()) };
            let report = match is_pending(&current) {
                true => Report::Reopened(current.id),
                false => Report::Payment(current.id, current.state),
            };
            return screen::report(context, user, &current, known, report).await;
        }
        if known.reopened && has_ended(transfer.state) {
            let report = Report::Payment(transfer.id, transfer.state);
            return screen::report(context, user, transfer, known, report).await;
        }
    }
    match transfer.state {
        // If the user deleted the message, a new one reports how the transfer ended.
        TransferState::Mined | TransferState::Failed => {
            screen::show(context, user, message, transfer).await
        }
        // With the ways out of a wait.
        TransferState::Signed | TransferState::Broadcast if transfer.wait.is_some() => {
            screen::show(context, user, message, transfer).await
        }
        // By a transaction, after it was sent.
        TransferState::Cancelled if transfer.fee.is_some() => {
            screen::show(context, user, message, transfer).await
        }
        TransferState::Quoted
        | TransferState::Cancelled
        | TransferState::Signed
        | TransferState::Broadcast
        | TransferState::Final
        | TransferState::Expired
        | TransferState::Unknown => screen::update(context, user, message, transfer).await,
    }
}

/// Whether a message that shows a payment in this state says how it ended, and the payment is
/// pending or has ended in another way.
fn contradicts(shown: TransferState, transfer: &Transfer) -> bool {
    let is_paid = |state| matches!(state, TransferState::Mined | TransferState::Final);
    let is_other_end = has_ended(transfer.state) && is_paid(transfer.state) != is_paid(shown);
    has_ended(shown) && (is_pending(transfer) || is_other_end)
}

fn is_pending(transfer: &Transfer) -> bool {
    matches!(transfer.state, TransferState::Signed | TransferState::Broadcast)
}

/// Whether a message that shows this state says how the payment ended.
fn has_ended(state: TransferState) -> bool {
    match state {
        TransferState::Mined
        | TransferState::Final
        | TransferState::Failed
        | TransferState::Cancelled => true,
        TransferState::Quoted
        | TransferState::Signed
        | TransferState::Broadcast
        | TransferState::Expired
        | TransferState::Unknown => false,
    }
}

/// Reports to the recipient that a payment arrives, and edits that message when it is final. If it
/// was taken back, a new message says so, and another one if it arrives after all: an edit would
/// not be noticed.
async fn update_incoming(
    context: &Context,
    user: TelegramId,
    transfer: &Transfer,
) -> HandlerResult {
    let (units, token) = (transfer.arrived.unwrap_or(transfer.value), transfer.token.as_ref());
    let received = context.network.amount(units, token, transfer.chain_id).await?;
    let sender = screen::party(&transfer.from);
    let (message, is_edit) = match transfer.state {
        TransferState::Mined => {
            (html!("notice-arriving", amount = &received, sender = &sender), true)
        }
        TransferState::Final => {
            (html!("notice-received", amount = &received, sender = &sender), true)
        }
        TransferState::Signed | TransferState::Broadcast => {
            (html!("notice-received-reopened", amount = &received, sender = &sender), false)
        }
        TransferState::Failed | TransferState::Cancelled => {
            (html!("notice-taken-back", amount = &received, sender = &sender), false)
        }
        TransferState::Quoted | TransferState::Expired | TransferState::Unknown => return Ok(()),
    };
    // With its transaction, so that a repeated notice is not taken for another payment.
    let message = Html::lines([message, hash(transfer.tx_hash.as_deref())]);
    let keyboard = Keyboard::row([balance_button()]);
    let known = context.journal.chat(user).payment(transfer.id);
    let has_arrived =
        |known: PaymentMessage| matches!(known.state, TransferState::Mined | TransferState::Final);
    let is_edit = is_edit && known.is_some_and(has_arrived);
    match known {
        Some(PaymentMessage { message: Some(shown), .. }) if is_edit => {
            let shown = MessageId(shown);
            context.show_payment(user, shown, transfer, &message, keyboard).await
        }
        // A message about several payments reported it.
        Some(PaymentMessage { message: None, .. }) if is_edit => Ok(()),
        // The event came again.
        Some(shown) if shown.state == transfer.state => Ok(()),
        known => {
            if let Some(known) = known {
                let what = html!("notice-received-what", amount = received, sender = sender);
                screen::supersede(context, user, known, what).await?;
            }
            let report = Report::Payment(transfer.id, transfer.state);
            context.report(user, report, &message, keyboard).await?;
            Ok(())
        }
    }
}

/// The kind of an event that an answer may have reported already.
fn kind(what: &EventBody) -> Option<EventKind> {
    match what {
        EventBody::Account { kind } => Some(EventKind::Account(*kind)),
        EventBody::Security { kind } => Some(EventKind::Security(*kind)),
        EventBody::Recovery { kind, .. } => Some(EventKind::Recovery(*kind)),
        EventBody::Transfer { .. } | EventBody::Deposit { .. } | EventBody::Unknown { .. } => None,
    }
}

/// The message about an event, if there is one.
async fn notice(
    context: &Context,
    event: &Event,
) -> Result<Option<(Html, Keyboard)>, HandlerError> {
    let alert = |message| Ok(Some((message, freeze::ask_keyboard())));
    match &event.what {
        EventBody::Account { kind: AccountEvent::EmailChangeRequested } => {
            alert(html!("notice-email-change-requested"))
        }
        EventBody::Account { kind: AccountEvent::EmailChanged } => {
            alert(html!("notice-email-changed"))
        }
        EventBody::Security { kind } => {
            Ok(Some((security_notice(*kind, event.at), security_keyboard(*kind))))
        }
        EventBody::Recovery { kind, recovery } => {
            let place = Place::of(context, event.telegram_id).await?;
            Ok(recovery_notice(*kind, recovery, event.at, &place))
        }
        EventBody::Deposit { .. } => match Received::of(event) {
            Some(received) => Ok(Some(received_notice(context, &received).await?)),
            None => Ok(None),
        },
        EventBody::Account { kind: AccountEvent::Created } => {
            start::made_on_page(context, event.telegram_id).await
        }
        // The user sees these in the transfer's message.
        EventBody::Transfer { kind: TransferEvent::Changed | TransferEvent::Received, .. } => {
            Ok(None)
        }
        // An event of a newer server.
        EventBody::Unknown { .. } => Ok(None),
    }
}

/// The notice of a security event: the message that the event names.
fn security_notice(event: SecurityEvent, at: Timestamp) -> Html {
    macro_rules! notices {
        ($($(#[$about:meta])* $event:ident = $text:literal, $id:literal, $remedy:ident;)+) => {
            match event { $(SecurityEvent::$event => html!($id, time = time(at)),)+ }
        };
    }
    kms_types::with_security_events!(notices)
}

/// What an owner who did not cause the event can do at once.
fn security_keyboard(event: SecurityEvent) -> Keyboard {
    match event.remedy() {
        Remedy::Freeze => freeze::ask_keyboard(),
        Remedy::KeepFrozen => freeze::keep_keyboard(),
        Remedy::KeepPage => freeze::stay_keyboard(),
        Remedy::Nothing => Keyboard::none(),
    }
}

/// One received payment, with its transaction, so that a repeated notice is not taken for another
/// payment.
async fn received_notice(
    context: &Context,
    received: &Received,
) -> Result<(Html, Keyboard), HandlerError> {
    let Received { chain_id, token, total, .. } = received;
    let shown = context.network.amount(*total, token.as_ref(), *chain_id).await?;
    let message = match &received.sender {
        Some(sender) => html!("notice-received", amount = shown, sender = sender),
        None if received.count == 1 => html!("notice-received-unnamed", amount = shown),
        None => html!("notice-received-small", count = Count(received.count), amount = shown),
    };
    Ok((
        Html::lines([message, hash(received.tx_hash.as_deref())]),
        Keyboard::row([balance_button()]),
    ))
}

/// The message about a step of a recovery. A step that a later one has superseded has no message:
/// the later event reports more.
fn recovery_notice(
    step: RecoveryStep,
    recovery: &Recovery,
    at: Timestamp,
    place: &Place,
) -> Option<(Html, Keyboard)> {
    let (stop, none) = (recovery::stop_keyboard(recovery.id), Keyboard::none());
    match step {
        RecoveryStep::Requested | RecoveryStep::MoveRequested => {
            matches!(recovery.state, RecoveryState::CodeSent | RecoveryState::Waiting)
                .then(|| recovery::screen(recovery, place))
                .flatten()
        }
        RecoveryStep::CodeConfirmed => (recovery.state == RecoveryState::Waiting)
            .then(|| (recovery::confirmed(recovery), stop)),
        RecoveryStep::Ready | RecoveryStep::MoveReady => (recovery.state == RecoveryState::Ready)
            .then(|| recovery::screen(recovery, place))
            .flatten(),
        RecoveryStep::Completed => {
            Some((html!("notice-recovery-completed", time = time(at)), freeze::ask_keyboard()))
        }
        RecoveryStep::Cancelled => Some((html!("notice-recovery-cancelled"), none)),
        RecoveryStep::Expired => Some((html!("notice-recovery-expired"), none)),
        RecoveryStep::Moved => Some((html!("notice-moved", time = time(at)), none)),
        RecoveryStep::MoveCancelled | RecoveryStep::MoveExpired => {
            Some((html!("notice-move-over"), none))
        }
    }
}
