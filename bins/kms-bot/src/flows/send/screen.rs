//! The message that shows a transfer, from its quote to its end.

use kms_client::ClientError;
use kms_types::wire::{
    Network, Party, Transfer, TransferFailure, TransferState, Wait, WaitReason, Warning,
};
use kms_types::{Purpose, TelegramId, Token, Wei};
use teloxide_core::types::MessageId;

use super::button::SendButton;
use super::terms::Terms;
use crate::chat::keyboard::Keyboard;
use crate::chat::telegram::TelegramError;
use crate::context::{Context, HandlerResult};
use crate::format::{self, amount, at_most, coins, date, symbol, time};
use crate::journal::reports::{PaymentMessage, Report};
use crate::page::Place;
use crate::texts::{Html, Text, html, text};

/// Shows a transfer's current state in its message, or in a new one if that no longer exists.
pub(crate) async fn show(
    context: &Context,
    user: TelegramId,
    message: MessageId,
    transfer: &Transfer,
) -> HandlerResult {
    let (text, keyboard) = screen(context, user, transfer).await?;
    let current = current_message(context, user, message, transfer);
    context.show_payment(user, current, transfer, &text, keyboard).await
}

/// The message that shows a transfer: its own, or the one that took its place.
fn current_message(
    context: &Context,
    user: TelegramId,
    message: MessageId,
    transfer: &Transfer,
) -> MessageId {
    let newer = context.journal.chat(user).payment(transfer.id);
    newer.and_then(|newer| newer.message).map_or(message, MessageId)
}

/// Shows a transfer's current state in its message, if that still exists.
pub(crate) async fn update(
    context: &Context,
    user: TelegramId,
    message: MessageId,
    transfer: &Transfer,
) -> HandlerResult {
    let (text, keyboard) = screen(context, user, transfer).await?;
    let current = current_message(context, user, message, transfer);
    match context.telegram.edit(user, current, &text, keyboard).await {
        Err(TelegramError::Refused(_)) => Ok(()),
        other => Ok(other?),
    }
}

/// Reports a payment in a new message, because an edit would not be noticed: one that had ended is
/// pending again, or has ended after that. `known` is the message that showed it before.
pub(crate) async fn report(
    context: &Context,
    user: TelegramId,
    transfer: &Transfer,
    known: PaymentMessage,
    report: Report,
) -> HandlerResult {
    let (text, keyboard) = screen(context, user, transfer).await?;
    let text = match report {
        Report::Reopened(_) => Html::paragraphs([html!("transfer-reopened"), text]),
        Report::Payment(..) | Report::Events(..) | Report::Missed => text,
    };
    supersede(context, user, known, what(context, transfer).await?).await?;
    context.report(user, report, &text, keyboard).await?;
    Ok(())
}

/// The amount and the recipient of a payment.
pub(super) async fn what(context: &Context, transfer: &Transfer) -> Result<Html, ClientError> {
    let Transfer { value, token, chain_id, to, .. } = transfer;
    let amount = context.network.amount(*value, token.as_ref(), *chain_id).await?;
    Ok(html!("transfer-what", amount = amount, recipient = party(to)))
}

/// Says in an earlier message about a payment that a newer one follows.
pub(crate) async fn supersede(
    context: &Context,
    user: TelegramId,
    earlier: PaymentMessage,
    what: Html,
) -> HandlerResult {
    let Some(message) = earlier.message else { return Ok(()) };
    let text = html!("transfer-superseded-message", what = what);
    match context.telegram.edit(user, MessageId(message), &text, Keyboard::none()).await {
        Err(TelegramError::Refused(_)) => Ok(()),
        other => Ok(other?),
    }
}

/// The buttons of a quote.
pub(super) fn quote_keyboard(transfer: &Transfer, place: &Place) -> Keyboard {
    let fingerprint = Terms::of(transfer).fingerprint();
    let cancel = SendButton::Cancel(transfer.id).labelled();
    match place {
        Place::Chat => {
            let confirm = SendButton::Confirm { transfer: transfer.id, fingerprint }.labelled();
            Keyboard::row([confirm, cancel])
        }
        Place::Page(link) => link.keyboard(Purpose::Confirm(transfer.id)).and_row([cancel]),
    }
}

