//! Routes updates to the flows that handle them.

use std::pin::pin;
use std::time::Duration;

use kms_types::{TelegramId, Timestamp};
use teloxide_core::types::MessageId;
use tokio::time::timeout;

use self::command::{
    ParseCommandError, command_rest, find_flow, parse_bare_command, parse_command,
    unexpected_arguments, unknown_command, with_a_space, without_slash,
};
use crate::chat::deletions::in_private;
use crate::chat::incoming::{Content, Incoming, OtherMessage, PressedButton, TextMessage, User};
use crate::context::{Answer, Context, HandlerError, HandlerResult, Secrecy, Step};
use crate::flow::{Action, Button, ParseCallbackError, PressResult};
use crate::flows::mobile;
use crate::password_input::may_be_password;
use crate::texts::{Html, html, text};

mod command;
mod group;

/// How long a command waits until the user's usernames are reported, before and after its answer.
const REPORT_PATIENCE: Duration = Duration::from_secs(2);

/// Routes an update to its handler.
pub(crate) async fn route(context: &Context, incoming: Incoming) -> HandlerResult {
    match incoming {
        Incoming::Text(message) => handle_text(context, message).await,
        Incoming::Other(message) => handle_other(context, message).await,
        Incoming::Pressed(button) => handle_press(context, button).await,
        Incoming::Returned(_) => Ok(()),
    }
}

/// Runs a command that the bot itself wrote.
pub(crate) async fn run_text(context: &Context, user: &User, text: &str) -> HandlerResult {
    let networks = context.network.all().await?;
    match parse_command(text, &context.bot_username, &networks) {
        Ok(action) => run_command(context, user, action).await,
        // A network or a token that it names may be gone.
        Err(ParseCommandError::Arguments(error)) => context.send(user.id, error.message()).await,
        Err(
            ParseCommandError::Unknown
            | ParseCommandError::UnexpectedArguments(_)
            | ParseCommandError::ExposedPassword(_),
        ) => Ok(()),
    }
}

async fn handle_text(context: &Context, message: TextMessage) -> HandlerResult {
    context.usernames.record_time(message.at);
    let is_command = message.text.plain.trim_start().starts_with('/');
    match (message.group, is_command) {
        (Some(group), _) => group::handle(context, message, group, is_command).await,
        (None, true) => handle_command(context, message).await,
        (None, false) => handle_answer(context, message).await,
    }
}

async fn parse_text(context: &Context, message: &TextMessage) -> Result<Action, ParseCommandError> {
    let text = message.text.words.trim_start();
    match parse_command(text, &context.bot_username, &[]) {
        Ok(_) | Err(ParseCommandError::Arguments(_)) => {}
        // It may be a password: its deletion does not wait for the server.
        Err(refused) => return Err(refused),
    }
    // Symbols of tokens are unknown until the server has named them.
    let networks = context.network.all().await.unwrap_or_default();
    match parse_command(text, &context.bot_username, &networks) {
        Err(ParseCommandError::Arguments(_)) => {
            let recent = context.network.all_recent().await.unwrap_or_default();
            parse_command(text, &context.bot_username, &recent)
        }
        command => command,
    }
}

async fn handle_command(context: &Context, message: TextMessage) -> HandlerResult {
    let command = parse_text(context, &message).await;
    let TextMessage { user, message, at, text, .. } = message;
    match command {
        Ok(action) => {
            let mut report = pin!(context.usernames.report(&context.telegram, &user, at));
            let is_late = timeout(REPORT_PATIENCE, &mut report).await.is_err();
            run_command(context, &user, action).await?;
            if is_late {
                // Should it not succeed, the next message reports them again.
                let _ = timeout(REPORT_PATIENCE, report).await;
            }
            Ok(())
        }
        Err(ParseCommandError::Unknown) => {
            if let Some(command) = with_a_space(context, &text.words) {
                let told = html!("unknown-command-similar", command = command);
                return context.send(user.id, with_wanted(context, &user, told)).await;
            }
            let is_stray = is_stray_password(context, &user, at, command_rest(&text.plain));
            if is_stray && !delete_secret(context, user.id, message).await? {
                return Ok(());
            }
            let told = match is_stray {
                true => html!("unknown-command-deleted"),
                false => unknown_command(&text.plain),
            };
            context.send(user.id, with_wanted(context, &user, told)).await
        }
        Err(ParseCommandError::UnexpectedArguments(word)) => {
            if is_stray_password(context, &user, at, command_rest(&text.plain))
                && !delete_secret(context, user.id, message).await?
            {
                return Ok(());
            }
            context.send(user.id, unexpected_arguments(word)).await?;
            run_bare_command(context, &user, word).await
        }
        Err(ParseCommandError::ExposedPassword(word)) => {
            match delete_secret(context, user.id, message).await? {
                true => run_bare_command(context, &user, word).await,
                false => Ok(()),
            }
        }
        Err(ParseCommandError::Arguments(error)) => context.send(user.id, error.message()).await,
    }
}

