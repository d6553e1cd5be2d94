//! `/balance`.

use async_trait::async_trait;
use futures::FutureExt;
use kms_types::wire::{Balance, ChainBalance, Network, TokenBalance};
use kms_types::{Units, Wei};
use teloxide_core::types::MessageId;

use super::{receive, send};
use crate::chat::incoming::User;
use crate::chat::keyboard::{CallbackButton, Keyboard};
use crate::context::{Context, HandlerError, HandlerResult};
use crate::flow::{
    Action, Arguments, ArgumentsError, Button, Flow, ParseCallbackError, PressResult,
};
use crate::format::{amount, at_most, coins};
use crate::texts::{Html, Text, html, text};

const WORD: &str = "balance";

pub(crate) struct BalanceFlow;

impl Flow for BalanceFlow {
    fn word(&self) -> &'static str {
        WORD
    }

    fn description(&self) -> Text {
        text!("balance-description")
    }

    fn parse(&self, arguments: Arguments<'_>) -> Result<Action, ArgumentsError> {
        arguments.expect_none(|context, user| show(context, user).boxed())
    }

    fn button(&self, data: &str) -> Result<Box<dyn Button>, ParseCallbackError> {
        if data == "refresh" { Ok(Box::new(Refresh)) } else { Err(ParseCallbackError) }
    }
}

/// Fetches the balance again, in the same message.
struct Refresh;

#[async_trait]
impl Button for Refresh {
    fn data(&self) -> String {
        format!("{WORD}:refresh")
    }

    async fn press(&self, context: &Context, user: &User, message: MessageId) -> PressResult {
        let text = balance(context, user).await?;
        context.telegram.edit(user.id, message, &text, keyboard()).await?;
        Ok(Some(text!("up-to-date-notice")))
    }
}

/// The button that runs `/balance`.
pub(crate) fn open_button() -> CallbackButton {
    (text!("balance-button"), WORD.to_owned())
}

async fn show(context: &Context, user: &User) -> HandlerResult {
    let text = balance(context, user).await?;
    context.telegram.send(user.id, &text, keyboard()).await?;
    Ok(())
}

async fn balance(context: &Context, user: &User) -> Result<Html, HandlerError> {
    let balances = context.kms.balances(user.id.into()).await?;
    let mut parts = Vec::new();
    let mut with_money = Vec::new();
    for ChainBalance { chain_id, balance } in &balances.chains {
        let network = context.network.of_chain(*chain_id).await?;
        parts.push(match balance {
            Some(balance) => message(balance, &network),
            None => html!("balance-unavailable", network = &network.name),
        });
        if balance.as_ref().is_some_and(has_money) {
            with_money.push(network.short_name);
        }
    }
    if let [_, other, ..] = with_money.as_slice() {
        parts.push(html!("balance-network-named", network = other));
    }
    Ok(Html::paragraphs(parts))
}

fn keyboard() -> Keyboard {
    let refresh = (text!("balance-refresh-button"), Refresh.data());
    Keyboard::row([refresh, send::open_button(), receive::open_button()])
}

fn message(balance: &Balance, network: &Network) -> Html {
    let coin = html!("balance-coin", amount = coins(balance.wei, network), network = &network.name);
    let pending = match balance.pending == Wei::default() {
        true => Html::default(),
        false => html!("balance-coin-pending", amount = at_most(balance.pending, network)),
    };
    let tokens = balance.tokens.iter().filter(|balance| !is_zero(balance));
    let tokens = tokens.map(|balance| token(balance, network));
    Html::paragraphs([Html::lines([coin, pending])].into_iter().chain(tokens))
}

fn has_money(balance: &Balance) -> bool {
    let is_held = |held: &TokenBalance| held.units.is_some_and(|units| units != Units::default());
    balance.wei != Wei::default() || balance.tokens.iter().any(is_held)
}

fn is_zero(balance: &TokenBalance) -> bool {
    balance.units == Some(Units::default()) && balance.pending == Units::default()
}

fn token(balance: &TokenBalance, network: &Network) -> Html {
    let TokenBalance { token, units, pending } = balance;
    let held = match units {
        Some(units) => html!("balance-token", amount = amount(*units, Some(token), network)),
        None => html!("balance-token-unknown", symbol = &token.symbol),
    };
    let pending = match *pending == Units::default() {
        true => Html::default(),
        false => {
            html!("balance-token-pending", amount = amount(*pending, Some(token), network))
        }
    };
    Html::lines([held, pending])
}