/// The text of a quote. `display_name` is the recipient's first name at Telegram.
pub(super) fn quote(transfer: &Transfer, network: &Network, display_name: Option<&str>) -> Html {
    let (to, token) = (&transfer.to, transfer.token.as_ref());
    let max_fee = at_most(transfer.max_fee, network);
    let value = amount(transfer.value, token, network);
    let member = match to.since {
        Some(since) => html!("send-member-since", date = date(since)),
        None => html!("send-not-a-member"),
    };
    let earlier = match transfer.warnings.contains(&Warning::FirstPayment) {
        true => html!("send-first-payment"),
        false => html!("send-paid-before"),
    };
    let total = match token {
        None => {
            let total = Wei(transfer.value.0.saturating_add(transfer.max_fee.0));
            html!("send-total-coin", amount = at_most(total, network))
        }
        // The fee is paid in the native coin, whatever is sent.
        Some(_) => html!("send-total-token", amount = &value, fee = &max_fee),
    };
    let quote = html!(
        "send-quote",
        amount = &value,
        recipient = recipient(to, display_name),
        address = to.address,
        member = member,
        earlier = earlier,
        usual = at_most(transfer.usual_fee, network),
        fee = &max_fee,
        total = total,
        network = &network.name
    );
    let warnings = transfer.warnings.iter().map(|shown| warning(*shown, token, network));
    Html::paragraphs([quote].into_iter().chain(warnings))
}

fn recipient(to: &Party, display_name: Option<&str>) -> Html {
    match (&to.username, display_name.map(format::name)) {
        (Some(username), Some(name)) => {
            html!("send-recipient-named", name = name, username = username)
        }
        (Some(username), None) => html!("transfer-username", username = username),
        (None, Some(name)) => html!("send-person", name = name),
        (None, None) => html!("send-recipient-address"),
    }
}

fn warning(warning: Warning, token: Option<&Token>, network: &Network) -> Html {
    match warning {
        // Part of the text of the quote.
        Warning::FirstPayment | Warning::Unknown => Html::default(),
        Warning::Contract => html!("send-warning-contract"),
        Warning::MostOfBalance => {
            let (symbol, network) = (symbol(token, network), &network.name);
            html!("send-warning-most-of-balance", symbol = symbol, network = network)
        }
        Warning::NameReassigned => html!("send-warning-reassigned"),
        Warning::LooksLikeAnother => html!("send-warning-lookalike"),
        Warning::FeeHigh => html!("send-warning-fee-high"),
        Warning::FeeAboveAmount => html!("send-warning-fee-above-amount"),
    }
}

/// The other side of a transfer: its username, or its address.
pub(crate) fn party(party: &Party) -> Html {
    match &party.username {
        Some(username) => html!("transfer-username", username = username),
        None => html!("transfer-address", address = party.address),
    }
}

/// A transfer's state in a word or two.
pub(crate) fn status(transfer: &Transfer) -> Text {
    match transfer.state {
        TransferState::Signed | TransferState::Broadcast => match transfer.cancel_requested_at {
            Some(_) => text!("transfer-cancelling-status"),
            None => match transfer.wait {
                Some(_) => text!("transfer-waiting-status"),
                None => text!("transfer-pending-status"),
            },
        },
        TransferState::Mined | TransferState::Final => text!("transfer-confirmed-status"),
        TransferState::Failed => text!("transfer-failed-status"),
        TransferState::Cancelled => text!("transfer-cancelled-status"),
        TransferState::Expired => text!("transfer-expired-status"),
        TransferState::Quoted | TransferState::Unknown => text!("transfer-unknown-status"),
    }
}

/// The page of a transaction in the block explorer.
pub(crate) fn explorer_link(explorer: &str, hash: &str) -> String {
    format!("{explorer}/tx/{hash}")
}

