//! The context of every handler: Telegram, the server, and the step that a user is asked for.

use std::any::Any;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use kms_client::{Client, ClientError};
use kms_types::wire::{Account, Transfer};
use kms_types::{EventKind, TelegramId, Timestamp, TransferId};
use teloxide_core::types::MessageId;
use zeroize::Zeroizing;

use crate::answered::{AnsweredAlbums, AnsweredEvents};
use crate::chat::deletions::Deletions;
use crate::chat::incoming::{Content, TypedText, User};
use crate::chat::keyboard::Keyboard;
use crate::chat::telegram::{Telegram, TelegramError};
use crate::clock;
use crate::dialogue::Dialogues;
use crate::journal::reports::{PaymentMessage, Report, Sending};
use crate::journal::{Asked, Journal, Working};
use crate::network::NetworkCache;
use crate::password_input::Password;
use crate::texts::{Html, html};
use crate::traces::Traces;
use crate::usernames::UsernameReports;

/// A question is open for this long, in milliseconds. After a restart it is asked again if it was
/// open when the bot stopped.
pub(crate) const QUESTION_LIFETIME: i64 = 15 * 60 * 1_000;

/// What is done later for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Later {
    /// An answer is sent.
    Answer,
    /// What was missed is reported.
    Missed,
    /// All unfinished work is finished.
    Work,
    /// The chat is resumed after a restart.
    Resume,
}

/// The parts of a running bot.
pub(crate) struct Context {
    pub(crate) telegram: Arc<Telegram>,
    pub(crate) deletions: Deletions,
    pub(crate) kms: Client,
    pub(crate) network: NetworkCache,
    pub(crate) usernames: UsernameReports,
    pub(crate) journal: Arc<Journal>,
    pub(crate) traces: Traces,
    pub(crate) albums: AnsweredAlbums,
    answered: AnsweredEvents,
    /// The bot's own username, without `@`.
    pub(crate) bot_username: String,
    dialogues: Dialogues<dyn Step>,
    /// What is repeated until it succeeds.
    later: Mutex<HashSet<(TelegramId, Later)>>,
}

/// Why a handler stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandlerError {
    #[error(transparent)]
    Kms(#[from] ClientError),
    #[error(transparent)]
    Telegram(#[from] TelegramError),
    /// A message that shows that the bot is working says that the outcome is unknown. It is shown
    /// there later.
    #[error("the outcome is not known yet")]
    Unfinished,
}

pub(crate) type HandlerResult = Result<(), HandlerError>;

/// How secret the answer to a step is. The router acts on it before any code reads the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrecy {
    /// A password. Its message is deleted first, and it is not used if that fails. For an hour
    /// afterwards any stray text may be a password and is deleted too.
    Password,
    /// A one-time code. Its message is deleted first.
    Code,
    /// Nothing: the user acts on the vault page. A text that may be a password is deleted.
    OnPage,
    /// Not a secret. Its message stays, unless it does not look like an answer to the step and a
    /// password was asked for recently.
    Public,
}

/// A question that the user's next text answers. It belongs to the flow that asks it.
#[async_trait]
pub(crate) trait Step: Any + Send + Sync {
    /// Decides what happens to the message with the answer before anything reads it.
    fn secrecy(&self) -> Secrecy;

    /// Reports whether a text looks like an answer. Asked of [`Secrecy::Public`] steps only.
    fn is_answer(&self, _text: &str) -> bool {
        true
    }

    /// What the user is asked for, in one sentence.
    fn wanted(&self) -> Html;

    /// Handles a message that is no typed text, such as a shared contact. Reports whether it was an
    /// answer; if not, the user is asked again for what is wanted.
    async fn receive(
        &self,
        _context: &Context,
        _user: &User,
        _content: &Content,
    ) -> Result<bool, HandlerError> {
        Ok(false)
    }

    /// The callback data, or the command, that asks the same again after a restart. No secret.
    fn resume(&self) -> String;

    /// The message that the callback data edits.
    fn message(&self) -> Option<MessageId> {
        None
    }

    /// Handles the answer. The step continues until the handler ends it.
    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult;

