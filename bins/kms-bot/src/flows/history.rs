//! `/history`: five payments per page.

use async_trait::async_trait;
use futures::FutureExt;
use kms_client::ClientError;
use kms_types::Timestamp;
use kms_types::wire::{
    Account, Direction, ExternalDeposit, HistoryEntry, Network, Transfer, TransferState,
};
use teloxide_core::types::MessageId;

use super::send::screen::{explorer_link, party, status};
use crate::chat::html::is_public_link;
use crate::chat::incoming::User;
use crate::chat::keyboard::{CallbackButton, Keyboard};
use crate::context::{Context, HandlerError, HandlerResult};
use crate::flow::{
    Action, Arguments, ArgumentsError, Button, Flow, ParseCallbackError, PressResult,
};
use crate::format::time;
use crate::texts::{Count, Html, Text, html, text};

const WORD: &str = "history";
const PAGE_LENGTH: u32 = 5;

pub(crate) struct HistoryFlow;

impl Flow for HistoryFlow {
    fn word(&self) -> &'static str {
        WORD
    }

    fn description(&self) -> Text {
        text!("history-description")
    }

    fn parse(&self, arguments: Arguments<'_>) -> Result<Action, ArgumentsError> {
        arguments.expect_none(|context, user| show(context, user).boxed())
    }

    fn button(&self, data: &str) -> Result<Box<dyn Button>, ParseCallbackError> {
        match data.split_once(':') {
            Some(("o", cursor)) => Ok(Box::new(Page::Older(cursor.to_owned()))),
            Some(("n", cursor)) => Ok(Box::new(Page::Newer(cursor.to_owned()))),
            Some(_) | None => Err(ParseCallbackError),
        }
    }
}

/// A page of the history, relative to a cursor that the server returned.
#[derive(Debug)]
enum Page {
    Newest,
    Older(String),
    Newer(String),
}

#[async_trait]
impl Button for Page {
    fn data(&self) -> String {
        match self {
            Self::Newest => WORD.to_owned(),
            Self::Older(cursor) => format!("{WORD}:o:{cursor}"),
            Self::Newer(cursor) => format!("{WORD}:n:{cursor}"),
        }
    }

    async fn press(&self, context: &Context, user: &User, message: MessageId) -> PressResult {
        if let Some((text, keyboard)) = page(context, user, self).await? {
            context.telegram.edit(user.id, message, &text, keyboard).await?;
        }
        Ok(None)
    }
}

/// The button that runs `/history`.
pub(crate) fn open_button() -> CallbackButton {
    (text!("history-button"), WORD.to_owned())
}

async fn show(context: &Context, user: &User) -> HandlerResult {
    if let Some((text, keyboard)) = page(context, user, &Page::Newest).await? {
        context.telegram.send(user.id, &text, keyboard).await?;
    }
    Ok(())
}

async fn page(
    context: &Context,
    user: &User,
    page: &Page,
) -> Result<Option<(Html, Keyboard)>, HandlerError> {
    let Some(account) = context.account(user).await? else { return Ok(None) };
    let turn = match page {
        Page::Newest => kms_client::Page::Newest,
        Page::Older(cursor) => kms_client::Page::Older(cursor),
        Page::Newer(cursor) => kms_client::Page::Newer(cursor),
    };
    let mut page = context.kms.transfers(user.id.into(), turn, PAGE_LENGTH).await?;
    // The first page is always full, even if fewer entries are newer than the cursor.
    if matches!(turn, kms_client::Page::Newer(_)) && page.prev.is_none() {
        page = context.kms.transfers(user.id.into(), kms_client::Page::Newest, PAGE_LENGTH).await?;
    }
    let text = message(context, &account, &page.entries).await?;
    let keyboard = match (page.prev.map(newer_button), page.next.map(older_button)) {
        (None, None) => Keyboard::none(),
        (Some(newer), None) => Keyboard::row([newer]),
        (None, Some(older)) => Keyboard::row([older]),
        (Some(newer), Some(older)) => Keyboard::row([newer, older]),
    };
    Ok(Some((text, keyboard)))
}

fn newer_button(cursor: String) -> CallbackButton {
    (text!("history-newer-button"), Page::Newer(cursor).data())
}

fn older_button(cursor: String) -> CallbackButton {
    (text!("history-older-button"), Page::Older(cursor).data())
}

async fn message(
    context: &Context,
    account: &Account,
    entries: &[HistoryEntry],
) -> Result<Html, HandlerError> {
    if entries.is_empty() {
        return Ok(html!("history-empty"));
    }
    let mut parts = vec![html!("history-title")];
    for entry in entries {
        parts.push(match entry {
            HistoryEntry::Transfer { transfer } => transferred(context, account, transfer).await?,
            HistoryEntry::Deposit { at, deposit } => deposited(context, *at, deposit).await?,
            // From a newer server, and unknown here.
            HistoryEntry::Unknown => Html::default(),
        });
    }
    Ok(Html::paragraphs(parts))
}

async fn transferred(
    context: &Context,
    account: &Account,
    transfer: &Transfer,
) -> Result<Html, ClientError> {
    let (direction, token) = (transfer.direction(account.id), transfer.token.as_ref());
    let units = match direction {
        Direction::Out => transfer.value,
        Direction::In => transfer.arrived.unwrap_or(transfer.value),
    };
    let amount = context.network.amount(units, token, transfer.chain_id).await?;
    let what = match direction {
        Direction::Out => {
            html!("history-sent", amount = amount, recipient = party(&transfer.to))
        }
        Direction::In => {
            html!("history-received", amount = amount, sender = party(&transfer.from))
        }
    };
    let status = match (direction, transfer.state) {
        (Direction::In, TransferState::Mined) => text!("transfer-arriving-status"),
        (Direction::In | Direction::Out, _any) => status(transfer),
    };
    let network = context.network.of_chain(transfer.chain_id).await?;
    Ok(entry(&what, transfer.created_at, status, transfer.tx_hash.as_deref(), &network))
}

async fn deposited(
    context: &Context,
    at: Timestamp,
    deposit: &ExternalDeposit,
) -> Result<Html, ClientError> {
    let token = deposit.token.as_ref();
    let received = context.network.amount(deposit.value, token, deposit.chain_id).await?;
    let what = match deposit.from {
        Some(from) => {
            let sender = html!("transfer-address", address = from);
            html!("history-received", amount = received, sender = sender)
        }
        None if deposit.count == 1 => html!("history-received-unnamed", amount = received),
        // Without the addresses of strangers, which may look like others.
        None => html!("history-received-small", amount = received, count = Count(deposit.count)),
    };
    let network = context.network.of_chain(deposit.chain_id).await?;
    let status = text!("history-deposit-status");
    Ok(entry(&what, at, status, deposit.tx_hash.as_deref(), &network))
}

/// One entry; its status links to the transaction in the explorer.
fn entry(what: &Html, at: Timestamp, status: Text, hash: Option<&str>, network: &Network) -> Html {
    let link = network.explorer.as_deref().zip(hash);
    let link = link.map(|(explorer, hash)| explorer_link(explorer, hash));
    let status = match link.filter(|link| is_public_link(link)) {
        Some(link) => html!("history-link", link = link, status = status),
        None => html!("history-status", status = status),
    };
    html!("history-entry", what = what, time = time(at), status = status)
}