/// Reports whether a text that nothing waits for may be a password: one had been asked for recently
/// when it was written, and the text could be one.
fn is_stray_password(context: &Context, user: &User, at: Timestamp, text: &str) -> bool {
    context.may_receive_password(user.id, at) && may_be_password(text)
}

/// Reports whether a message has to be deleted as one that may show a password, as far as that is
/// known before it is handled.
pub(crate) fn may_show_secret(context: &Context, incoming: &Incoming) -> bool {
    match incoming {
        Incoming::Text(TextMessage { group: Some(_), .. })
        | Incoming::Pressed(_)
        | Incoming::Returned(_) => false,
        Incoming::Text(TextMessage { user, at, text, .. }) => {
            if !text.plain.trim_start().starts_with('/') {
                return context.awaits_password(user.id, *at)
                    || is_stray_password(context, user, *at, &text.plain);
            }
            match parse_command(text.words.trim_start(), &context.bot_username, &[]) {
                Err(ParseCommandError::ExposedPassword(_)) => true,
                Err(ParseCommandError::Unknown) if with_a_space(context, &text.words).is_some() => {
                    false
                }
                Err(ParseCommandError::Unknown | ParseCommandError::UnexpectedArguments(_)) => {
                    is_stray_password(context, user, *at, command_rest(&text.plain))
                }
                Ok(_) | Err(ParseCommandError::Arguments(_)) => false,
            }
        }
        Incoming::Other(message) => may_show_password(context, message),
    }
}

/// Deletes a message that may show a secret. If that fails, asks the user to do it, and returns
/// `false`: nothing must be done with the message.
pub(crate) async fn delete_secret(
    context: &Context,
    user: TelegramId,
    message: MessageId,
) -> Result<bool, HandlerError> {
    if context.deletions.delete(user, in_private(user, message)).await.is_ok() {
        return Ok(true);
    }
    context.send(user, html!("password-not-deleted")).await?;
    Ok(false)
}

/// Adds what the user is asked for, which the message did not answer.
fn with_wanted(context: &Context, user: &User, told: Html) -> Html {
    let wanted = context.step(user.id).map(|step| step.wanted());
    Html::paragraphs([told, wanted.unwrap_or_default()])
}

async fn run_command(context: &Context, user: &User, action: Action) -> HandlerResult {
    if action.abandons_step {
        context.abandon_step(user).await?;
    }
    action.run(context, user).await
}

async fn run_bare_command(context: &Context, user: &User, word: &str) -> HandlerResult {
    match find_flow(word).map(parse_bare_command) {
        Some(Ok(action)) => run_command(context, user, action).await,
        Some(Err(_)) | None => Ok(()),
    }
}

/// Handles a text that is no command: the answer to the current step, if there is one.
async fn handle_answer(context: &Context, message: TextMessage) -> HandlerResult {
    let (user, text) = (&message.user, &message.text);
    if mobile::is_cancel_key(&text.plain) {
        return mobile::cancel_key(context, user).await;
    }
    let Some(step) = context.step(user.id) else {
        return handle_stray_text(context, &message, None).await;
    };
    // Too short for a password, and a username is written with its @.
    if text.words.trim().eq_ignore_ascii_case("cancel") {
        return run_bare_command(context, user, "cancel").await;
    }
    let is_secret = match step.secrecy() {
        Secrecy::Password | Secrecy::Code => true,
        Secrecy::OnPage => return handle_stray_text(context, &message, Some(&*step)).await,
        Secrecy::Public => {
            !step.is_answer(&text.plain)
                && is_stray_password(context, user, message.at, &text.plain)
        }
    };
    if is_secret && !delete_secret(context, user.id, message.message).await? {
        // The step continues: its message still asks for the answer.
        return Ok(());
    }
    step.answer(context, Answer::new(user, message.at, text)).await
}

