//! `/contact`: the e-mail address and the mobile number.

use async_trait::async_trait;
use futures::FutureExt;
use kms_types::wire::{Account, ChangeEmail, ConfirmCode};
use kms_types::{AccountEvent, Email, ErrorCode, EventKind, Purpose};
use teloxide_core::types::MessageId;

use super::{cancel, freeze};
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

pub(crate) mod mobile;

const WORD: &str = "contact";
/// What comes before the address in the callback data of [`ConfirmButton`].
const CONFIRM: &str = "confirm:";

pub(crate) struct ContactFlow;

impl Flow for ContactFlow {
    fn word(&self) -> &'static str {
        WORD
    }

    fn description(&self) -> Text {
        text!("contact-description")
    }

    fn parse(&self, arguments: Arguments<'_>) -> Result<Action, ArgumentsError> {
        arguments.expect_none(|context, user| show(context, user).boxed())
    }

    fn button(&self, data: &str) -> Result<Box<dyn Button>, ParseCallbackError> {
        match data.strip_prefix(CONFIRM) {
            Some(text) => match text.parse::<Email>() {
                Ok(email) if email.as_str() == text => Ok(Box::new(ConfirmButton { email })),
                Ok(_) | Err(_) => Err(ParseCallbackError),
            },
            None => BUTTONS.parse(data),
        }
    }
}

const BUTTONS: NamedButtons<ContactButton> = NamedButtons {
    flow: WORD,
    buttons: &[
        ("set", ContactButton::Set),
        ("remove", ContactButton::Remove),
        ("mobile", ContactButton::ShareMobile),
        ("remove-mobile", ContactButton::RemoveMobile),
        ("later", ContactButton::Later),
        ("code", ContactButton::AskCode),
    ],
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum ContactButton {
    /// Asks for a new address.
    Set,
    /// Asks for the password that removes the address.
    Remove,
    /// Asks for the mobile number.
    ShareMobile,
    /// Removes the mobile number.
    RemoveMobile,
    /// Takes the offer of onboarding away.
    Later,
    /// Asks for the code again, after a restart. No message has this button.
    AskCode,
}

#[async_trait]
impl Button for ContactButton {
    fn data(&self) -> String {
        BUTTONS.data(*self)
    }

    async fn press(&self, context: &Context, user: &User, message: MessageId) -> PressResult {
        match self {
            Self::Set => ask_address(context, user, shown_in(message)).await?,
            Self::Remove => ask_password(context, user, shown_in(message), None).await?,
            Self::ShareMobile => mobile::ask(context, user).await?,
            Self::RemoveMobile => mobile::remove(context, user, message).await?,
            Self::Later => {
                let text = html!("contact-later");
                context.telegram.edit(user.id, message, &text, Keyboard::none()).await?;
            }
            Self::AskCode => {
                context.abandon_step(user).await?;
                context.expect(user.id, Code);
                let keyboard = cancel::keyboard(context, user.id);
                context.telegram.send(user.id, &html!("wanted-code"), keyboard).await?;
            }
        }
        Ok(None)
    }
}

/// Asks for the password that confirms a new address again, after a restart. No message has this
/// button: an address may be longer than callback data.
struct ConfirmButton {
    email: Email,
}

#[async_trait]
impl Button for ConfirmButton {
    fn data(&self) -> String {
        format!("{WORD}:{CONFIRM}{}", self.email.as_str())
    }

    async fn press(&self, context: &Context, user: &User, message: MessageId) -> PressResult {
        ask_password(context, user, shown_in(message), Some(self.email.clone())).await?;
        Ok(None)
    }
}

async fn show(context: &Context, user: &User) -> HandlerResult {
    let Some(account) = context.account(user).await? else { return Ok(()) };
    let set = ContactButton::Set.data();
    let keyboard = match account.email_verified_at {
        None => Keyboard::row([(text!("contact-add-button"), set)]),
        Some(_) => Keyboard::row([(text!("contact-change-button"), set)])
            .and_row([(text!("contact-remove-button"), ContactButton::Remove.data())]),
    };
    let keyboard = keyboard.and_row([match account.mobile {
        None => (text!("contact-mobile-button"), ContactButton::ShareMobile.data()),
        Some(_) => (text!("contact-mobile-remove-button"), ContactButton::RemoveMobile.data()),
    }]);
    context.telegram.send(user.id, &contacts(&account), keyboard).await?;
    Ok(())
}

fn contacts(account: &Account) -> Html {
    let email = match (&account.email, account.email_verified_at) {
        (Some(email), Some(at)) => html!("contact-address", email = email, time = time(at)),
        (None, _) | (_, None) => html!("contact-none"),
    };
    let mobile = match &account.mobile {
        Some(mobile) => html!("contact-mobile", mobile = mobile),
        None => html!("contact-mobile-none"),
    };
    Html::paragraphs([email, mobile])
}

/// Offers both contacts to the owner of a new wallet, once, even if onboarding was interrupted.
pub(super) async fn offer(context: &Context, user: &User) -> HandlerResult {
    let keyboard = Keyboard::row([
        (text!("contact-add-button"), ContactButton::Set.data()),
        (text!("contact-mobile-button"), ContactButton::ShareMobile.data()),
    ])
    .and_row([(text!("contact-later-button"), ContactButton::Later.data())]);
    context.telegram.send(user.id, &html!("contact-offer"), keyboard).await?;
    context.journal.change(user.id, |chat| chat.owes_offer = false);
    Ok(())
}

async fn ask_address(context: &Context, user: &User, message: Option<MessageId>) -> HandlerResult {
    let in_chat = html!("contact-ask-address");
    ask_step(context, user, message, in_chat, NewAddress).await
}

/// Waits for the new address.
struct NewAddress;

#[async_trait]
impl Step for NewAddress {
    fn secrecy(&self) -> Secrecy {
        Secrecy::Public
    }

    fn wanted(&self) -> Html {
        html!("wanted-email")
    }

    fn resume(&self) -> String {
        ContactButton::Set.data()
    }

    fn is_answer(&self, text: &str) -> bool {
        text.trim().parse::<Email>().is_ok()
    }

    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let user = answer.user;
        let Ok(email) = answer.text.trim().parse() else {
            let text = html!("contact-address-format");
            context.telegram.send(user.id, &text, cancel::keyboard(context, user.id)).await?;
            return Ok(());
        };
        ask_password(context, user, None, Some(email)).await
    }
}