    /// Cleans up when the user does something else instead of answering.
    async fn abandon(&self, _context: &Context, _user: &User) -> HandlerResult {
        Ok(())
    }

    /// Cleans up when the user cancels the step with `/cancel`. Reports whether the user was shown
    /// that it was cancelled.
    async fn cancel(&self, _context: &Context, _user: &User) -> Result<bool, HandlerError> {
        Ok(false)
    }
}

/// The text that answers a step.
#[derive(Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) user: &'a User,
    pub(crate) at: Timestamp,
    /// May be a password.
    pub(crate) text: &'a str,
    /// The same text without invisible characters, and with a link in place of each mention of a
    /// person without a username.
    pub(crate) words: &'a str,
    /// Whether the app took formatting marks out of the text.
    pub(crate) formatted: bool,
}

impl<'a> Answer<'a> {
    pub(crate) fn new(user: &'a User, at: Timestamp, text: &'a TypedText) -> Self {
        let TypedText { plain, words, formatted } = text;
        Self { user, at, text: plain, words, formatted: *formatted }
    }

    /// The answer as a password, without white space at its ends.
    pub(crate) fn password(&self) -> Password {
        Password::new(Zeroizing::new(self.text.trim().to_owned()), self.formatted)
    }
}

impl Context {
    pub(crate) fn new(
        telegram: Arc<Telegram>,
        kms: Client,
        journal: Journal,
        bot_username: String,
    ) -> Self {
        telegram.reach_message(MessageId(journal.last_message()));
        let dialogues = Dialogues::default();
        for (user, at) in journal.passwords_asked() {
            dialogues.restore_password_window(user, at);
        }
        let journal = Arc::new(journal);
        Self {
            deletions: Deletions::new(Arc::clone(&telegram), Arc::clone(&journal)),
            telegram,
            network: NetworkCache::new(kms.clone()),
            usernames: UsernameReports::new(kms.clone()),
            kms,
            journal,
            traces: Traces::default(),
            albums: AnsweredAlbums::default(),
            answered: AnsweredEvents::default(),
            bot_username,
            dialogues,
            later: Mutex::default(),
        }
    }

    /// Records that something is repeated until it succeeds; `false` if it is already.
    pub(crate) fn begin_later(&self, kind: (TelegramId, Later)) -> bool {
        self.later.lock().unwrap_or_else(PoisonError::into_inner).insert(kind)
    }

    /// Records that something is no longer repeated.
    pub(crate) fn end_later(&self, kind: (TelegramId, Later)) {
        self.later.lock().unwrap_or_else(PoisonError::into_inner).remove(&kind);
    }

    /// Sends a message without buttons.
    pub(crate) async fn send(&self, to: TelegramId, message: Html) -> HandlerResult {
        self.telegram.send(to, &message, Keyboard::none()).await?;
        Ok(())
    }

    /// Sends paragraphs in as few messages as they fit into, with the keyboard below the last one.
    pub(crate) async fn send_paragraphs(
        &self,
        to: TelegramId,
        parts: Vec<Html>,
        keyboard: Keyboard,
    ) -> HandlerResult {
        let mut messages = Html::messages(parts).into_iter().peekable();
        while let Some(message) = messages.next() {
            match messages.peek() {
                Some(_) => self.send(to, message).await?,
                None => drop(self.telegram.send(to, &message, keyboard.clone()).await?),
            }
        }
        Ok(())
    }

    /// Fetches the user's account, or replies that the user has none.
    pub(crate) async fn account(&self, user: &User) -> Result<Option<Account>, HandlerError> {
        let account = self.kms.account(user.id.into()).await?;
        if account.is_none() {
            self.send(user.id, html!("no-wallet")).await?;
        }
        Ok(account)
    }