async fn screen(
    context: &Context,
    user: TelegramId,
    transfer: &Transfer,
) -> Result<(Html, Keyboard), ClientError> {
    let network = context.network.of_chain(transfer.chain_id).await?;
    let what = what(context, transfer).await?;
    let explorer = explorer_keyboard(transfer, &network);
    Ok(match transfer.state {
        TransferState::Quoted => {
            let place = Place::of(context, user).await?;
            (quote(transfer, &network, None), quote_keyboard(transfer, &place))
        }
        TransferState::Expired => {
            let renew = SendButton::Renew(transfer.id).labelled();
            (outcome(transfer, &network, &what), Keyboard::row([renew]))
        }
        TransferState::Signed | TransferState::Broadcast => {
            let keyboard = match &transfer.wait {
                Some(wait) => {
                    with_ways_out(explorer, transfer, wait, &Place::of(context, user).await?)
                }
                None => explorer,
            };
            (outcome(transfer, &network, &what), keyboard)
        }
        TransferState::Mined
        | TransferState::Final
        | TransferState::Failed
        | TransferState::Cancelled
        | TransferState::Unknown => (outcome(transfer, &network, &what), explorer),
    })
}

/// Adds the buttons of a payment that waits.
fn with_ways_out(keyboard: Keyboard, transfer: &Transfer, wait: &Wait, place: &Place) -> Keyboard {
    let keyboard = match wait.reason {
        // Higher prices do not help against these.
        WaitReason::Funds | WaitReason::EarlierTransfer | WaitReason::ChainStalled => keyboard,
        WaitReason::Fee
        | WaitReason::RefusedGasLimit
        | WaitReason::RefusedTipTooLow
        | WaitReason::RefusedFeeTooHigh
        | WaitReason::RefusedOther
        | WaitReason::Unknown => match place {
            Place::Chat => keyboard.and_row([SendButton::SpeedUp(transfer.id).labelled()]),
            Place::Page(link) => link.button(keyboard, Purpose::SpeedUp(transfer.id)),
        },
    };
    match transfer.cancel_requested_at {
        None => keyboard.and_row([SendButton::Cancel(transfer.id).labelled()]),
        Some(_) => keyboard,
    }
}

fn explorer_keyboard(transfer: &Transfer, network: &Network) -> Keyboard {
    match (&network.explorer, &transfer.tx_hash) {
        (Some(explorer), Some(hash)) => {
            let link = explorer_link(explorer, hash);
            Keyboard::none().and_link(text!("send-explorer-button"), &link)
        }
        (None, _) | (_, None) => Keyboard::none(),
    }
}

/// The text of a transfer that no longer waits for its confirmation.
fn outcome(transfer: &Transfer, network: &Network, what: &Html) -> Html {
    let hash = transfer.tx_hash.as_deref().map(|hash| html!("transfer-hash", hash = hash));
    let hash = hash.unwrap_or_default();
    let fee = transfer.fee.map(|fee| html!("transfer-fee", fee = coins(fee, network)));
    let fee = fee.unwrap_or_default();
    match transfer.state {
        TransferState::Signed | TransferState::Broadcast => {
            Html::lines([html!("transfer-pending", what = what, reason = waiting(transfer)), hash])
        }
        TransferState::Mined | TransferState::Final => {
            let block = transfer.block.map(|block| html!("transfer-block", number = block));
            let received = transfer.arrived.map(|units| {
                let token = transfer.token.as_ref();
                html!("transfer-received-less", amount = amount(units, token, network))
            });
            Html::lines([
                html!("transfer-confirmed", what = what),
                received.unwrap_or_default(),
                block.unwrap_or_default(),
                fee,
                hash,
            ])
        }
        TransferState::Failed => {
            let by = transfer.superseded_by.as_deref();
            let by = by.map(|hash| html!("transfer-superseded-by", hash = hash));
            let proof = by.unwrap_or(hash);
            Html::lines([failed(transfer, what), fee, proof])
        }
        // Cancelled by a transaction: that costs a fee.
        TransferState::Cancelled if transfer.fee.is_some() => {
            Html::lines([html!("transfer-cancelled-on-chain", what = what), fee, hash])
        }
        TransferState::Cancelled => html!("transfer-cancelled", what = what),
        TransferState::Expired => html!("transfer-expired", what = what),
        TransferState::Quoted | TransferState::Unknown => html!("transfer-unknown", what = what),
    }
}

fn failed(transfer: &Transfer, what: &Html) -> Html {
    match transfer.failure {
        Some(TransferFailure::NothingMoved) => html!("transfer-nothing-moved", what = what),
        Some(TransferFailure::Superseded) => html!("transfer-nonce-taken", what = what),
        Some(TransferFailure::Reverted) => match transfer.token {
            None => html!("transfer-reverted-recipient", what = what),
            Some(_) => html!("transfer-reverted-token", what = what),
        },
        None | Some(TransferFailure::Unknown) => html!("transfer-failed", what = what),
    }
}

