//! The parts of a flow: a command, the buttons of its messages, and the handlers of both. The steps
//! that it asks for are in [`crate::context`].

use std::str::SplitWhitespace;

use async_trait::async_trait;
use futures::future::BoxFuture;
use teloxide_core::types::MessageId;

use crate::assets::Assets;
use crate::chat::incoming::User;
use crate::context::{Context, HandlerError, HandlerResult};
use crate::input::InputError;
use crate::texts::Text;

/// A conversation that a command begins. `crate::flows` lists them all.
pub(crate) trait Flow: Send + Sync {
    /// The command without its slash, which is also the first part of the callback data of the
    /// flow's buttons. The word alone, as callback data, runs the command.
    fn word(&self) -> &'static str;

    /// What the command does, for Telegram's menu and `/help`.
    fn description(&self) -> Text;

    /// Parses the arguments of the command. Without arguments it always succeeds.
    fn parse(&self, arguments: Arguments<'_>) -> Result<Action, ArgumentsError>;

    /// Whether the author of a message is the recipient of a command that replies to it.
    fn pays_author(&self) -> bool {
        false
    }

    /// Whether a text is meant as the arguments of the command, without its word.
    fn is_meant(&self, _text: &str) -> bool {
        false
    }

    /// Parses what follows the flow's word and a colon in the callback data of a button.
    fn button(&self, _data: &str) -> Result<Box<dyn Button>, ParseCallbackError> {
        Err(ParseCallbackError)
    }
}

/// A button of a flow's messages.
#[async_trait]
pub(crate) trait Button: Send + Sync {
    /// The whole callback data, at most 64 bytes.
    fn data(&self) -> String;

    /// Handles a press by `user`. The data may be forged.
    async fn press(&self, context: &Context, user: &User, message: MessageId) -> PressResult;
}

/// The message of a button that the bot presses itself, to ask a question again: none.
pub(crate) const NO_MESSAGE: MessageId = MessageId(0);

/// The message whose button was pressed, unless the bot pressed it itself.
pub(crate) fn shown_in(message: MessageId) -> Option<MessageId> {
    (message != NO_MESSAGE).then_some(message)
}

/// Buttons of a flow that carry nothing but their name.
pub(crate) struct NamedButtons<B: 'static> {
    pub(crate) flow: &'static str,
    pub(crate) buttons: &'static [(&'static str, B)],
}

impl<B: Button + Copy + PartialEq> NamedButtons<B> {
    /// Finds the button that the callback data names behind the flow's word.
    pub(crate) fn parse(&self, name: &str) -> Result<Box<dyn Button>, ParseCallbackError> {
        let found = self.buttons.iter().find(|(known, _)| *known == name);
        found.map(|(_, button)| Box::new(*button) as Box<dyn Button>).ok_or(ParseCallbackError)
    }

    /// The callback data of a button.
    pub(crate) fn data(&self, button: B) -> String {
        let found = self.buttons.iter().find(|(_, known)| *known == button);
        format!("{}:{}", self.flow, found.map_or("", |(name, _)| name))
    }
}

/// A short notice that answers a press, if any.
pub(crate) type PressResult = Result<Option<Text>, HandlerError>;

/// The callback data is not the bot's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ParseCallbackError;

/// What follows a command.
#[derive(Clone)]
pub(crate) struct Arguments<'a> {
    pub(crate) words: SplitWhitespace<'a>,
    pub(crate) assets: Assets<'a>,
    /// All flows, in the order of the menu.
    pub(crate) flows: &'static [&'static dyn Flow],
}

/// Why the arguments of a command were refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ArgumentsError {
    /// The command has no arguments.
    Unexpected,
    /// The command has no arguments and asks for a password, which is what follows it.
    Password,
    /// An argument cannot be read.
    Invalid(InputError),
}

impl From<InputError> for ArgumentsError {
    fn from(error: InputError) -> Self {
        Self::Invalid(error)
    }
}

impl Arguments<'_> {
    /// The action of a command that has no arguments.
    pub(crate) fn expect_none<R>(mut self, run: R) -> Result<Action, ArgumentsError>
    where
        R: for<'a> FnOnce(&'a Context, &'a User) -> BoxFuture<'a, HandlerResult> + Send + 'static,
    {
        match self.words.next() {
            None => Ok(Action::new(run)),
            Some(_) => Err(ArgumentsError::Unexpected),
        }
    }
}

type Run =
    Box<dyn for<'a> FnOnce(&'a Context, &'a User) -> BoxFuture<'a, HandlerResult> + Send + 'static>;

/// What a parsed command does.
pub(crate) struct Action {
    run: Run,
    /// Whether the step that the user is asked for ends first.
    pub(crate) abandons_step: bool,
}

impl Action {
    pub(crate) fn new<R>(run: R) -> Self
    where
        R: for<'a> FnOnce(&'a Context, &'a User) -> BoxFuture<'a, HandlerResult> + Send + 'static,
    {
        Self { run: Box::new(run), abandons_step: true }
    }

    /// The same action, which handles the current step itself.
    pub(crate) fn keeping_step(self) -> Self {
        Self { abandons_step: false, ..self }
    }

    pub(crate) async fn run(self, context: &Context, user: &User) -> HandlerResult {
        (self.run)(context, user).await
    }
}
