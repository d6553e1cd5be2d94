//! `/receive`: the address, as a QR code and as text.

use futures::FutureExt;
use kms_types::EthAddress;
use kms_types::wire::Network;

use crate::chat::incoming::User;
use crate::chat::keyboard::{CallbackButton, Keyboard};
use crate::chat::qr;
use crate::context::{Context, HandlerResult};
use crate::flow::{Action, Arguments, ArgumentsError, Flow};
use crate::texts::{Html, Text, html, text};

const WORD: &str = "receive";

pub(crate) struct ReceiveFlow;

impl Flow for ReceiveFlow {
    fn word(&self) -> &'static str {
        WORD
    }

    fn description(&self) -> Text {
        text!("receive-description")
    }

    fn parse(&self, arguments: Arguments<'_>) -> Result<Action, ArgumentsError> {
        arguments.expect_none(|context, user| show(context, user).boxed())
    }
}

/// The button that runs `/receive`.
pub(crate) fn open_button() -> CallbackButton {
    (text!("receive-button"), WORD.to_owned())
}

async fn show(context: &Context, user: &User) -> HandlerResult {
    let Some(account) = context.account(user).await? else { return Ok(()) };
    let address = account.address.to_string();
    let networks = context.network.all().await?;
    let parts = message(account.address, &networks);
    let keyboard = Keyboard::none().and_copy(text!("receive-copy-button"), &address);
    let whole = Html::paragraphs(parts.clone());
    match qr::png(&address) {
        Some(png) if whole.is_caption() => {
            context.telegram.send_picture(user.id, png, &whole, keyboard).await?;
        }
        Some(png) => {
            let mut parts = parts.into_iter();
            let caption = parts.next().unwrap_or_default();
            context.telegram.send_picture(user.id, png, &caption, keyboard).await?;
            context.send_paragraphs(user.id, parts.collect(), Keyboard::none()).await?;
        }
        None => context.send_paragraphs(user.id, parts, keyboard).await?,
    }
    Ok(())
}

/// The address, which is the same on all networks, and what can be sent to it.
fn message(address: EthAddress, networks: &[Network]) -> Vec<Html> {
    if let [only] = networks {
        let (name, symbols) = (&only.name, symbols(only));
        return vec![html!(
            "receive-address",
            network = name,
            address = address,
            symbols = symbols
        )];
    }
    let shown = networks.iter().map(|network| {
        html!("receive-network", network = &network.name, symbols = symbols(network))
    });
    let address = html!("receive-addresses", address = address);
    std::iter::once(address).chain(shown).chain([html!("receive-only")]).collect()
}

fn symbols(network: &Network) -> Html {
    let tokens = network.tokens.iter().map(|token| token.symbol.as_str());
    Html::list(std::iter::once(network.symbol.as_str()).chain(tokens))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assets::network;

    #[test]
    fn many_networks_and_tokens_need_more_than_a_caption() {
        let tokens: Vec<_> = (0..30).map(|number| format!("TOKEN{number}")).collect();
        let tokens: Vec<_> = tokens.iter().map(String::as_str).collect();
        let network = |number| network(number, "Network", "ETH", &tokens);
        let of = |count| message([1; 20].into(), &(1..=count).map(network).collect::<Vec<_>>());
        assert!(Html::paragraphs(of(2)).is_caption());
        let parts = of(20);
        assert!(!Html::paragraphs(parts.clone()).is_caption() && parts[0].is_caption());
        assert!(Html::messages(parts).len() > 1);
    }
}
