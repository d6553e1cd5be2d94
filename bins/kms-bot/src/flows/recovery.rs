//! `/recover`: what the user in the chat does. The progress of a recovery is reported by the
//! server's events, also to an owner who did not request it.

use async_trait::async_trait;
use futures::FutureExt;
use kms_types::wire::{CompleteRecovery, ConfirmCode, Recovery, RecoveryState, RequestRecovery};
use kms_types::{ErrorCode, EventKind, Purpose, RecoveryId, RecoveryStep, TelegramId};
use teloxide_core::types::MessageId;

use super::{cancel, freeze};
use crate::chat::incoming::User;
use crate::chat::keyboard::{CallbackButton, Keyboard};
use crate::context::{Answer, Context, HandlerResult, Secrecy, Step};
use crate::flow::{
    Action, Arguments, ArgumentsError, Button, Flow, ParseCallbackError, PressResult, shown_in,
};
use crate::format::time;
use crate::page::{self, OnPage, PageLink, Place, Question};
use crate::problems::problem;
use crate::texts::{Html, Text, html, text};

const WORD: &str = "recover";

pub(crate) struct RecoveryFlow;

impl Flow for RecoveryFlow {
    fn word(&self) -> &'static str {
        WORD
    }

    fn description(&self) -> Text {
        text!("recover-description")
    }

    fn parse(&self, arguments: Arguments<'_>) -> Result<Action, ArgumentsError> {
        arguments.expect_none(|context, user| show(context, user).boxed())
    }

    fn button(&self, data: &str) -> Result<Box<dyn Button>, ParseCallbackError> {
        let (kind, id) = data.split_once(':').ok_or(ParseCallbackError)?;
        let id = id.parse().map_err(|_cause| ParseCallbackError)?;
        Ok(Box::new(match kind {
            "request" => RecoveryButton::Request(id),
            "set" => RecoveryButton::SetPassword(id),
            "stop" => RecoveryButton::Stop(id),
            _ => return Err(ParseCallbackError),
        }))
    }
}

enum RecoveryButton {
    /// Requests a recovery under this id.
    Request(RecoveryId),
    /// Asks for the new password.
    SetPassword(RecoveryId),
    /// Cancels a recovery. Needs no password.
    Stop(RecoveryId),
}

#[async_trait]
impl Button for RecoveryButton {
    fn data(&self) -> String {
        match self {
            Self::Request(id) => format!("{WORD}:request:{id}"),
            Self::SetPassword(id) => format!("{WORD}:set:{id}"),
            Self::Stop(id) => format!("{WORD}:stop:{id}"),
        }
    }

    async fn press(&self, context: &Context, user: &User, message: MessageId) -> PressResult {
        match self {
            Self::Request(id) => {
                request(context, user, message, *id).await?;
                Ok(None)
            }
            Self::SetPassword(id) => ask_password(context, user, message, *id).await,
            Self::Stop(id) => stop(context, user, message, *id).await,
        }
    }
}

/// A keyboard that cancels a recovery.
pub(crate) fn stop_keyboard(id: RecoveryId) -> Keyboard {
    Keyboard::row([stop_button(id)])
}

fn stop_button(id: RecoveryId) -> CallbackButton {
    (text!("recover-stop-button"), RecoveryButton::Stop(id).data())
}

/// Shows the open recovery; without one, explains recoveries and offers to request one.
async fn show(context: &Context, user: &User) -> HandlerResult {
    if context.account(user).await?.is_none() {
        return Ok(());
    }
    let place = Place::of(context, user.id).await?;
    let Some(open) = context.kms.recovery(user.id.into()).await? else {
        if let Place::Page(link) = place {
            return request_on_page(context, user, None, link).await;
        }
        let request = RecoveryButton::Request(RecoveryId::random()).data();
        let keyboard = Keyboard::row([(text!("recover-start-button"), request)])
            .and_row([cancel::choice_button()]);
        context.telegram.send(user.id, &html!("recover-ask"), keyboard).await?;
        return Ok(());
    };
    match &place {
        Place::Chat => expect_code(context, user, &open),
        Place::Page(_) if open.moves_to.is_some() => {}
        Place::Page(_) => {
            let (purpose, resume) = (Purpose::Recover(open.id), WORD.to_owned());
            context.expect(user.id, OnPage { purpose, resume, message: None });
        }
    }
    if let Some((text, keyboard)) = screen(&open, &place) {
        context.telegram.send(user.id, &text, keyboard).await?;
    }
    Ok(())
}

