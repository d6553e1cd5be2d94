//! Texts as commands: how they are parsed, and what others are meant as.

use std::str::SplitWhitespace;

use kms_types::wire::Network;

use crate::assets::Assets;
use crate::context::Context;
use crate::flow::{Action, Arguments, ArgumentsError, Flow};
use crate::flows::FLOWS;
use crate::input::InputError;
use crate::texts::{Html, html};

/// Why a text that begins with `/` is not a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ParseCommandError {
    /// There is no such command, or it is addressed to another bot.
    Unknown,
    /// The command has no arguments, but something follows it.
    UnexpectedArguments(&'static str),
    /// The command asks for a password, and what follows it may be one.
    ExposedPassword(&'static str),
    /// Its arguments cannot be read.
    Arguments(InputError),
}

/// Parses a text that begins with `/`: a word in any case, perhaps with `@` and the bot's
/// username, and arguments after any white space.
pub(super) fn parse_command(
    text: &str,
    bot_username: &str,
    networks: &[Network],
) -> Result<Action, ParseCommandError> {
    let (flow, words) = split_command(text, bot_username).ok_or(ParseCommandError::Unknown)?;
    let arguments = Arguments { words, assets: Assets::of(networks), flows: FLOWS };
    match flow.parse(arguments) {
        Ok(action) => Ok(action),
        Err(ArgumentsError::Unexpected) => Err(ParseCommandError::UnexpectedArguments(flow.word())),
        Err(ArgumentsError::Password) => Err(ParseCommandError::ExposedPassword(flow.word())),
        Err(ArgumentsError::Invalid(error)) => Err(ParseCommandError::Arguments(error)),
    }
}

/// Splits a text that begins with `/` into the flow of its command and the arguments.
pub(super) fn split_command<'a>(
    text: &'a str,
    bot_username: &str,
) -> Option<(&'static dyn Flow, SplitWhitespace<'a>)> {
    let mut words = text.split_whitespace();
    let word = words.next()?.strip_prefix('/')?;
    let word = word.trim_end_matches(['.', ',', ':', ';', '!', '?']);
    let (word, addressee) = word.split_once('@').unwrap_or((word, bot_username));
    if !addressee.eq_ignore_ascii_case(bot_username) {
        return None;
    }
    Some((find_flow(&word.to_ascii_lowercase())?, words))
}

pub(super) fn find_flow(word: &str) -> Option<&'static dyn Flow> {
    FLOWS.iter().copied().find(|flow| flow.word() == word)
}

/// The action of a command without arguments.
pub(super) fn parse_bare_command(flow: &dyn Flow) -> Result<Action, ArgumentsError> {
    let words = "".split_whitespace();
    flow.parse(Arguments { words, assets: Assets::of(&[]), flows: FLOWS })
}

/// What follows a word in the shape of a command, which itself is no password; else the whole text.
/// The word may be addressed to another bot.
pub(super) fn command_rest(text: &str) -> &str {
    let Some(word) = text.trim_start().strip_prefix('/') else { return text };
    let rest = word.trim_start_matches(|c: char| c.is_ascii_lowercase() || c == '_');
    let rest = match rest.strip_prefix('@') {
        Some(bot) => bot.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_'),
        None => rest,
    };
    if rest.is_empty() || rest.starts_with(char::is_whitespace) { rest } else { text }
}

/// The command that a text would be with a slash before it, or the command whose arguments it is
/// meant as, if all of it can be read. Such a text is no password.
pub(super) fn without_slash(context: &Context, text: &str) -> Option<String> {
    let meant = FLOWS.iter().find(|flow| flow.is_meant(text));
    let words = meant.map(|flow| format!("/{} {}", flow.word(), text.trim()));
    let mut commands = [Some(format!("/{}", text.trim())), words].into_iter().flatten();
    let networks = context.network.all_cached();
    // The link in place of a mention is nothing to write.
    let is_command = |command: &String| {
        !command.contains("tg://")
            && parse_command(command, &context.bot_username, &networks).is_ok()
    };
    let command = commands.find(is_command)?;
    let (flow, words) = split_command(&command, &context.bot_username)?;
    let words = words.map(|word| format!(" {word}"));
    Some(format!("/{}{}", flow.word(), words.collect::<String>()))
}

