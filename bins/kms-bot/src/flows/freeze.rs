//! `/freeze`: freezes the wallet at once, without the password, and requests to unfreeze it, with
//! the password and a wait.

use async_trait::async_trait;
use futures::FutureExt;
use kms_types::wire::{Account, AccountState, Unfreeze};
use kms_types::{EventKind, Purpose, SecurityEvent};
use teloxide_core::types::MessageId;

use super::cancel;
use crate::chat::incoming::User;
use crate::chat::keyboard::Keyboard;
use crate::context::{Answer, Context, HandlerResult, Secrecy, Step};
use crate::flow::{
    Action, Arguments, ArgumentsError, Button, Flow, NamedButtons, ParseCallbackError, PressResult,
    shown_in,
};
use crate::format::time;
use crate::page::{self, Question};
use crate::problems::problem;
use crate::texts::{Html, Text, html, text};

const WORD: &str = "freeze";

pub(crate) struct FreezeFlow;

impl Flow for FreezeFlow {
    fn word(&self) -> &'static str {
        WORD
    }

    fn description(&self) -> Text {
        text!("freeze-description")
    }

    fn parse(&self, arguments: Arguments<'_>) -> Result<Action, ArgumentsError> {
        arguments.expect_none(|context, user| show(context, user).boxed())
    }

    fn button(&self, data: &str) -> Result<Box<dyn Button>, ParseCallbackError> {
        BUTTONS.parse(data)
    }
}

const BUTTONS: NamedButtons<FreezeButton> = NamedButtons {
    flow: WORD,
    buttons: &[
        ("ask", FreezeButton::Ask),
        ("now", FreezeButton::Now),
        ("lift", FreezeButton::Lift),
        ("stay", FreezeButton::Stay),
    ],
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum FreezeButton {
    /// Shows the state of the wallet, and asks for the confirmation.
    Ask,
    /// Freezes the wallet, and cancels a request to unfreeze it.
    Now,
    /// Asks for the password, to unfreeze the wallet.
    Lift,
    /// Cancels a request to leave the vault page.
    Stay,
}

#[async_trait]
impl Button for FreezeButton {
    fn data(&self) -> String {
        BUTTONS.data(*self)
    }

    async fn press(&self, context: &Context, user: &User, message: MessageId) -> PressResult {
        // What protects the wallet waits for no other message.
        match self {
            Self::Now => freeze(context, user, message).await?,
            Self::Stay => stay(context, user, message).await?,
            Self::Ask => show(context, user).await?,
            Self::Lift => {}
        }
        context.abandon_step(user).await?;
        match self {
            Self::Now | Self::Stay | Self::Ask => {}
            Self::Lift => {
                if let Some(message) = shown_in(message) {
                    context.telegram.remove_buttons(user.id, message).await?;
                }
                let question = Question {
                    purpose: Purpose::Lift,
                    on_page: html!("freeze-on-page"),
                    in_chat: html!("freeze-ask-password"),
                    step: UnfreezePassword,
                };
                page::ask(context, user, None, question, cancel::keyboard).await?;
            }
        }
        Ok(None)
    }
}

/// A keyboard that asks whether to freeze the wallet.
pub(crate) fn ask_keyboard() -> Keyboard {
    Keyboard::row([(text!("freeze-notice-button"), FreezeButton::Ask.data())])
}

/// A keyboard that cancels a request to unfreeze the wallet.
pub(crate) fn keep_keyboard() -> Keyboard {
    Keyboard::row([(text!("freeze-keep-button"), FreezeButton::Now.data())])
}

/// A keyboard that cancels a request to leave the vault page.
pub(crate) fn stay_keyboard() -> Keyboard {
    Keyboard::row([(text!("freeze-stay-button"), FreezeButton::Stay.data())])
}

/// Shows whether the wallet is frozen, and what can be done about it.
async fn show(context: &Context, user: &User) -> HandlerResult {
    if let Some(account) = context.account(user).await? {
        let (message, keyboard) = screen(&account);
        context.telegram.send(user.id, &message, keyboard).await?;
    }
    Ok(())
}

fn screen(account: &Account) -> (Html, Keyboard) {
    match (account.state, account.unfreezes_at) {
        (AccountState::Active, _) => {
            let now = (text!("freeze-now-button"), FreezeButton::Now.data());
            (html!("freeze-ask"), Keyboard::row([now]).and_row([cancel::choice_button()]))
        }
        (AccountState::FrozenByOwner, None) => {
            let lift = (text!("freeze-lift-button"), FreezeButton::Lift.data());
            (html!("freeze-frozen"), Keyboard::row([lift]))
        }
        (AccountState::FrozenByOwner, Some(at)) => {
            (html!("freeze-lifting", time = time(at)), keep_keyboard())
        }
        (AccountState::Frozen | AccountState::Unknown, _) => {
            (html!("freeze-by-operator"), Keyboard::none())
        }
    }
}

/// Freezes the wallet. A second press changes nothing.
async fn freeze(context: &Context, user: &User, message: MessageId) -> HandlerResult {
    let frozen = context.kms.freeze(user.id.into()).await;
    let (text, keyboard) = match &frozen {
        Ok(account) => screen(account),
        // The button stays, to try again.
        Err(error) => (problem(error, None), keep_keyboard()),
    };
    context.telegram.edit(user.id, message, &text, keyboard).await?;
    if frozen.is_ok() {
        for event in [SecurityEvent::AccountFrozen, SecurityEvent::UnfreezeCancelled] {
            context.record_answered(user.id, EventKind::Security(event));
        }
    }
    Ok(())
}

/// Cancels a request to leave the vault page. A second press changes nothing.
async fn stay(context: &Context, user: &User, message: MessageId) -> HandlerResult {
    let kept = context.kms.keep_page_only(user.id.into()).await;
    let (text, keyboard) = match &kept {
        Ok(_account) => (html!("freeze-stayed"), Keyboard::none()),
        // The button stays, to try again.
        Err(error) => (problem(error, None), stay_keyboard()),
    };
    context.telegram.edit(user.id, message, &text, keyboard).await?;
    if kept.is_ok() {
        context.record_answered(user.id, EventKind::Security(SecurityEvent::PageLeaveCancelled));
    }
    Ok(())
}

/// Waits for the password, to unfreeze the wallet.
struct UnfreezePassword;

#[async_trait]
impl Step for UnfreezePassword {
    fn secrecy(&self) -> Secrecy {
        Secrecy::Password
    }

    fn wanted(&self) -> Html {
        html!("wanted-password")
    }

    fn resume(&self) -> String {
        FreezeButton::Lift.data()
    }

    /// Requests to unfreeze the wallet. The step continues until that succeeds.
    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let user = answer.user;
        let working = html!("freeze-working");
        let message = context.working(user.id, &working, WORD.to_owned()).await?;
        let body = Unfreeze { password_hash: answer.password().hash(user.id).await };
        let requested = context.kms.unfreeze(user.id.into(), &body).await;
        let (text, keyboard) = match &requested {
            Ok(account) => {
                context.end_step(user.id);
                screen(account)
            }
            Err(error) => (problem(error, None), Keyboard::none()),
        };
        context.telegram.edit_or_send(user.id, message, &text, keyboard).await?;
        if requested.is_ok() {
            let event = EventKind::Security(SecurityEvent::UnfreezeRequested);
            context.record_answered(user.id, event);
        }
        Ok(())
    }
}