/// Says where an open recovery stands, with the buttons for what comes next.
pub(crate) fn screen(recovery: &Recovery, place: &Place) -> Option<(Html, Keyboard)> {
    let id = recovery.id;
    if let Some(to) = recovery.moves_to {
        return move_screen(recovery, to);
    }
    let (text, next) = match (recovery.state, place) {
        (RecoveryState::Ready, Place::Chat) => {
            let set = RecoveryButton::SetPassword(id).data();
            (ready(recovery), Keyboard::row([(text!("recover-set-button"), set)]))
        }
        (RecoveryState::Ready, Place::Page(link)) => {
            (ready(recovery), link.keyboard(Purpose::Recover(id)))
        }
        (RecoveryState::CodeSent, Place::Page(link)) => {
            (requested(recovery, place), link.keyboard(Purpose::Recover(id)))
        }
        (RecoveryState::CodeSent, Place::Chat) | (RecoveryState::Waiting, _) => {
            (requested(recovery, place), Keyboard::none())
        }
        (
            RecoveryState::Completed
            | RecoveryState::Cancelled
            | RecoveryState::Expired
            | RecoveryState::Unknown,
            _,
        ) => return None,
    };
    Some((text, next.and_row([stop_button(id)])))
}

/// Says when the wallet is moved to another Telegram account, with the button that stops it.
fn move_screen(recovery: &Recovery, to: TelegramId) -> Option<(Html, Keyboard)> {
    let is_open = matches!(recovery.state, RecoveryState::Waiting | RecoveryState::Ready);
    let (ready, until) = (time(recovery.ready_at), time(recovery.expires_at));
    let text = html!("notice-move", to = to, ready = ready, until = until);
    is_open.then(|| (text, stop_keyboard(recovery.id)))
}

/// Says that a recovery was requested, and what happens next.
fn requested(recovery: &Recovery, place: &Place) -> Html {
    let ready = time(recovery.ready_at);
    let next = match (recovery.state, &recovery.code_sent_to, recovery.code_until, place) {
        (RecoveryState::CodeSent, Some(email), Some(until), Place::Chat) => {
            html!("notice-recovery-code-sent", email = email, until = time(until), ready = ready)
        }
        (RecoveryState::CodeSent, Some(email), Some(until), Place::Page(_)) => {
            html!("notice-recovery-code-on-page", email = email, until = time(until), ready = ready)
        }
        _ => html!("notice-recovery-waiting", ready = ready),
    };
    html!("notice-recovery-requested", requested = time(recovery.requested_at), next = next)
}

/// Says that the code was right, and until when to wait.
pub(crate) fn confirmed(recovery: &Recovery) -> Html {
    html!("notice-recovery-confirmed", ready = time(recovery.ready_at))
}

/// Says that the new password can be set.
fn ready(recovery: &Recovery) -> Html {
    html!("notice-recovery-ready", until = time(recovery.expires_at))
}

/// Explains recoveries, with the button of the page, where one is requested.
async fn request_on_page(
    context: &Context,
    user: &User,
    message: Option<MessageId>,
    link: PageLink,
) -> HandlerResult {
    let step = OnPage { purpose: Purpose::RequestRecovery, resume: WORD.to_owned(), message: None };
    link.ask(context, user, message, &html!("recover-ask"), step).await
}

/// Requests a recovery. A second press requests the same one, by its id.
async fn request(
    context: &Context,
    user: &User,
    message: MessageId,
    id: RecoveryId,
) -> HandlerResult {
    context.abandon_step(user).await?;
    let requested = context.kms.request_recovery(user.id.into(), &RequestRecovery { id }).await;
    match requested {
        Ok(requested) => {
            expect_code(context, user, &requested);
            // The notice of the event says that it was requested, and what happens next.
            context.telegram.remove_buttons(user.id, message).await?;
        }
        // The button is older than the token's scope, or than the user's first act on the page.
        Err(error)
            if matches!(error.code(), Some(ErrorCode::Forbidden | ErrorCode::PageRequired)) =>
        {
            let link = PageLink::configured(context).await?;
            request_on_page(context, user, Some(message), link).await?;
        }
        Err(error) => {
            let text = problem(&error, None);
            context.telegram.edit(user.id, message, &text, Keyboard::none()).await?;
        }
    }
    Ok(())
}

fn expect_code(context: &Context, user: &User, recovery: &Recovery) {
    if recovery.state == RecoveryState::CodeSent {
        context.expect(user.id, Code { id: recovery.id });
    }
}