/// What a pending transfer waits for.
fn waiting(transfer: &Transfer) -> Html {
    let Some(Wait { reason, since }) = transfer.wait else {
        return match (transfer.cancel_requested_at, transfer.replacements_sent) {
            (Some(_), _) => html!("transfer-cancelling"),
            (None, 0) => html!("transfer-waits-for-network"),
            (None, _) => html!("transfer-waits-replaced"),
        };
    };
    let reason = match reason {
        WaitReason::Fee => html!("transfer-wait-fee"),
        WaitReason::Funds => html!("transfer-wait-funds"),
        WaitReason::EarlierTransfer => html!("transfer-wait-earlier"),
        WaitReason::ChainStalled => html!("transfer-wait-chain"),
        WaitReason::RefusedGasLimit
        | WaitReason::RefusedTipTooLow
        | WaitReason::RefusedFeeTooHigh
        | WaitReason::RefusedOther
        | WaitReason::Unknown => html!("transfer-wait-refused"),
    };
    match transfer.cancel_requested_at {
        Some(_) => html!("transfer-cancelling-waits", time = time(since), reason = reason),
        None => html!("transfer-waits", time = time(since), reason = reason),
    }
}

#[cfg(test)]
mod tests {
    use kms_types::{EthAddress, TransferId};

    use super::*;

    #[test]
    fn a_pending_payment_says_what_it_waits_for() {
        let network = Network {
            short_name: "test".to_owned(),
            name: "Test".to_owned(),
            chain_id: 1,
            symbol: "ETH".to_owned(),
            tokens: Vec::new(),
            explorer: None,
        };
        let shown = |replacements_sent: u32, wait: Option<&str>, cancel: Option<i64>| {
            let party = serde_json::json!({"address": EthAddress::from([7; 20])});
            let sent: Transfer = serde_json::from_value(serde_json::json!({
                "id": TransferId::random(), "state": "broadcast", "from": party,
                "to": party, "value": "1000000000000000000", "usual_fee": "1", "max_fee": "1",
                "chain_id": 1, "replacements_sent": replacements_sent,
                "wait": wait.map(|reason| serde_json::json!({"reason": reason, "since": 0})),
                "cancel_requested_at": cancel, "warnings": [], "created_at": 0, "expires_at": 0,
            }))
            .unwrap();
            let outcome = outcome(&sent, &network, &super::party(&sent.to));
            assert!(outcome.as_str().contains(waiting(&sent).as_str()));
            (waiting(&sent), status(&sent))
        };
        let pending = || text!("transfer-pending-status");
        assert_eq!(shown(0, None, None), (html!("transfer-waits-for-network"), pending()));
        assert_eq!(shown(2, None, None), (html!("transfer-waits-replaced"), pending()));
        let since = || time(kms_types::Timestamp(0));
        let fee = html!("transfer-waits", time = since(), reason = html!("transfer-wait-fee"));
        assert_eq!(shown(3, Some("fee"), None), (fee, text!("transfer-waiting-status")));
        for (reason, text) in [
            ("funds", html!("transfer-wait-funds")),
            ("earlier_transfer", html!("transfer-wait-earlier")),
            ("chain_stalled", html!("transfer-wait-chain")),
            ("refused_gas_limit", html!("transfer-wait-refused")),
            ("refused_tip_too_low", html!("transfer-wait-refused")),
            ("refused_fee_too_high", html!("transfer-wait-refused")),
            ("refused_other", html!("transfer-wait-refused")),
        ] {
            let waits = html!("transfer-waits", time = since(), reason = text);
            assert_eq!(shown(0, Some(reason), None).0, waits, "{reason}");
        }
        let cancelling = text!("transfer-cancelling-status");
        assert_eq!(shown(0, None, Some(0)), (html!("transfer-cancelling"), cancelling));
        let reason = html!("transfer-wait-refused");
        let refused = html!("transfer-cancelling-waits", time = since(), reason = reason);
        assert_eq!(shown(0, Some("refused_later"), Some(0)).0, refused);
    }
}