/// The command that a text is with a space before its `@`: `/send@bob 0.5` is meant as a payment to
/// `@bob`, and is addressed to another bot.
pub(super) fn with_a_space(context: &Context, text: &str) -> Option<String> {
    let (word, rest) = text.trim().split_once('@').filter(|(word, _)| !word.contains(' '))?;
    let command = format!("{word} @{rest}");
    let networks = context.network.all_cached();
    parse_command(&command, &context.bot_username, &networks).ok()?;
    command.strip_prefix('/').map(str::to_owned)
}

/// Other words for commands, as other bots and wallets have them.
const SIMILAR: [(&str, &str); 21] = [
    ("address", "receive"),
    ("block", "freeze"),
    ("commands", "help"),
    ("deposit", "receive"),
    ("email", "contact"),
    ("forgot", "recover"),
    ("limits", "limit"),
    ("lock", "freeze"),
    ("mail", "contact"),
    ("menu", "help"),
    ("pay", "send"),
    ("phone", "contact"),
    ("reset", "recover"),
    ("stop", "cancel"),
    ("tip", "send"),
    ("transactions", "history"),
    ("transfer", "send"),
    ("unfreeze", "freeze"),
    ("unlock", "freeze"),
    ("wallet", "start"),
    ("withdraw", "send"),
];

/// Says that a command was understood without what follows it.
pub(super) fn unexpected_arguments(word: &str) -> Html {
    let description = find_flow(word).map(|flow| flow.description().into_string());
    let description = description.unwrap_or_default();
    html!("unexpected-arguments", command = word, description = description)
}

pub(super) fn unknown_command(text: &str) -> Html {
    let word = text.split_whitespace().next().unwrap_or_default().to_lowercase();
    let word = word.trim_start_matches('/').split('@').next().unwrap_or_default();
    match SIMILAR.iter().find(|(known, _)| *known == word) {
        Some((_, command)) => html!("unknown-command-similar", command = command),
        None => html!("unknown-command"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The word of the command that a text runs.
    fn parse(text: &str) -> Result<&'static str, ParseCommandError> {
        parse_command(text, "wallet_bot", &[])?;
        Ok(split_command(text, "wallet_bot").unwrap().0.word())
    }

    #[test]
    fn words_of_other_bots_lead_to_commands() {
        for (word, command) in SIMILAR {
            assert!(find_flow(word).is_none() && find_flow(command).is_some(), "{word}");
        }
    }

    #[test]
    fn commands_are_found_in_any_case_and_by_the_bots_name() {
        for text in ["/send @bob 0.5", "/SEND\n@bob\n0.5", "/Send@Wallet_Bot  @bob\t0.5 "] {
            assert_eq!(parse(text), Ok("send"), "{text:?}");
        }
        for text in ["/BALANCE", "/balance.", "/balance!"] {
            assert_eq!(parse(text), Ok("balance"), "{text}");
        }
        for text in ["/", "/ send", "/sendmoney", "//send", "send", "", "/send@other 1"] {
            assert_eq!(parse(text), Err(ParseCommandError::Unknown), "{text:?}");
        }
    }

    #[test]
    fn a_word_in_the_shape_of_a_command_is_no_password() {
        for (text, rest) in [
            ("/send@other @bob 0.25", " @bob 0.25"),
            ("/send_bob", ""),
            ("/password two words", " two words"),
            ("/Sesame, open", "/Sesame, open"),
            ("/sesame#open", "/sesame#open"),
            ("/sesame@home!", "/sesame@home!"),
            ("no slash", "no slash"),
        ] {
            assert_eq!(command_rest(text), rest, "{text}");
        }
    }

    #[test]
    fn unexpected_arguments_are_reported_because_they_may_be_a_password() {
        // Telegram itself writes what follows `/start` in a link.
        for text in ["/start", "/start balance", "/start start", "/start c_unknown"] {
            assert_eq!(parse(text), Ok("start"), "{text}");
        }
        for (text, word) in [("/start balance 1", "start"), ("/help me", "help")] {
            let refused = Err(ParseCommandError::UnexpectedArguments(word));
            assert_eq!(parse(text), refused, "{text}");
        }
        let refused = Err(ParseCommandError::ExposedPassword("password"));
        assert_eq!(parse("/password old new"), refused);
    }
}
