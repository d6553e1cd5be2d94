//! The mobile number, which Telegram's own key shares. Only the user's own number counts.

use async_trait::async_trait;
use kms_types::wire::ChangeMobile;
use kms_types::{Mobile, TelegramId};
use teloxide_core::types::MessageId;

use super::ContactButton;
use crate::chat::incoming::{Content, User};
use crate::chat::keyboard::{Keyboard, Keys};
use crate::context::{Answer, Context, HandlerError, HandlerResult, Secrecy, Step};
use crate::flow::Button;
use crate::problems::problem;
use crate::texts::{Html, html, text};

/// Asks for the number, with a key that shares it.
pub(super) async fn ask(context: &Context, user: &User) -> HandlerResult {
    context.abandon_step(user).await?;
    context.expect(user.id, ShareNumber);
    let keys = Keys::ShareNumber {
        share: text!("contact-mobile-share-button"),
        cancel: text!("cancel-button"),
    };
    Ok(context.telegram.send_with_keys(user.id, &html!("contact-ask-mobile"), keys).await?)
}

/// Removes the number.
pub(super) async fn remove(context: &Context, user: &User, message: MessageId) -> HandlerResult {
    let removed = context.kms.change_mobile(user.id.into(), &ChangeMobile { mobile: None }).await;
    let text = match removed {
        Ok(()) => html!("contact-mobile-removed"),
        Err(error) => problem(&error, None),
    };
    Ok(context.telegram.edit(user.id, message, &text, Keyboard::none()).await?)
}

/// Reports whether a text is what the key that cancels sends: its label.
pub(crate) fn is_cancel_key(text: &str) -> bool {
    text.trim() == text!("cancel-button").into_string()
}

/// Handles the key that cancels. It may have stayed after its question: another question is still
/// asked.
pub(crate) async fn cancel_key(context: &Context, user: &User) -> HandlerResult {
    context.end_step_if(user.id, |_: &ShareNumber| true);
    remove_keys(context, user, &html!("contact-mobile-cancelled")).await
}

/// Reports whether a user shared their own number, with or without the key.
pub(crate) fn is_own(user: TelegramId, content: &Content) -> bool {
    matches!(content, Content::Contact { user: owner, .. } if *owner == Some(user))
}

/// Handles a number that is shared after its question is over.
pub(crate) async fn late(context: &Context, user: &User) -> HandlerResult {
    remove_keys(context, user, &html!("contact-mobile-late")).await
}

async fn remove_keys(context: &Context, user: &User, text: &Html) -> HandlerResult {
    Ok(context.telegram.send_with_keys(user.id, text, Keys::Remove).await?)
}

/// Waits for the user's own contact.
struct ShareNumber;

#[async_trait]
impl Step for ShareNumber {
    fn secrecy(&self) -> Secrecy {
        Secrecy::Public
    }

    /// A number that is typed is not accepted, but no password either. Any other text may be one.
    fn is_answer(&self, text: &str) -> bool {
        text.chars().all(|c| c.is_ascii_digit() || "+ ()-./".contains(c))
    }

    fn wanted(&self) -> Html {
        html!("wanted-mobile")
    }

    fn resume(&self) -> String {
        ContactButton::ShareMobile.data()
    }

    async fn receive(
        &self,
        context: &Context,
        user: &User,
        content: &Content,
    ) -> Result<bool, HandlerError> {
        let Content::Contact { phone, .. } = content else { return Ok(false) };
        if !is_own(user.id, content) {
            context.send(user.id, html!("contact-mobile-foreign")).await?;
            return Ok(true);
        }
        // Telegram shows numbers with their country code, some without the plus.
        let digits: String = phone.chars().filter(char::is_ascii_digit).collect();
        let Ok(mobile) = format!("+{digits}").parse::<Mobile>() else {
            context.end_step(user.id);
            let text = html!("contact-mobile-format");
            context.telegram.send_with_keys(user.id, &text, Keys::Remove).await?;
            return Ok(true);
        };
        let body = ChangeMobile { mobile: Some(mobile.clone()) };
        let text = match context.kms.change_mobile(user.id.into(), &body).await {
            Ok(()) => html!("contact-mobile-added", mobile = mobile.masked()),
            Err(error) => problem(&error, None),
        };
        context.end_step(user.id);
        context.telegram.send_with_keys(user.id, &text, Keys::Remove).await?;
        Ok(true)
    }

    /// A number that is typed may be anybody's.
    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        context.send(answer.user.id, self.wanted()).await
    }

    /// Only a message can take the key away.
    async fn abandon(&self, context: &Context, user: &User) -> HandlerResult {
        remove_keys(context, user, &html!("contact-mobile-cancelled")).await
    }

    async fn cancel(&self, context: &Context, user: &User) -> Result<bool, HandlerError> {
        self.abandon(context, user).await?;
        Ok(true)
    }
}