/// Waits for the code from the e-mail.
struct Code {
    id: RecoveryId,
}

#[async_trait]
impl Step for Code {
    fn secrecy(&self) -> Secrecy {
        Secrecy::Code
    }

    fn wanted(&self) -> Html {
        html!("wanted-code")
    }

    fn resume(&self) -> String {
        WORD.to_owned()
    }

    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let user = answer.user;
        let Ok(code) = answer.text.parse() else {
            return context.send(user.id, html!("recover-code-format")).await;
        };
        let body = ConfirmCode { code };
        let recovery = match context.kms.confirm_recovery(user.id.into(), self.id, &body).await {
            Ok(recovery) => recovery,
            Err(error) => {
                if error.code() == Some(ErrorCode::CodeExpired) {
                    context.end_step(user.id);
                }
                return context.send(user.id, problem(&error, None)).await;
            }
        };
        context.end_step(user.id);
        context.telegram.send(user.id, &confirmed(&recovery), stop_keyboard(recovery.id)).await?;
        context.record_answered(user.id, EventKind::Recovery(RecoveryStep::CodeConfirmed));
        Ok(())
    }
}

/// Asks for the new password if the recovery is ready.
async fn ask_password(
    context: &Context,
    user: &User,
    message: MessageId,
    id: RecoveryId,
) -> PressResult {
    let open = context.kms.recovery(user.id.into()).await?;
    let ready = open.is_some_and(|open| {
        open.id == id && open.state == RecoveryState::Ready && open.moves_to.is_none()
    });
    if !ready {
        let over = html!("recover-over");
        context.telegram.edit_or_send(user.id, message, &over, Keyboard::none()).await?;
        return Ok(None);
    }
    context.abandon_step(user).await?;
    let question = Question {
        purpose: Purpose::Recover(id),
        on_page: html!("recover-on-page"),
        in_chat: html!("recover-ask-password"),
        step: NewPassword { id },
    };
    page::ask(context, user, shown_in(message), question, |_, _| stop_keyboard(id)).await?;
    Ok(None)
}

/// Waits for the new password.
struct NewPassword {
    id: RecoveryId,
}

#[async_trait]
impl Step for NewPassword {
    fn secrecy(&self) -> Secrecy {
        Secrecy::Password
    }

    fn wanted(&self) -> Html {
        html!("wanted-new-password")
    }

    fn resume(&self) -> String {
        RecoveryButton::SetPassword(self.id).data()
    }

    /// Completes the recovery. Repeating it has no second effect, by its id.
    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let (user, password) = (answer.user, answer.password());
        let usernames = context.telegram.usernames(user).await;
        if let Err(weak) = password.check(&user.names(&usernames)) {
            return context.send(user.id, weak.message()).await;
        }
        let working = html!("recover-working");
        let message = context.working(user.id, &working, WORD.to_owned()).await?;
        let body = CompleteRecovery { new_password_hash: password.hash(user.id).await };
        if let Err(error) = context.kms.complete_recovery(user.id.into(), self.id, &body).await {
            if error.code() == Some(ErrorCode::WrongState) {
                context.end_step(user.id);
            }
            let text = problem(&error, None);
            return Ok(context.telegram.edit(user.id, message, &text, Keyboard::none()).await?);
        }
        context.end_step(user.id);
        let account = context.kms.account(user.id.into()).await?;
        let address = account.map(|account| account.address);
        let done = address.map(|address| html!("recover-done", address = address));
        let text = done.unwrap_or_else(|| html!("no-wallet"));
        context.telegram.edit(user.id, message, &text, freeze::ask_keyboard()).await?;
        context.record_answered(user.id, EventKind::Recovery(RecoveryStep::Completed));
        Ok(())
    }
}

async fn stop(context: &Context, user: &User, message: MessageId, id: RecoveryId) -> PressResult {
    let stopped = context.kms.cancel_recovery(user.id.into(), id).await;
    let is_over = match stopped {
        Ok(_) => false,
        Err(error) if error.code() == Some(ErrorCode::WrongState) => true,
        Err(error) => return Err(error.into()),
    };
    // Any other question is still asked.
    context.end_step_if(user.id, |code: &Code| code.id == id);
    context.end_step_if(user.id, |password: &NewPassword| password.id == id);
    if is_over {
        let over = html!("recover-over");
        context.telegram.edit(user.id, message, &over, Keyboard::none()).await?;
    } else {
        // The notice of the event says that it was cancelled.
        context.telegram.remove_buttons(user.id, message).await?;
    }
    Ok(None)
}