    /// Waits for the user's answer to a step.
    pub(crate) fn expect(&self, user: TelegramId, step: impl Step) {
        let (secrecy, at) = (step.secrecy(), clock::now());
        let asked = Asked {
            at,
            secret: secrecy == Secrecy::Password,
            resume: step.resume(),
            message: step.message().map(|message| message.0),
        };
        let may_be_typed = matches!(secrecy, Secrecy::Password | Secrecy::OnPage);
        self.journal.change(user, |chat| {
            if may_be_typed {
                chat.password_asked = Some(at);
            }
            chat.asked = Some(asked);
        });
        self.dialogues.begin(user, Arc::new(step), may_be_typed, at);
    }

    /// Sends a message that reports a payment or events, once: should the bot be killed before it
    /// knows that the message arrived, [`Self::settle_report`] finds out.
    pub(crate) async fn report(
        &self,
        user: TelegramId,
        report: Report,
        message: &Html,
        keyboard: Keyboard,
    ) -> Result<MessageId, TelegramError> {
        let earlier = self.journal.begin_report(user, report, self.telegram.last_message().0);
        let sent = self.telegram.send(user, message, keyboard).await;
        match &sent {
            Ok(MessageId(sent)) => {
                self.journal.end_report(user, Some(*sent));
                if let Some(after) = earlier {
                    let (after, sent) = (MessageId(after), MessageId(*sent));
                    self.telegram.delete_interrupted(user, after, sent).await;
                }
            }
            // It may have arrived.
            Err(TelegramError::Unreachable(_)) => {}
            Err(_refused) => self.journal.end_report(user, None),
        }
        sent
    }

    /// Finds out whether a message arrived whose sending was interrupted.
    pub(crate) async fn settle_report(&self, user: TelegramId) -> Result<(), TelegramError> {
        let sending = self.journal.chat(user).sending;
        if let Some(Sending { after, missing: false, .. }) = sending {
            self.telegram.earlier_calls().await;
            match self.telegram.find_sent(user, MessageId(after)).await? {
                Some(MessageId(sent)) => self.journal.end_report(user, Some(sent)),
                None => self.journal.miss_report(user),
            }
        }
        Ok(())
    }

    /// Shows the state of a payment in its message, or in a new one if that no longer exists. The
    /// new one is remembered: one message shows how a payment ended.
    pub(crate) async fn show_payment(
        &self,
        user: TelegramId,
        message: MessageId,
        transfer: &Transfer,
        text: &Html,
        keyboard: Keyboard,
    ) -> HandlerResult {
        let Transfer { id, state, .. } = *transfer;
        let shown = message.0;
        let edited = self.telegram.edit(user, message, text, keyboard.clone()).await;
        if let Err(TelegramError::Refused(_)) = edited {
            let new = self.report(user, Report::Payment(id, state), text, keyboard).await?;
            self.telegram.replace(user, message, new);
            return Ok(());
        }
        edited?;
        self.journal.change(user, |chat| {
            let new = PaymentMessage { transfer: id, message: Some(shown), state, reopened: false };
            let known = chat.payment(id).unwrap_or(new);
            chat.remember_payment(PaymentMessage { state, ..known });
        });
        Ok(())
    }

    /// Shows a payment in the message whose button was pressed from now on. Another message that
    /// shows it is deleted: one message shows how a payment ended.
    pub(crate) async fn take_payment_to(
        &self,
        user: TelegramId,
        transfer: TransferId,
        pressed: MessageId,
    ) -> HandlerResult {
        let Some(known) = self.journal.chat(user).payment(transfer) else { return Ok(()) };
        let Some(other) = known.message.filter(|other| *other != pressed.0) else { return Ok(()) };
        self.telegram.delete(user, MessageId(other)).await?;
        self.journal.change(user, |chat| {
            chat.remember_payment(PaymentMessage { message: Some(pressed.0), ..known });
        });
        Ok(())
    }

    /// Sends a message that shows that the bot is working. `resume` is the callback data that shows
    /// how the work ended, should the bot be interrupted.
    pub(crate) async fn working(
        &self,
        user: TelegramId,
        message: &Html,
        resume: String,
    ) -> Result<MessageId, HandlerError> {
        let after = self.telegram.last_message().0;
        self.journal.change(user, |chat| {
            chat.working.push(Working { message: None, after, resume });
        });
        let sent = self.telegram.send(user, message, Keyboard::none()).await?;
        self.journal.change(user, |chat| {
            // The user's jobs run one after another: it is still the last one.
            if let Some(working) = chat.working.last_mut() {
                working.message = Some(sent.0);
            }
        });
        Ok(sent)
    }

