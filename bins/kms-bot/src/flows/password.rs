//! `/password`: changes the password.

use async_trait::async_trait;
use futures::FutureExt;
use kms_client::ClientError;
use kms_types::wire::ChangePassword;
use kms_types::{EventKind, Purpose, SecurityEvent};

use super::{cancel, freeze};
use crate::chat::incoming::User;
use crate::chat::keyboard::Keyboard;
use crate::context::{Answer, Context, HandlerResult, Secrecy, Step};
use crate::flow::{Action, Arguments, ArgumentsError, Flow};
use crate::page::{self, Question};
use crate::problems::problem;
use crate::texts::{Html, Text, html, text};

pub(crate) struct PasswordFlow;

impl Flow for PasswordFlow {
    fn word(&self) -> &'static str {
        "password"
    }

    fn description(&self) -> Text {
        text!("password-description")
    }

    fn parse(&self, arguments: Arguments<'_>) -> Result<Action, ArgumentsError> {
        let ask = arguments.expect_none(|context, user| ask(context, user).boxed());
        ask.map_err(|_error| ArgumentsError::Password)
    }
}

async fn ask(context: &Context, user: &User) -> HandlerResult {
    if context.account(user).await?.is_none() {
        return Ok(());
    }
    let question = Question {
        purpose: Purpose::ChangePassword,
        on_page: html!("password-on-page"),
        in_chat: html!("password-ask"),
        step: BothPasswords,
    };
    page::ask(context, user, None, question, cancel::keyboard).await
}

/// Waits for the current and the new password in one message, so that neither is kept between two.
struct BothPasswords;

#[async_trait]
impl Step for BothPasswords {
    fn secrecy(&self) -> Secrecy {
        Secrecy::Password
    }

    fn wanted(&self) -> Html {
        html!("password-two-lines")
    }

    fn resume(&self) -> String {
        "password".to_owned()
    }

    /// Changes the password. The step continues until that succeeds.
    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let user = answer.user;
        let Some((current, new)) = answer.password().current_and_new() else {
            return context.send(user.id, html!("password-two-lines")).await;
        };
        if current.is(&new) {
            return context.send(user.id, html!("password-unchanged")).await;
        }
        let usernames = context.telegram.usernames(user).await;
        if let Err(weak) = new.check(&user.names(&usernames)) {
            return context.send(user.id, weak.message()).await;
        }
        let changing = html!("password-changing");
        let message = context.working(user.id, &changing, String::new()).await?;
        let body = ChangePassword {
            old_password_hash: current.hash(user.id).await,
            new_password_hash: new.hash(user.id).await,
        };
        let text = match context.kms.change_password(user.id.into(), &body).await {
            Ok(()) => {
                context.end_step(user.id);
                let text = html!("password-changed");
                let keyboard = freeze::ask_keyboard();
                context.telegram.edit_or_send(user.id, message, &text, keyboard).await?;
                let event = EventKind::Security(SecurityEvent::PasswordChanged);
                context.record_answered(user.id, event);
                return Ok(());
            }
            Err(ClientError::Problem(refused)) if refused.status < 500 => {
                problem(&ClientError::Problem(refused), None)
            }
            Err(
                ClientError::Problem(_)
                | ClientError::Unreachable(_)
                | ClientError::BadAnswer { .. }
                | ClientError::Setup(_),
            ) => html!("password-change-unknown"),
        };
        context.telegram.edit_or_send(user.id, message, &text, Keyboard::none()).await?;
        Ok(())
    }
}
