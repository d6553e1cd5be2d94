//! `/support`: the name of the user's last act in the logs, for the operator.

use futures::FutureExt;

use crate::chat::incoming::User;
use crate::context::{Context, HandlerResult};
use crate::flow::{Action, Arguments, ArgumentsError, Flow};
use crate::texts::{Text, html, text};

pub(crate) struct SupportFlow;

impl Flow for SupportFlow {
    fn word(&self) -> &'static str {
        "support"
    }

    fn description(&self) -> Text {
        text!("support-description")
    }

    fn parse(&self, arguments: Arguments<'_>) -> Result<Action, ArgumentsError> {
        arguments.expect_none(|context, user| support(context, user).boxed())
    }
}

async fn support(context: &Context, user: &User) -> HandlerResult {
    let message = match context.traces.show(user.id) {
        Some(code) => html!("support-code", code = code.to_string()),
        None => html!("support-none"),
    };
    context.send(user.id, message).await
}
