//! `/cancel`, and the button that leaves a step.

use async_trait::async_trait;
use futures::FutureExt;
use teloxide_core::types::MessageId;

use crate::chat::incoming::User;
use crate::chat::keyboard::{CallbackButton, Keyboard};
use crate::context::{Context, HandlerResult};
use crate::flow::{
    Action, Arguments, ArgumentsError, Button, Flow, ParseCallbackError, PressResult,
};
use crate::texts::{Text, html, text};

pub(crate) struct CancelFlow;

impl Flow for CancelFlow {
    fn word(&self) -> &'static str {
        "cancel"
    }

    fn description(&self) -> Text {
        text!("cancel-description")
    }

    fn parse(&self, arguments: Arguments<'_>) -> Result<Action, ArgumentsError> {
        let cancel = arguments.expect_none(|context, user| cancel(context, user).boxed())?;
        Ok(cancel.keeping_step())
    }

    fn button(&self, data: &str) -> Result<Box<dyn Button>, ParseCallbackError> {
        if data == "step" { Ok(Box::new(LeaveStep)) } else { Err(ParseCallbackError) }
    }
}

/// Leaves the current step; the message with the button becomes "Cancelled".
struct LeaveStep;

#[async_trait]
impl Button for LeaveStep {
    fn data(&self) -> String {
        "cancel:step".to_owned()
    }

    async fn press(&self, context: &Context, user: &User, message: MessageId) -> PressResult {
        context.end_step(user.id);
        context.telegram.edit(user.id, message, &html!("cancel-done"), Keyboard::none()).await?;
        Ok(None)
    }
}

/// The button that leaves the current step.
pub(crate) fn button() -> CallbackButton {
    (text!("cancel-button"), LeaveStep.data())
}

/// A keyboard with only that button.
pub(crate) fn keyboard() -> Keyboard {
    Keyboard::row([button()])
}

async fn cancel(context: &Context, user: &User) -> HandlerResult {
    let Some(step) = context.end_step(user.id) else {
        return context.send(user.id, html!("cancel-nothing")).await;
    };
    match step.cancel(context, user).await? {
        true => Ok(()),
        false => context.send(user.id, html!("cancel-done")).await,
    }
}
