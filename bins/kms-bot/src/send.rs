//! `/send`: from whom and how much, by the confirm screen and the password, to the payment's end.
//! One message shows it all the way.
//!
//! What is confirmed is what was shown: the button carries a fingerprint of it, and the
//! confirmation repeats it to the server. Whose a transfer is, the server says.

use kms_client::ClientError;
use kms_types::wire::{
    ConfirmTransfer, QuoteTransfer, SeenUsername, Transfer, TransferState, Warning,
};
use kms_types::{Amount, Asset, ErrorCode, QuoteAmount, Recipient, TransferId, Username, Wei};
use teloxide_core::types::MessageId;

use crate::app::{App, Done, Failure};
use crate::buttons::{Keyboard, Press};
use crate::clock;
use crate::command::{self, Assets, SendArgs, SendError};
use crate::incoming::Person;
use crate::password::Password;
use crate::screen::{ClientRef, Seen, Shown, cancel_button, cancel_press, confirm_or_cancel, show};
use crate::steps::Step;
use crate::texts;

/// Quotes what was said, or asks for the rest of it.
pub(crate) async fn begin(app: &App, who: &Person, args: SendArgs) -> Done {
    if app.account(who).await?.is_none() {
        return Ok(());
    }
    match args {
        SendArgs { to: Some(to), amount: Some(amount), asset } => {
            quote(app, who, to, amount, asset).await
        }
        SendArgs { to: Some(to), amount: None, asset } => ask_amount(app, who, to, asset).await,
        SendArgs { to: None, amount, asset } => {
            app.steps.set(who.id, Step::SendTo { amount, asset });
            app.telegram.say(who.id, texts::ASK_TO, leave()).await?;
            Ok(())
        }
    }
}

async fn ask_amount(app: &App, who: &Person, to: Recipient, asset: Asset) -> Done {
    let text = texts::ask_amount(&to.to_string(), &asset, &app.network().await?);
    app.steps.set(who.id, Step::SendAmount { to, asset });
    app.telegram.say(who.id, &text, leave()).await?;
    Ok(())
}

/// The answer to whom.
pub(crate) async fn answer_to(
    app: &App,
    who: &Person,
    text: &str,
    amount: Option<QuoteAmount>,
    asset: Asset,
) -> Done {
    match (text.trim().parse::<Recipient>(), amount) {
        _ if !command::names_somebody(text) => can_not_read(app, who, &SendError::Mark).await,
        (Err(error), _) => can_not_read(app, who, &error.into()).await,
        (Ok(to), None) => ask_amount(app, who, to, asset).await,
        (Ok(to), Some(amount)) => quote(app, who, to, amount, asset).await,
    }
}

/// The answer to how much.
pub(crate) async fn answer_amount(
    app: &App,
    who: &Person,
    text: &str,
    to: Recipient,
    asset: Asset,
) -> Done {
    let mut amount = Assets::of(Some(&app.network().await?)).parse_amount(text);
    if amount.is_err() {
        amount = Assets::of(Some(&app.newer_network().await?)).parse_amount(text);
    }
    match amount {
        Err(error) => can_not_read(app, who, &error).await,
        Ok((amount, said)) => quote(app, who, to, amount, said.unwrap_or(asset)).await,
    }
}

async fn can_not_read(app: &App, who: &Person, error: &SendError) -> Done {
    app.telegram.say(who.id, &texts::can_not_read(error), leave()).await?;
    Ok(())
}

async fn quote(app: &App, who: &Person, to: Recipient, amount: QuoteAmount, asset: Asset) -> Done {
    app.steps.end(who.id);
    let message = app.telegram.say(who.id, texts::LOOKING_UP, Keyboard::none()).await?;
    quote_in(app, who, message, to, amount, asset).await
}

/// Quotes in a message that is there: the transfer remembers it.
async fn quote_in(
    app: &App,
    who: &Person,
    message: MessageId,
    to: Recipient,
    amount: QuoteAmount,
    asset: Asset,
) -> Done {
    let all = amount == QuoteAmount::All;
    let quoted = async {
        let display = match &to {
            Recipient::Address(_) => None,
            Recipient::Username(name) => match holder(app, name).await? {
                Holder::Nobody => return Ok((texts::unknown_name(name), Keyboard::none())),
                Holder::Left => return Ok((texts::name_left(name), Keyboard::none())),
                Holder::Unclear => return Ok((texts::NAME_UNCLEAR.to_owned(), Keyboard::none())),
                Holder::Here(display) => display,
            },
        };
        let body = QuoteTransfer {
            id: TransferId::random(),
            from: who.id.into(),
            to,
            amount,
            asset,
            client_ref: Some(ClientRef { message, all }.to_string()),
        };
        let transfer = app.kms.quote(&body).await?;
        let network = app.network_of(transfer.chain_id).await?;
        let text = texts::quote(&transfer, &network, display.as_deref());
        Ok((text, confirm_or_cancel(transfer.id, Seen::of(&transfer))))
    };
    let (text, keyboard) = match quoted.await {
        Ok(shown) => shown,
        Err(error) => (texts::failure(&error, app.known_network().as_ref()), Keyboard::none()),
    };
    Ok(app.telegram.edit(who.id, message, &text, keyboard).await?)
}

