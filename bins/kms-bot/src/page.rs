//! The vault page: which acts belong there rather than in the chat, and the buttons that open it.

use async_trait::async_trait;
use kms_client::ClientError;
use kms_types::wire::Passwords;
use kms_types::{AppLink, Purpose, TelegramId};
use teloxide_core::types::MessageId;

use crate::chat::incoming::User;
use crate::chat::keyboard::Keyboard;
use crate::context::{Answer, Context, HandlerResult, Secrecy, Step};
use crate::texts::{Html, Text, html, text};

/// Where a user does what needs the password, or a recovery.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In the chat, by messages.
    Chat,
    /// On the vault page.
    Page(PageLink),
}

/// The link of the page, if the operator has configured it.
#[derive(Clone, Debug)]
pub(crate) struct PageLink(Option<AppLink>);

/// What the user is asked for, where the user answers: in the chat, by a step, or on the page.
pub(crate) struct Question<S> {
    /// What the page is opened for.
    pub(crate) purpose: Purpose,
    /// What to do on the page.
    pub(crate) on_page: Html,
    /// What to write in the chat.
    pub(crate) in_chat: Html,
    /// Reads what is written in the chat.
    pub(crate) step: S,
}

impl Place {
    /// Where this user acts: the token may not pass on passwords, or not those of the account.
    pub(crate) async fn of(context: &Context, user: TelegramId) -> Result<Self, ClientError> {
        let Passwords { by_token, page } = context.network.passwords().await?;
        let on_page = Self::Page(PageLink(page));
        if !by_token {
            return Ok(on_page);
        }
        let account = context.kms.account(user.into()).await?;
        Ok(if account.is_some_and(|account| account.page_only) { on_page } else { Self::Chat })
    }
}

impl PageLink {
    /// Returns the configured link, wherever passwords are typed.
    pub(crate) async fn configured(context: &Context) -> Result<Self, ClientError> {
        Ok(Self(context.network.passwords().await?.page))
    }

    /// A keyboard whose first row opens the page for a purpose.
    pub(crate) fn keyboard(&self, purpose: Purpose) -> Keyboard {
        self.button(Keyboard::none(), purpose)
    }

    /// Adds a row that opens the page for a purpose.
    pub(crate) fn button(&self, keyboard: Keyboard, purpose: Purpose) -> Keyboard {
        match &self.0 {
            Some(link) => keyboard.and_link(label(purpose), &link.opened_for(purpose)),
            None => keyboard,
        }
    }

    /// Asks the user to open the page, in this message or in a new one. What the user types
    /// meanwhile may be a password, and is not used.
    pub(crate) async fn ask(
        self,
        context: &Context,
        user: &User,
        message: Option<MessageId>,
        text: &Html,
        step: OnPage,
    ) -> HandlerResult {
        if self.0.is_none() {
            tracing::warn!(
                event = "page_not_linked",
                "passwords are typed on the page only, and the server has no link of it"
            );
            let none = Keyboard::none();
            return show(context, user, message, &html!("page-missing"), none).await;
        }
        let keyboard = self.keyboard(step.purpose);
        context.expect(user.id, step);
        show(context, user, message, text, keyboard).await
    }
}

/// Asks for a secret where this user gives it, in this message or in a new one. The chat's prompt
/// has the buttons that `cancel` makes once the question is asked.
pub(crate) async fn ask<S: Step>(
    context: &Context,
    user: &User,
    message: Option<MessageId>,
    question: Question<S>,
    cancel: impl FnOnce(&Context, TelegramId) -> Keyboard,
) -> HandlerResult {
    let Question { purpose, on_page, in_chat, step } = question;
    match Place::of(context, user.id).await? {
        Place::Page(link) => {
            let step = OnPage { purpose, resume: step.resume(), message };
            link.ask(context, user, message, &on_page, step).await
        }
        Place::Chat => {
            context.expect(user.id, step);
            show(context, user, message, &in_chat, cancel(context, user.id)).await
        }
    }
}

async fn show(
    context: &Context,
    user: &User,
    message: Option<MessageId>,
    text: &Html,
    keyboard: Keyboard,
) -> HandlerResult {
    match message {
        Some(message) => context.telegram.edit(user.id, message, text, keyboard).await?,
        None => drop(context.telegram.send(user.id, text, keyboard).await?),
    }
    Ok(())
}

fn label(purpose: Purpose) -> Text {
    match purpose {
        Purpose::NewWallet => text!("page-create-button"),
        Purpose::Confirm(_) => text!("page-confirm-button"),
        Purpose::SpeedUp(_) => text!("page-speed-up-button"),
        Purpose::Recover(_) => text!("page-recover-button"),
        Purpose::RequestRecovery => text!("recover-start-button"),
        Purpose::ChangePassword
        | Purpose::Email
        | Purpose::Export
        | Purpose::Lift
        | Purpose::Home => text!("page-button"),
    }
}

/// Waits for nothing: the user acts on the page. A password that is typed all the same is deleted
/// and not used.
pub(crate) struct OnPage {
    pub(crate) purpose: Purpose,
    /// The callback data, or the command, that shows the button again.
    pub(crate) resume: String,
    /// The message that the callback data edits.
    pub(crate) message: Option<MessageId>,
}

#[async_trait]
impl Step for OnPage {
    fn secrecy(&self) -> Secrecy {
        Secrecy::OnPage
    }

    fn wanted(&self) -> Html {
        html!("page-wanted")
    }

    fn resume(&self) -> String {
        self.resume.clone()
    }

    fn message(&self) -> Option<MessageId> {
        self.message
    }

    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let keyboard = PageLink::configured(context).await?.keyboard(self.purpose);
        let text = html!("page-password-deleted");
        context.telegram.send(answer.user.id, &text, keyboard).await?;
        Ok(())
    }
}

/// Ends the step of a user who has acted on the page, and returns what shows it again.
pub(crate) fn end(context: &Context, user: TelegramId) -> Option<String> {
    let resume = context.journal.chat(user).asked.map(|asked| asked.resume);
    context.end_step_if(user, |_: &OnPage| true).then_some(resume).flatten()
}
