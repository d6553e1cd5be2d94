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

/// The most networks that the caption of a picture has room for, which is 1,024 characters.
const MOST_IN_CAPTION: usize = 3;

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
    let mut parts = Vec::new();
    for (position, network) in networks.iter().enumerate() {
        parts.push(message(account.address, network));
        // The first is the primary one.
        if position > 0 {
            parts.push(html!("network-named", network = &network.short_name));
        }
    }
    let text = Html::paragraphs(parts);
    let keyboard = Keyboard::none().and_copy(text!("receive-copy-button"), &address);
    let is_caption = networks.len() <= MOST_IN_CAPTION;
    match qr::png(&address).filter(|_| is_caption) {
        Some(png) => context.telegram.send_picture(user.id, png, &text, keyboard).await?,
        None => drop(context.telegram.send(user.id, &text, keyboard).await?),
    }
    Ok(())
}

fn message(address: EthAddress, network: &Network) -> Html {
    let tokens = network.tokens.iter().map(|token| token.symbol.as_str());
    let symbols = Html::list(std::iter::once(network.symbol.as_str()).chain(tokens));
    html!("receive-address", network = &network.name, address = address, symbols = symbols)
}