/// Handles a text that answers nothing. What may be a password of a user who acts on the page is
/// answered by that step, once it is deleted.
async fn handle_stray_text(
    context: &Context,
    message: &TextMessage,
    on_page: Option<&dyn Step>,
) -> HandlerResult {
    let user = &message.user;
    let command = without_slash(context, &message.text.words);
    if command.is_none() && is_stray_password(context, user, message.at, &message.text.plain) {
        return match (delete_secret(context, user.id, message.message).await?, on_page) {
            (true, Some(step)) => {
                step.answer(context, Answer::new(user, message.at, &message.text)).await
            }
            (true, None) => context.send(user.id, html!("unexpected-text-deleted")).await,
            (false, _) => Ok(()),
        };
    }
    let text = match (context.kms.account(user.id.into()).await?, command) {
        (None, _) => html!("unexpected-newcomer"),
        (Some(_), Some(command)) => html!("unexpected-command", command = command),
        (Some(_), None) => html!("unexpected-text"),
    };
    context.send(user.id, text).await
}

/// Handles a message that is no typed text. It is never a command, and it is deleted only if it may
/// show a password.
async fn handle_other(context: &Context, message: OtherMessage) -> HandlerResult {
    let may_show_password = may_show_password(context, &message);
    let OtherMessage { user, message, album, content, .. } = message;
    let step = context.step(user.id);
    let is_answered = album.is_some_and(|album| !context.albums.record(album));
    if may_show_password {
        if !delete_secret(context, user.id, message).await? || is_answered {
            return Ok(());
        }
        let text = html!("other-deleted", what = what(&content), wanted = wanted(step.as_deref()));
        return context.send(user.id, text).await;
    }
    if is_answered {
        return Ok(());
    }
    if let Some(step) = &step
        && step.receive(context, &user, &content).await?
    {
        return Ok(());
    }
    if mobile::is_own(user.id, &content) {
        return mobile::late(context, &user).await;
    }
    let text = match (&content, &step) {
        (Content::Edit(text), _) if text.trim_start().starts_with('/') => html!("edited-command"),
        // Nothing is expected of what Telegram reports, or of an edit of what was only said.
        (Content::Edit(_) | Content::Notice, None) => return Ok(()),
        (Content::Edit(_), Some(step)) => html!("edited-answer", wanted = step.wanted()),
        _ => html!("other-content", what = what(&content), wanted = wanted(step.as_deref())),
    };
    context.send(user.id, text).await
}

fn may_show_password(context: &Context, message: &OtherMessage) -> bool {
    let OtherMessage { user, at, caption, content, .. } = message;
    let is_stray = |text: &str| is_stray_password(context, user, *at, text);
    let is_awaited = context.awaits_password(user.id, *at);
    match content {
        // What another person wrote, a command, and an answer to the current step are none.
        Content::Forward { author: Some(author), .. } if *author != user.id => false,
        Content::Edit(text) | Content::Forward { text, .. } => {
            let step = context.step(user.id);
            let is_answer =
                step.is_some_and(|step| step.secrecy() == Secrecy::Public && step.is_answer(text));
            let is_command = command_rest(text).len() < text.len();
            !is_answer && !is_command && (is_awaited || is_stray(text))
        }
        Content::Picture | Content::Video | Content::File => {
            is_awaited || caption.as_ref().is_some_and(|caption| is_stray(caption))
        }
        Content::Contact { .. }
        | Content::Voice
        | Content::Sticker
        | Content::Place
        | Content::Poll
        | Content::Notice
        | Content::Other => false,
    }
}

/// What a message is that is no typed text.
fn what(content: &Content) -> Html {
    match content {
        Content::Edit(_) => html!("content-edit"),
        Content::Forward { .. } => html!("content-forward"),
        Content::Contact { .. } => html!("content-contact"),
        Content::Picture => html!("content-picture"),
        Content::Video => html!("content-video"),
        Content::File => html!("content-file"),
        Content::Voice => html!("content-voice"),
        Content::Sticker => html!("content-sticker"),
        Content::Place => html!("content-place"),
        Content::Poll => html!("content-poll"),
        Content::Notice => html!("content-notice"),
        Content::Other => html!("content-other"),
    }
}

fn wanted(step: Option<&dyn Step>) -> Html {
    step.map_or_else(|| html!("wanted-nothing"), Step::wanted)
}

async fn handle_press(context: &Context, pressed: PressedButton) -> HandlerResult {
    let PressedButton { user, query, message, data } = pressed;
    let notice = match message {
        None => Some(text!("foreign-button-notice")),
        Some(message) => press(context, &user, message, data.as_deref()).await?,
    };
    context.telegram.answer_query(query, notice).await;
    Ok(())
}