/// Who holds a name.
enum Holder {
    Nobody,
    /// Whoever had it here does not have it at Telegram any more.
    Left,
    /// Telegram does not say.
    Unclear,
    /// As Telegram shows them.
    Here(Option<String>),
}

/// Asks the server, and Telegram whether it is still so: somebody who took another name without
/// writing to the bot since would be paid under a name that may be a stranger's by now.
async fn holder(app: &App, name: &Username) -> Result<Holder, ClientError> {
    let Some(record) = app.kms.name(name).await? else { return Ok(Holder::Nobody) };
    match app.telegram.profile(record.telegram_id).await {
        Ok((_, username)) if username.as_ref() != Some(name) => {
            let seen = SeenUsername { username, seen_at: clock::now() };
            app.kms.seen_username(record.telegram_id.into(), &seen).await?;
            app.forget_name(record.telegram_id);
            Ok(Holder::Left)
        }
        Ok((display, _)) => Ok(Holder::Here(display)),
        Err(error) => {
            tracing::warn!(%error, "Telegram does not say whose a name is");
            Ok(Holder::Unclear)
        }
    }
}

/// The transfer, if it is this person's.
async fn own(app: &App, who: &Person, id: TransferId) -> Result<Option<Transfer>, ClientError> {
    let Some(transfer) = app.kms.transfer(id).await? else { return Ok(None) };
    let account = app.kms.account(who.id.into()).await?;
    let own = account.is_some_and(|account| transfer.from.account == Some(account.id));
    Ok(own.then_some(transfer))
}

/// What a press answers with in a short notice.
type Notice = Result<Option<&'static str>, Failure>;

/// `Confirm`: asks for the password.
pub(crate) async fn ask_password(
    app: &App,
    who: &Person,
    message: MessageId,
    id: TransferId,
    seen: Seen,
    although_moved: bool,
) -> Notice {
    app.leave_step(who).await;
    let Some(transfer) = own(app, who, id).await? else { return Ok(Some(texts::STALE_BUTTON)) };
    if transfer.state != TransferState::Quoted {
        show(app, who.id, message, &transfer).await?;
        return Ok(None);
    }
    if Seen::of(&transfer) != seen {
        app.kms.cancel(id).await?;
        app.telegram.edit(who.id, message, texts::NOT_AS_SHOWN, Keyboard::none()).await?;
        return Ok(None);
    }
    let display = match &transfer.to.username {
        None => None,
        Some(name) => match holder(app, name).await? {
            Holder::Here(display) => display,
            Holder::Unclear => return Ok(Some(texts::NAME_UNCLEAR)),
            Holder::Left | Holder::Nobody => {
                app.kms.cancel(id).await?;
                let text = texts::name_left(name);
                app.telegram.edit(who.id, message, &text, Keyboard::none()).await?;
                return Ok(None);
            }
        },
    };
    let screen =
        texts::quote(&transfer, &app.network_of(transfer.chain_id).await?, display.as_deref());
    if transfer.warnings.contains(&Warning::NameMoved) && !although_moved {
        let text = texts::ask_moved(&screen);
        let keyboard = Keyboard::row([
            (texts::CONFIRM_MOVED, Press::ConfirmMoved { transfer: id, seen }),
            cancel_press(id),
        ]);
        app.telegram.edit(who.id, message, &text, keyboard).await?;
        return Ok(None);
    }
    let text = texts::ask_password(&screen);
    let Transfer { to, token, value, max_fee, .. } = transfer;
    let shown = Shown { to_address: to.address, token, value, max_fee, screen };
    app.telegram.edit(who.id, message, &text, cancel_button(id)).await?;
    app.steps.set(who.id, Step::SendPassword { transfer: id, shown, message });
    Ok(None)
}

