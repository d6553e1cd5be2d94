//! What is written in a group: a command leads to the private chat, and what may be a password is
//! deleted.

use kms_types::TelegramId;
use kms_types::wire::Network;

use super::command::{ParseCommandError, command_rest, split_command, unexpected_arguments};
use super::{is_stray_password, parse_text};
use crate::assets::Assets;
use crate::chat::incoming::{Group, TextMessage};
use crate::chat::keyboard::Keyboard;
use crate::chat::telegram::TelegramError;
use crate::clock;
use crate::context::{Context, HandlerResult};
use crate::flow::{Arguments, ArgumentsError, Flow};
use crate::flows::FLOWS;
use crate::input::InputError;
use crate::requests;
use crate::texts::{Html, html, text};

/// Handles a text in a group: a command is answered with a link to the private chat, and a password
/// is deleted where the bot may, and its owner warned in private.
pub(super) async fn handle(
    context: &Context,
    message: TextMessage,
    group: Group,
    is_command: bool,
) -> HandlerResult {
    let user = &message.user;
    let command = match is_command {
        true => Some(parse_text(context, &message).await),
        false => None,
    };
    let exposed = match &command {
        Some(Ok(_) | Err(ParseCommandError::Arguments(_))) => false,
        Some(Err(ParseCommandError::ExposedPassword(_))) => true,
        Some(Err(ParseCommandError::Unknown | ParseCommandError::UnexpectedArguments(_))) => {
            is_stray_password(context, user, message.at, command_rest(&message.text.plain))
        }
        None => {
            context.awaits_password(user.id, message.at)
                || is_stray_password(context, user, message.at, &message.text.plain)
        }
    };
    if !exposed {
        return match command {
            Some(Err(ParseCommandError::Unknown)) | None => Ok(()),
            Some(Err(ParseCommandError::UnexpectedArguments(word))) => {
                let text = [unexpected_arguments(word), html!("group-invitation")];
                invite(context, user.id, group, &Html::paragraphs(text), word).await
            }
            Some(_) => {
                let payload = keep_command(context, &message, group);
                invite(context, user.id, group, &html!("group-invitation"), &payload).await
            }
        };
    }
    let warning = match context.deletions.delete(user.id, (group.chat, group.message)).await {
        Ok(()) => html!("group-password-deleted"),
        Err(error) => {
            tracing::info!(%error, "password in a group not deleted");
            html!("group-password-exposed")
        }
    };
    context.send(user.id, warning).await
}

/// In a group, links to the private chat and does nothing else. If the group has had too many
/// messages of the bot, the user gets the link in private.
async fn invite(
    context: &Context,
    user: TelegramId,
    group: Group,
    text: &Html,
    payload: &str,
) -> HandlerResult {
    let link = format!("https://t.me/{}?start={payload}", context.bot_username);
    let keyboard = Keyboard::none().and_link(text!("group-button"), &link);
    match context.telegram.send_to_group(group, text, keyboard.clone()).await {
        // The writer is answered where other users' commands take no turn.
        Err(TelegramError::RateLimit(_)) => {
            context.telegram.send(user, &html!("group-busy"), keyboard).await?;
            Ok(())
        }
        sent => Ok(sent?),
    }
}

/// Keeps a command that was written in a group, and returns the payload of a link that runs it.
fn keep_command(context: &Context, message: &TextMessage, group: Group) -> String {
    let text = message.text.words.trim_start();
    let Some((flow, words)) = split_command(text, &context.bot_username) else {
        return String::new();
    };
    let networks = context.network.all_cached();
    let arguments = words.collect::<Vec<_>>().join(" ");
    let command = with_author(flow, &arguments, group, &networks).unwrap_or(arguments);
    if command.is_empty() {
        return flow.word().to_owned();
    }
    let command = format!("{} {command}", flow.word());
    let kept = requests::keep(&context.journal, message.user.id, group, command, clock::now());
    kept.unwrap_or_else(|| flow.word().to_owned())
}

/// The arguments of a payment with the author of the message that the command replies to as its
/// recipient, if it has no other.
fn with_author(
    flow: &dyn Flow,
    arguments: &str,
    group: Group,
    networks: &[Network],
) -> Option<String> {
    let author = group.replies_to.filter(|_| flow.pays_author())?;
    let all = format!("{arguments} tg://user?id={author}");
    let (words, assets) = (all.split_whitespace(), Assets::of(networks));
    match flow.parse(Arguments { words, assets, flows: FLOWS }) {
        Err(ArgumentsError::Invalid(InputError::SendWords | InputError::SecondRecipient)) => None,
        Ok(_) | Err(_) => Some(all.trim_start().to_owned()),
    }
}