    /// Records that a message is about to show that the bot is working.
    pub(crate) fn works_in(&self, user: TelegramId, message: MessageId, resume: String) {
        let working = Working { message: Some(message.0), after: 0, resume };
        self.journal.change(user, |chat| chat.working.push(working));
    }

    /// Returns the step that the user's next text answers.
    pub(crate) fn step(&self, user: TelegramId) -> Option<Arc<dyn Step>> {
        self.dialogues.current(user)
    }

    /// When the question was asked that the user's next text answers.
    pub(crate) fn question(&self, user: TelegramId) -> Option<Timestamp> {
        self.journal.chat(user).asked.map(|asked| asked.at)
    }

    /// Ends the user's step and returns it.
    pub(crate) fn end_step(&self, user: TelegramId) -> Option<Arc<dyn Step>> {
        self.journal.change(user, |chat| chat.asked.take());
        self.dialogues.end(user, clock::now())
    }

    /// Ends the user's step if it is an `S` that matches. Reports whether it did.
    pub(crate) fn end_step_if<S: Step>(
        &self,
        user: TelegramId,
        matches: impl Fn(&S) -> bool,
    ) -> bool {
        self.waits_for(user, matches) && self.end_step(user).is_some()
    }

    /// Whether the user's step is an `S` that matches.
    pub(crate) fn waits_for<S: Step>(
        &self,
        user: TelegramId,
        matches: impl Fn(&S) -> bool,
    ) -> bool {
        let step = self.dialogues.current(user);
        let step = step.as_deref().and_then(|step| (step as &dyn Any).downcast_ref());
        step.is_some_and(matches)
    }

    /// Ends the user's step because the user does something else. While the message that asks
    /// cannot be changed, the step continues: its message still asks for the answer.
    pub(crate) async fn abandon_step(&self, user: &User) -> HandlerResult {
        if let Some(step) = self.step(user.id)
            && let Err(error) = step.abandon(self, user).await
        {
            let still_asks = match &error {
                HandlerError::Telegram(failure) => failure.is_temporary(),
                HandlerError::Kms(_) | HandlerError::Unfinished => true,
            };
            if still_asks {
                return Err(error);
            }
            tracing::warn!(%error, event = "step_cleanup_failed", "abandoned step not cleaned up");
        }
        self.end_step(user.id);
        Ok(())
    }

    /// Records that the user was shown an answer that says what an event of this kind reports.
    pub(crate) fn record_answered(&self, user: TelegramId, kind: EventKind) {
        self.answered.record(user, kind, clock::now());
    }

    /// Reports whether an answer stands for an event of this kind, once for each answer.
    pub(crate) fn take_answered(&self, user: TelegramId, kind: EventKind) -> bool {
        self.answered.take(user, kind, clock::now())
    }

    /// Reports whether a text that the user wrote at that time is taken for a password.
    pub(crate) fn awaits_password(&self, user: TelegramId, at: Timestamp) -> bool {
        match self.step(user) {
            Some(step) => step.secrecy() == Secrecy::Password,
            // A question from before a restart, which is asked again.
            None => self.journal.chat(user).asked.is_some_and(|asked| {
                asked.secret && at.0.saturating_sub(asked.at.0) < QUESTION_LIFETIME
            }),
        }
    }

    /// Takes the user's texts for possible passwords from now on: what the bot asked for before a
    /// restart is not known.
    pub(crate) fn open_password_window(&self, user: TelegramId) {
        let now = clock::now();
        self.journal.change(user, |chat| chat.password_asked = Some(now));
        self.dialogues.restore_password_window(user, now);
    }

    /// Reports whether a text that this user wrote at that time may be a password.
    pub(crate) fn may_receive_password(&self, user: TelegramId, at: Timestamp) -> bool {
        self.dialogues.may_receive_password(user, at)
    }
}