/// The password came: signs and sends.
pub(crate) async fn confirm(
    app: &App,
    who: &Person,
    id: TransferId,
    shown: Shown,
    message: MessageId,
    password: Password,
) -> Done {
    let Shown { to_address, token, value, max_fee, screen } = shown;
    let sending = texts::sending(&screen);
    // The password is gone from the chat: whatever becomes of the screen, it is used now.
    if let Err(error) = app.telegram.edit(who.id, message, &sending, Keyboard::none()).await {
        tracing::warn!(%error, "a screen could not be changed");
    }
    let password_hash = password.hash(who.id).await;
    let body = ConfirmTransfer { password_hash, to_address, token, value, max_fee };
    let error = match app.kms.confirm(id, &body).await {
        Ok(transfer) => {
            app.steps.end(who.id);
            return show(app, who.id, message, &transfer).await;
        }
        Err(error) => error,
    };
    let why = texts::failure(&error, app.known_network().as_ref());
    let renew = || Keyboard::row([(texts::RENEW, Press::Renew(id)), cancel_press(id)]);
    let check = || Keyboard::row([(texts::CHECK, Press::Check(id))]);
    let (text, keyboard) = match outcome(&error) {
        Outcome::Again => {
            let text = texts::wrong_password(&screen);
            let keyboard = cancel_button(id);
            return Ok(app.telegram.edit_or_say(who.id, message, &text, keyboard).await?);
        }
        Outcome::Unknown => (texts::outcome_unknown(&screen), check()),
        Outcome::Later => (texts::refused(&screen, &why), check().and_row([cancel_press(id)])),
        Outcome::Refused => (texts::refused(&screen, &why), renew()),
    };
    app.steps.end(who.id);
    Ok(app.telegram.edit_or_say(who.id, message, &text, keyboard).await?)
}

/// What a refused confirmation means.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Another password may be right.
    Again,
    /// The same quote may be confirmed later.
    Later,
    /// This quote will not be sent.
    Refused,
    /// It may have been sent.
    Unknown,
}

fn outcome(error: &ClientError) -> Outcome {
    let ClientError::Problem(problem) = error else { return Outcome::Unknown };
    match problem.code {
        ErrorCode::WrongPassword => Outcome::Again,
        ErrorCode::PasswordLocked
        | ErrorCode::RateLimited
        | ErrorCode::Busy
        | ErrorCode::ChainUnavailable => Outcome::Later,
        _ if problem.status >= 500 => Outcome::Unknown,
        _ => Outcome::Refused,
    }
}

/// `Cancel`.
pub(crate) async fn cancel(app: &App, who: &Person, message: MessageId, id: TransferId) -> Notice {
    if own(app, who, id).await?.is_none() {
        return Ok(Some(texts::STALE_BUTTON));
    }
    leave_step(app, who, id);
    let transfer = app.kms.cancel(id).await?;
    show(app, who.id, message, &transfer).await?;
    Ok(None)
}

/// `Renew`: the same again, at today's fee. What was sent is shown, never sent once more.
pub(crate) async fn renew(app: &App, who: &Person, message: MessageId, id: TransferId) -> Notice {
    if own(app, who, id).await?.is_none() {
        return Ok(Some(texts::STALE_BUTTON));
    }
    leave_step(app, who, id);
    let old = app.kms.cancel(id).await?;
    if !matches!(old.state, TransferState::Cancelled | TransferState::Expired) {
        show(app, who.id, message, &old).await?;
        return Ok(None);
    }
    let all = ClientRef::of(&old).is_some_and(|client_ref| client_ref.all);
    let decimals = old.token.as_ref().map_or(Wei::DECIMALS, |token| token.decimals);
    let amount = match old.value.to_decimal(decimals).parse::<Amount>() {
        _ if all => QuoteAmount::All,
        Ok(amount) => QuoteAmount::Exactly(amount),
        Err(_) => return Ok(Some(texts::STALE_BUTTON)),
    };
    let to = match old.to.username {
        Some(name) => Recipient::Username(name),
        None => Recipient::Address(old.to.address),
    };
    let asset = old.token.map_or(Asset::Native, |token| Asset::Token(token.symbol));
    quote_in(app, who, message, to, amount, asset).await?;
    Ok(None)
}

/// `Check`: how it stands.
pub(crate) async fn check(app: &App, who: &Person, message: MessageId, id: TransferId) -> Notice {
    let Some(transfer) = own(app, who, id).await? else { return Ok(Some(texts::STALE_BUTTON)) };
    show(app, who.id, message, &transfer).await?;
    Ok(Some(texts::UP_TO_DATE))
}

/// A step that waits for this transfer's password ends.
fn leave_step(app: &App, who: &Person, id: TransferId) {
    if let Some(Step::SendPassword { transfer, .. }) = app.steps.get(who.id)
        && transfer == id
    {
        app.steps.end(who.id);
    }
}

fn leave() -> Keyboard {
    Keyboard::row([(texts::CANCEL, Press::Leave)])
}
