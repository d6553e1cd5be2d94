//! `/recover`. What happens to a recovery is told by the server's events, also to an owner who did
//! not ask for it; here is only what the person in the chat does.

use kms_types::wire::{CompleteRecovery, ConfirmCode, Recovery, RecoveryState, RequestRecovery};
use kms_types::{ErrorCode, RecoveryId};
use teloxide_core::types::MessageId;

use crate::app::{App, Done, Failure};
use crate::buttons::{Keyboard, Press};
use crate::incoming::Person;
use crate::password::Password;
use crate::steps::Step;
use crate::texts;

/// How the recovery stands that is under way; or what one is, and a button that asks for it.
pub(crate) async fn show(app: &App, who: &Person) -> Done {
    if app.account(who).await?.is_none() {
        return Ok(());
    }
    let Some(open) = app.kms.recovery(who.id.into()).await? else {
        let start = Press::RecoveryStart(RecoveryId::random());
        let keyboard = Keyboard::row([(texts::RECOVERY_START, start)])
            .and_row([(texts::CANCEL, Press::Leave)]);
        app.telegram.say(who.id, &texts::ask_recovery(), keyboard).await?;
        return Ok(());
    };
    let told = match open.state {
        RecoveryState::Ready => {
            texts::recovery_ready(&open).map(|text| (text, set_or_stop(open.id)))
        }
        RecoveryState::CodeSent
        | RecoveryState::Waiting
        | RecoveryState::Completed
        | RecoveryState::Cancelled
        | RecoveryState::Expired
        | RecoveryState::Unknown => {
            texts::recovery_requested(&open).map(|text| (text, stop_button(open.id)))
        }
    };
    expect_code(app, who, &open);
    if let Some((text, keyboard)) = told {
        app.telegram.say(who.id, &text, keyboard).await?;
    }
    Ok(())
}

/// Asks the server for a recovery. A second press is the same one, by its id.
pub(crate) async fn start(app: &App, who: &Person, message: MessageId, id: RecoveryId) -> Done {
    app.leave_step(who).await;
    let text = match app.kms.request_recovery(who.id.into(), &RequestRecovery { id }).await {
        Ok(asked) => {
            expect_code(app, who, &asked);
            texts::RECOVERY_ASKED.to_owned()
        }
        Err(error) if error.code() == Some(ErrorCode::RecoveryOpen) => {
            texts::RECOVERY_ENDED.to_owned()
        }
        Err(error) => texts::failure(&error, None),
    };
    Ok(app.telegram.edit(who.id, message, &text, Keyboard::none()).await?)
}

fn expect_code(app: &App, who: &Person, recovery: &Recovery) {
    if recovery.state == RecoveryState::CodeSent {
        app.steps.set(who.id, Step::RecoveryCode { id: recovery.id });
    }
}

/// Gives the server the code from the mail.
pub(crate) async fn confirm(app: &App, who: &Person, id: RecoveryId, text: &str) -> Done {
    let Ok(code) = text.parse() else {
        app.telegram.say(who.id, texts::CODE_FORM, Keyboard::none()).await?;
        return Ok(());
    };
    let confirmed = app.kms.confirm_recovery(who.id.into(), id, &ConfirmCode { code }).await;
    let text = match confirmed {
        Ok(_) => {
            app.steps.end(who.id);
            texts::CODE_RIGHT.to_owned()
        }
        Err(error) => {
            if error.code() == Some(ErrorCode::CodeExpired) {
                app.steps.end(who.id);
            }
            texts::failure(&error, None)
        }
    };
    app.telegram.say(who.id, &text, Keyboard::none()).await?;
    Ok(())
}

/// Asks for the new password, if it can be given now.
pub(crate) async fn ask_password(
    app: &App,
    who: &Person,
    message: MessageId,
    id: RecoveryId,
) -> Result<Option<&'static str>, Failure> {
    let open = app.kms.recovery(who.id.into()).await?;
    let ready = open.is_some_and(|open| open.id == id && open.state == RecoveryState::Ready);
    if !ready {
        app.telegram.edit(who.id, message, texts::RECOVERY_ENDED, Keyboard::none()).await?;
        return Ok(Some(texts::STALE_BUTTON));
    }
    app.leave_step(who).await;
    app.steps.set(who.id, Step::Recover { id });
    let text = texts::ask_recovery_password();
    app.telegram.edit(who.id, message, &text, stop_button(id)).await?;
    Ok(None)
}

/// Sets the new password. A repeat is the same recovery, by its id.
pub(crate) async fn complete(app: &App, who: &Person, id: RecoveryId, new: Password) -> Done {
    if let Err(weak) = new.check(&[&who.first_name]) {
        app.telegram.say(who.id, texts::weak(weak), Keyboard::none()).await?;
        return Ok(());
    }
    let message = app.telegram.say(who.id, texts::RECOVERING, Keyboard::none()).await?;
    let body = CompleteRecovery { new_password_hash: new.hash(who.id).await };
    let text = match app.kms.complete_recovery(who.id.into(), id, &body).await {
        Ok(_) => {
            app.steps.end(who.id);
            let account = app.kms.account(who.id.into()).await?;
            account.map(|account| texts::recovery_done(account.address)).unwrap_or_default()
        }
        Err(error) => {
            if error.code() == Some(ErrorCode::WrongState) {
                app.steps.end(who.id);
            }
            texts::failure(&error, None)
        }
    };
    Ok(app.telegram.edit(who.id, message, &text, Keyboard::none()).await?)
}

/// Stops a recovery. Needs no password.
pub(crate) async fn stop(
    app: &App,
    who: &Person,
    message: MessageId,
    id: RecoveryId,
) -> Result<Option<&'static str>, Failure> {
    app.leave_step(who).await;
    let (text, notice) = match app.kms.cancel_recovery(who.id.into(), id).await {
        Ok(_) => (texts::RECOVERY_STOPPING, None),
        Err(error) if error.code() == Some(ErrorCode::WrongState) => {
            (texts::RECOVERY_ENDED, Some(texts::STALE_BUTTON))
        }
        Err(error) => return Err(error.into()),
    };
    app.telegram.edit(who.id, message, text, Keyboard::none()).await?;
    Ok(notice)
}

pub(crate) fn stop_button(id: RecoveryId) -> Keyboard {
    Keyboard::row([(texts::RECOVERY_STOP, Press::RecoveryStop(id))])
}

pub(crate) fn set_or_stop(id: RecoveryId) -> Keyboard {
    Keyboard::row([(texts::RECOVERY_SET, Press::RecoverySet(id))])
        .and_row([(texts::RECOVERY_STOP, Press::RecoveryStop(id))])
}