/// Asks for the password: the address helps to recover the wallet.
async fn ask_password(
    context: &Context,
    user: &User,
    message: Option<MessageId>,
    email: Option<Email>,
) -> HandlerResult {
    let in_chat = match &email {
        Some(email) => html!("contact-ask-password-new", email = email.as_str()),
        None => html!("contact-ask-password-remove"),
    };
    ask_step(context, user, message, in_chat, ConfirmChange { email }).await
}

/// On the page, all of it is one act.
async fn ask_step(
    context: &Context,
    user: &User,
    message: Option<MessageId>,
    in_chat: Html,
    step: impl Step,
) -> HandlerResult {
    context.abandon_step(user).await?;
    let (purpose, on_page) = (Purpose::Email, html!("contact-on-page"));
    let question = Question { purpose, on_page, in_chat, step };
    page::ask(context, user, message, question, cancel::keyboard).await
}

/// Waits for the password that confirms a new address, or its removal.
struct ConfirmChange {
    email: Option<Email>,
}

#[async_trait]
impl Step for ConfirmChange {
    fn secrecy(&self) -> Secrecy {
        Secrecy::Password
    }

    fn wanted(&self) -> Html {
        html!("wanted-password")
    }

    fn resume(&self) -> String {
        match &self.email {
            Some(email) => ConfirmButton { email: email.clone() }.data(),
            None => ContactButton::Remove.data(),
        }
    }

    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let user = answer.user;
        let working = html!("contact-working");
        // Whether a code was sent is not known after an interruption: then another one is. Whether
        // the address was removed is shown.
        let resume = self.email.as_ref().map_or_else(|| WORD.to_owned(), |_new| self.resume());
        let message = context.working(user.id, &working, resume).await?;
        let password_hash = answer.password().hash(user.id).await;
        let body = ChangeEmail { email: self.email.clone(), password_hash };
        if let Err(error) = context.kms.change_email(user.id.into(), &body).await {
            if error.code() != Some(ErrorCode::WrongPassword) {
                context.end_step(user.id);
            }
            let text = problem(&error, None);
            return Ok(context.telegram.edit(user.id, message, &text, Keyboard::none()).await?);
        }
        context.end_step(user.id);
        let (text, event) = match &self.email {
            Some(email) => {
                context.expect(user.id, Code);
                let text = html!("contact-ask-code", email = email.as_str());
                (text, AccountEvent::EmailChangeRequested)
            }
            None => (html!("contact-removed"), AccountEvent::EmailChanged),
        };
        context.telegram.edit(user.id, message, &text, freeze::ask_keyboard()).await?;
        context.record_answered(user.id, EventKind::Account(event));
        Ok(())
    }
}

/// Waits for the code that was sent to the new address.
struct Code;

#[async_trait]
impl Step for Code {
    fn secrecy(&self) -> Secrecy {
        Secrecy::Code
    }

    fn wanted(&self) -> Html {
        html!("wanted-code")
    }

    fn resume(&self) -> String {
        ContactButton::AskCode.data()
    }

    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let user = answer.user;
        let Ok(code) = answer.text.parse() else {
            return context.send(user.id, html!("recover-code-format")).await;
        };
        if let Err(error) = context.kms.confirm_email(user.id.into(), &ConfirmCode { code }).await {
            if error.code() == Some(ErrorCode::CodeExpired) {
                context.end_step(user.id);
            }
            return context.send(user.id, problem(&error, None)).await;
        }
        context.end_step(user.id);
        let text = html!("contact-changed");
        context.telegram.send(user.id, &text, freeze::ask_keyboard()).await?;
        context.record_answered(user.id, EventKind::Account(AccountEvent::EmailChanged));
        Ok(())
    }
}