/// Presses a button for a user.
pub(crate) async fn press(
    context: &Context,
    user: &User,
    message: MessageId,
    data: Option<&str>,
) -> PressResult {
    match data.map(parse_press) {
        Some(Ok(Press::Command(action))) => {
            run_command(context, user, action).await?;
            Ok(None)
        }
        Some(Ok(Press::Button(button))) => button.press(context, user, message).await,
        Some(Err(ParseCallbackError)) | None => Ok(Some(text!("expired-button-notice"))),
    }
}

/// What a button does.
enum Press {
    /// Runs a command without arguments.
    Command(Action),
    /// Something else of a flow.
    Button(Box<dyn Button>),
}

/// Parses callback data: the word of a flow, and a colon and the flow's own data unless the button
/// runs the command.
fn parse_press(data: &str) -> Result<Press, ParseCallbackError> {
    let (word, rest) = match data.split_once(':') {
        None => (data, None),
        Some((word, rest)) => (word, Some(rest)),
    };
    let flow = find_flow(word).ok_or(ParseCallbackError)?;
    match rest {
        Some(rest) => flow.button(rest).map(Press::Button),
        None => {
            let action = parse_bare_command(flow).map_err(|_refused| ParseCallbackError)?;
            Ok(Press::Command(action))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flows::FLOWS;

    #[test]
    fn every_command_works_without_arguments_and_as_a_button() {
        for flow in FLOWS {
            assert!(parse_bare_command(*flow).is_ok(), "{}", flow.word());
            assert!(matches!(parse_press(flow.word()), Ok(Press::Command(_))), "{}", flow.word());
        }
        let keeps_step = |text| !parse_command(text, "wallet_bot", &[]).unwrap().abandons_step;
        assert!(keeps_step("/cancel") && keeps_step("/start cancel") && !keeps_step("/start help"));
    }

    const ID: &str = "0b5ae8e2-1f0b-4c3d-9a57-0f9f7a3c2b11";

    #[test]
    fn buttons_of_every_flow_are_parsed_back_and_fit() {
        let print = "0123456789abcdef";
        let cursor = format!("1790000000000.{ID}");
        for data in [
            "cancel:choice".to_owned(),
            "cancel:1790000000000".to_owned(),
            "start:recovery".to_owned(),
            "balance:refresh".to_owned(),
            format!("history:o:{cursor}"),
            format!("history:n:{cursor}"),
            format!("send:c:{ID}:{print}"),
            format!("send:m:{ID}:{print}"),
            format!("send:x:{ID}"),
            format!("send:r:{ID}"),
            format!("send:k:{ID}"),
            format!("recover:request:{ID}"),
            format!("recover:set:{ID}"),
            format!("recover:stop:{ID}"),
            "freeze:ask".to_owned(),
            "freeze:now".to_owned(),
            "freeze:lift".to_owned(),
            "contact:set".to_owned(),
            "contact:remove".to_owned(),
            "contact:mobile".to_owned(),
            "contact:remove-mobile".to_owned(),
            "contact:later".to_owned(),
            "contact:code".to_owned(),
            "contact:confirm:ann@example.org".to_owned(),
        ] {
            assert!(data.len() <= 64, "{data}");
            let Ok(Press::Button(button)) = parse_press(&data) else { panic!("{data}") };
            assert_eq!(button.data(), data);
        }
    }

    #[test]
    fn forged_callback_data_is_refused() {
        let short = format!("send:c:{ID}");
        for data in [
            "",
            ":",
            "/",
            "/start",
            "send:",
            "send:c",
            "send:c:1:2",
            "send:x:",
            "send:x:1",
            "z:1",
            "cancel:",
            "cancel:+5",
            "cancel:step",
            "help:x",
            "recover:set:1",
            "history:o",
            &short,
        ] {
            assert!(parse_press(data).is_err(), "{data:?}");
        }
    }

    /// What follows a flow's word: an action and an id, or anything.
    const BUTTON: &str = concat!(
        "([a-z]{1,7}:)?",
        "([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(:[0-9a-f]{16})?|.{0,40})",
    );

    fn words() -> Vec<&'static str> {
        FLOWS.iter().map(|flow| flow.word()).collect()
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "/?\\PC{0,40}") {
            let _ = parse_command(&text, "wallet_bot", &[]);
            let _ = parse_command(&format!("/send {text}"), "wallet_bot", &[]);
        }

        #[test]
        fn callback_data_that_is_accepted_is_what_the_bot_writes(
            word in prop::sample::select(words()),
            rest in BUTTON,
            other in ".{0,64}",
        ) {
            for data in [format!("{word}:{rest}"), other] {
                if let Ok(Press::Button(button)) = parse_press(&data) {
                    prop_assert_eq!(button.data(), data);
                }
            }
        }
    }
}
