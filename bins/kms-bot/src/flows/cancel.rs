//! `/cancel`, and the button that leaves a step.

use async_trait::async_trait;
use futures::FutureExt;
use kms_types::{TelegramId, Timestamp};
use teloxide_core::types::MessageId;

use crate::chat::incoming::User;
use crate::chat::keyboard::{CallbackButton, Keyboard};
use crate::context::{Context, HandlerResult};
use crate::flow::{
    Action, Arguments, ArgumentsError, Button, Flow, ParseCallbackError, PressResult,
};
use crate::texts::{Text, html, text};

const WORD: &str = "cancel";
/// What the callback data of a choice has in place of a question.
const CHOICE: &str = "choice";

pub(crate) struct CancelFlow;

impl Flow for CancelFlow {
    fn word(&self) -> &'static str {
        WORD
    }

    fn description(&self) -> Text {
        text!("cancel-description")
    }

    fn parse(&self, arguments: Arguments<'_>) -> Result<Action, ArgumentsError> {
        let cancel = arguments.expect_none(|context, user| cancel(context, user).boxed())?;
        Ok(cancel.keeping_step())
    }

    fn button(&self, data: &str) -> Result<Box<dyn Button>, ParseCallbackError> {
        if data == CHOICE {
            return Ok(Box::new(CancelButton { question: None }));
        }
        let asked_at = data.parse().map_err(|_cause| ParseCallbackError)?;
        let button = CancelButton { question: Some(Timestamp(asked_at)) };
        // Without a sign or leading zeros.
        match button.data().ends_with(&format!(":{data}")) {
            true => Ok(Box::new(button)),
            false => Err(ParseCallbackError),
        }
    }
}

/// The message with the button becomes "Cancelled", and the question that it asks ends.
struct CancelButton {
    /// When the question was asked, by which it is known from later ones. Absent below a message
    /// that only offers a choice between buttons.
    question: Option<Timestamp>,
}

#[async_trait]
impl Button for CancelButton {
    fn data(&self) -> String {
        match self.question {
            Some(Timestamp(asked_at)) => format!("{WORD}:{asked_at}"),
            None => format!("{WORD}:{CHOICE}"),
        }
    }

    async fn press(&self, context: &Context, user: &User, message: MessageId) -> PressResult {
        if self.question.is_some() && self.question != context.question(user.id) {
            // It was answered, or another one was asked since: nothing is cancelled.
            context.telegram.remove_buttons(user.id, message).await?;
            return Ok(Some(text!("question-over-notice")));
        }
        let done = html!("cancel-done");
        let edited = context.telegram.edit(user.id, message, &done, Keyboard::none()).await;
        // While Telegram does not change it, the message asks for the answer.
        let still_asks = edited.as_ref().is_err_and(|failure| failure.is_temporary());
        if self.question.is_some() && !still_asks {
            context.end_step(user.id);
        }
        edited?;
        Ok(None)
    }
}

/// The button that leaves a choice between buttons.
pub(crate) fn choice_button() -> CallbackButton {
    (text!("cancel-button"), CancelButton { question: None }.data())
}

/// A keyboard with the button that cancels the question that the user is being asked.
pub(crate) fn keyboard(context: &Context, user: TelegramId) -> Keyboard {
    let question = context.question(user);
    Keyboard::row([(text!("cancel-button"), CancelButton { question }.data())])
}

async fn cancel(context: &Context, user: &User) -> HandlerResult {
    let Some(step) = context.step(user.id) else {
        context.end_step(user.id);
        return context.send(user.id, html!("cancel-nothing")).await;
    };
    // Until that is done, the message of the step asks for the answer.
    if !step.cancel(context, user).await? {
        context.send(user.id, html!("cancel-done")).await?;
    }
    context.end_step(user.id);
    Ok(())
}
