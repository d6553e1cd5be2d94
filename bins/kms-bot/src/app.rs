//! What handlers work with, and the way of an update to its handler.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kms_client::{Client, ClientError};
use kms_types::wire::{Account, Network, SeenUsername};
use kms_types::{TelegramId, Username};
use teloxide_core::types::{ChatId, MessageId};
use zeroize::Zeroizing;

use crate::buttons::{Keyboard, Press};
use crate::command::{self, Assets, Command, Name, NoCommand};
use crate::incoming::{Incoming, Other, Person, Pressed, Said};
use crate::password::Password;
use crate::steps::{Step, Steps};
use crate::telegram::{Telegram, TelegramError};
use crate::{account, contact, history, limit, recovery, screen, send, texts, wallet};

/// After this long without an answer a person sees that the bot works.
const SHOW_WORK_AFTER: Duration = Duration::from_millis(700);
/// Telegram shows it for five seconds.
const SHOW_WORK_AGAIN: Duration = Duration::from_secs(4);
/// So many names are remembered as told to the server, for this long.
const NAMES: usize = 100_000;
const TOLD_FOR: Duration = Duration::from_secs(5 * 60);
/// So old may be what the server said of the network and its tokens; and only so old, if a text can
/// not be read: it may name a token that is new.
const NETWORK_FOR: Duration = Duration::from_secs(5 * 60);
const NETWORK_FOR_UNREAD: Duration = Duration::from_secs(10);

/// One bot's parts.
pub(crate) struct App {
    pub(crate) telegram: Telegram,
    pub(crate) kms: Client,
    pub(crate) steps: Steps,
    /// The bot's own username.
    pub(crate) username: String,
    /// What the server said, and when it was asked last.
    network: Mutex<Option<(Network, Instant)>>,
    /// The names that the server was told lately, so that it is not told at each message.
    told: Mutex<HashMap<TelegramId, (Instant, Option<Username>)>>,
}

/// Why a handler stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Kms(#[from] ClientError),
    #[error(transparent)]
    Telegram(#[from] TelegramError),
}

pub(crate) type Done = Result<(), Failure>;

impl App {
    pub(crate) fn new(telegram: Telegram, kms: Client, username: String) -> Self {
        Self {
            telegram,
            kms,
            username,
            steps: Steps::default(),
            network: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// The chain that money moves on, as the server told it lately.
    pub(crate) async fn network(&self) -> Result<Network, ClientError> {
        self.network_within(NETWORK_FOR).await
    }

    /// The same, for a text that could not be read.
    pub(crate) async fn newer_network(&self) -> Result<Network, ClientError> {
        self.network_within(NETWORK_FOR_UNREAD).await
    }

    /// The old one does as long as the server does not answer.
    async fn network_within(&self, age: Duration) -> Result<Network, ClientError> {
        let old = match &mut *self.lock_network() {
            None => None,
            Some((network, asked)) if asked.elapsed() < age => return Ok(network.clone()),
            Some((network, asked)) => {
                // One asks for all.
                *asked = Instant::now();
                Some(network.clone())
            }
        };
        match (self.ask_network().await, old) {
            (Err(error), Some(old)) => {
                tracing::warn!(%error, "the network could not be asked for anew");
                Ok(old)
            }
            (asked, _) => asked,
        }
    }

    /// The chain that money moves on: never another's name or symbol.
    pub(crate) async fn network_of(&self, chain_id: u64) -> Result<Network, ClientError> {
        if let Some(network) = self.known_network().filter(|known| known.chain_id == chain_id) {
            return Ok(network);
        }
        let network = self.ask_network().await?;
        if network.chain_id == chain_id {
            return Ok(network);
        }
        let (name, symbol) = (format!("chain {chain_id}"), "coins".to_owned());
        Ok(Network { name, chain_id, symbol, tokens: Vec::new(), explorer: None })
    }

    pub(crate) fn known_network(&self) -> Option<Network> {
        self.lock_network().as_ref().map(|(network, _)| network.clone())
    }

    async fn ask_network(&self) -> Result<Network, ClientError> {
        let network = self.kms.network().await?;
        *self.lock_network() = Some((network.clone(), Instant::now()));
        Ok(network)
    }

    fn lock_network(&self) -> MutexGuard<'_, Option<(Network, Instant)>> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account; its absence is told.
    pub(crate) async fn account(&self, who: &Person) -> Result<Option<Account>, Failure> {
        let account = self.kms.account(who.id.into()).await?;
        if account.is_none() {
            self.telegram.say(who.id, texts::NO_WALLET, Keyboard::none()).await?;
        }
        Ok(account)
    }

    /// Does what an update asks for, and tells the person if it can not be done.
    pub(crate) async fn handle(&self, incoming: Incoming) {
        let who = incoming.who().id;
        let work = async {
            match incoming {
                Incoming::Said(said) => self.said(said).await,
                Incoming::Other(other) => self.other(other).await,
                Incoming::Pressed(pressed) => self.pressed(pressed).await,
            }
        };
        let result = tokio::select! {
            result = work => result,
            never = self.show_work(who) => never,
        };
        let Err(failure) = result else { return };
        tracing::warn!(error = %failure, "an update could not be handled");
        if let Failure::Kms(error) = failure {
            let text = texts::failure(&error, self.known_network().as_ref());
            // Telegram was reachable a moment ago; if it is not now, the log has it.
            if let Err(error) = self.telegram.say(who, &text, Keyboard::none()).await {
                tracing::warn!(%error, "a failure could not be told");
            }
        }
    }

    async fn show_work<T>(&self, who: TelegramId) -> T {
        tokio::time::sleep(SHOW_WORK_AFTER).await;
        loop {
            self.telegram.typing(who).await;
            tokio::time::sleep(SHOW_WORK_AGAIN).await;
        }
    }

    async fn said(&self, said: Said) -> Done {
        // A token's name is not known before the server told it.
        let network = self.network().await.ok();
        let text = said.text.trim_start();
        let parse = |network: Option<&Network>| {
            let assets = Assets::of(network);
            text.starts_with('/').then(|| Command::parse(text, &self.username, assets))
        };
        let mut command = parse(network.as_ref());
        if let Some(Err(NoCommand::Send(_))) = command {
            command = parse(self.newer_network().await.ok().as_ref());
        }
        if let Some(group) = said.group {
            return match command {
                Some(Ok(command)) => self.invite(group, &command).await,
                _ => Ok(()),
            };
        }
        match command {
            None => self.answered(said).await,
            Some(Err(NoCommand::NotOurs | NoCommand::Unknown)) => {
                // A password that begins with a slash: refused, but it must not stay there.
                if self.steps.wanted_password(said.who.id) {
                    self.telegram.delete(said.who.id, said.message).await?;
                }
                let text = texts::UNKNOWN_COMMAND;
                self.telegram.say(said.who.id, text, Keyboard::none()).await?;
                Ok(())
            }
            Some(Err(NoCommand::Arguments(command))) => {
                // What stands behind `/password` may be one.
                self.telegram.delete(said.who.id, said.message).await?;
                self.obey(&said.who, command).await
            }
            Some(Err(NoCommand::Send(error))) => {
                let text = texts::can_not_read(&error);
                self.telegram.say(said.who.id, &text, Keyboard::none()).await?;
                Ok(())
            }
            Some(Ok(command)) => {
                self.tell_name(&said).await;
                self.obey(&said.who, command).await
            }
        }
    }

    async fn obey(&self, who: &Person, command: Command) -> Done {
        if let Command::Start { then: Some(Name::Cancel) } | Command::Plain(Name::Cancel) = command
        {
            return self.cancel(who).await;
        }
        self.leave_step(who).await;
        match command {
            Command::Start { then } => match self.kms.account(who.id.into()).await? {
                None => wallet::ask_new_password(self, who).await,
                Some(account) => match then {
                    None => wallet::show(self, who, &account).await,
                    Some(name) => self.command(who, name).await,
                },
            },
            Command::Plain(name) => self.command(who, name).await,
            Command::Send(args) => send::begin(self, who, args).await,
            Command::Limit { amount, asset } => limit::set(self, who, amount, asset).await,
        }
    }

    /// `/cancel`.
    async fn cancel(&self, who: &Person) -> Done {
        let text = match self.steps.end(who.id) {
            None => texts::NOTHING_TO_CANCEL,
            Some(Step::SendPassword { transfer, message, .. }) => {
                send::cancel(self, who, message, transfer).await?;
                texts::LEFT
            }
            Some(_) => texts::LEFT,
        };
        self.telegram.say(who.id, text, Keyboard::none()).await?;
        Ok(())
    }

    /// Ends the step that waits; a screen that asked for a password does not ask any more.
    pub(crate) async fn leave_step(&self, who: &Person) {
        if let Some(Step::SendPassword { transfer, shown, message }) = self.steps.end(who.id)
            && let Err(error) = screen::unask(self, who, message, transfer, &shown).await
        {
            tracing::warn!(%error, "a screen could not be taken back");
        }
    }

    /// An edit, a forward, a picture: never used, but it may show a password.
    async fn other(&self, other: Other) -> Done {
        let Other { who, message } = other;
        if !self.steps.wanted_password(who.id) {
            return Ok(());
        }
        self.telegram.delete(who.id, message).await?;
        self.telegram.say(who.id, texts::NOT_WRITTEN, Keyboard::none()).await?;
        Ok(())
    }

    async fn command(&self, who: &Person, name: Name) -> Done {
        match name {
            Name::Balance => wallet::balance(self, who).await,
            Name::Receive => wallet::receive(self, who).await,
            Name::Send => send::begin(self, who, <_>::default()).await,
            Name::History => history::show(self, who).await,
            Name::Limit => limit::show(self, who).await,
            Name::Password => account::ask_change(self, who).await,
            Name::Recover => recovery::show(self, who).await,
            Name::Contact => contact::show(self, who).await,
            Name::Cancel | Name::Help => {
                self.telegram.say(who.id, &texts::help(), Keyboard::none()).await?;
                Ok(())
            }
        }
    }

    /// A text that is no command: what was asked for, or nothing.
    async fn answered(&self, said: Said) -> Done {
        let who = &said.who;
        let Some(step) = self.steps.get(who.id) else {
            let text = if self.steps.wanted_password(who.id) {
                self.telegram.delete(who.id, said.message).await?;
                texts::UNASKED_DELETED
            } else {
                texts::UNASKED
            };
            self.telegram.say(who.id, text, Keyboard::none()).await?;
            return Ok(());
        };
        match step {
            Step::SendTo { amount, asset } => {
                self.delete_unless(&said, command::names_somebody(&said.text)).await?;
                send::answer_to(self, who, &said.text, amount, asset).await
            }
            Step::SendAmount { to, asset } => {
                self.delete_unless(&said, command::is_amount(said.text.trim())).await?;
                send::answer_amount(self, who, &said.text, to, asset).await
            }
            Step::NewPassword => match self.take_password(&said).await? {
                Some(password) => wallet::create(self, &said, password).await,
                None => Ok(()),
            },
            Step::SendPassword { transfer, shown, message } => {
                match self.take_password(&said).await? {
                    Some(password) => {
                        send::confirm(self, who, transfer, shown, message, password).await
                    }
                    None => Ok(()),
                }
            }
            Step::ChangePassword => match self.take_password(&said).await? {
                Some(passwords) => account::change(self, who, passwords).await,
                None => Ok(()),
            },
            Step::Recover { id } => match self.take_password(&said).await? {
                Some(password) => recovery::complete(self, who, id, password).await,
                None => Ok(()),
            },
            Step::RecoveryCode { id } => {
                self.telegram.delete(who.id, said.message).await?;
                recovery::confirm(self, who, id, &said.text).await
            }
            Step::EmailAddress => {
                self.delete_unless(&said, said.text.trim().parse::<kms_types::Email>().is_ok())
                    .await?;
                contact::answer_address(self, who, &said.text).await
            }
            Step::EmailPassword { email } => match self.take_password(&said).await? {
                Some(password) => contact::change(self, who, email, password).await,
                None => Ok(()),
            },
            Step::EmailCode => {
                self.telegram.delete(who.id, said.message).await?;
                contact::confirm(self, who, &said.text).await
            }
        }
    }

    /// Deletes an answer that does not look like what was asked for, if a password was wanted
    /// lately: it may be one.
    async fn delete_unless(&self, said: &Said, meant: bool) -> Done {
        if !meant && self.steps.wanted_password(said.who.id) {
            self.telegram.delete(said.who.id, said.message).await?;
        }
        Ok(())
    }

    /// Deletes the message first: a password that stays in a chat is not used.
    async fn take_password(&self, said: &Said) -> Result<Option<Password>, Failure> {
        match self.telegram.delete(said.who.id, said.message).await {
            Ok(()) => Ok(Some(Password::new(Zeroizing::new(said.text.trim().to_owned())))),
            Err(error) => {
                tracing::warn!(%error, "a message with a password could not be deleted");
                self.steps.end(said.who.id);
                self.telegram.say(said.who.id, texts::NOT_DELETED, Keyboard::none()).await?;
                Ok(None)
            }
        }
    }

    async fn pressed(&self, pressed: Pressed) -> Done {
        let Pressed { who, query, message, press } = pressed;
        let notice = match (message, press) {
            (None, _) => Some(texts::NOT_YOURS),
            (_, None) => Some(texts::STALE_BUTTON),
            (Some(message), Some(press)) => match self.press(&who, message, press).await {
                Ok(notice) => notice,
                Err(failure) => {
                    // The button stops waiting, whatever went wrong.
                    let _ = self.telegram.answer(query, None).await;
                    return Err(failure);
                }
            },
        };
        Ok(self.telegram.answer(query, notice).await?)
    }

    async fn press(
        &self,
        who: &Person,
        message: MessageId,
        press: Press,
    ) -> Result<Option<&'static str>, Failure> {
        match press {
            Press::Command(name) => {
                self.leave_step(who).await;
                self.command(who, name).await?;
            }
            Press::Refresh => {
                wallet::refresh(self, who, message).await?;
                return Ok(Some(texts::UP_TO_DATE));
            }
            Press::HowRecovery => {
                self.telegram.say(who.id, &texts::how_recovery(), Keyboard::none()).await?;
            }
            Press::Leave => {
                self.steps.end(who.id);
                self.telegram.edit(who.id, message, texts::LEFT, Keyboard::none()).await?;
            }
            Press::History(place) => history::turn(self, who, message, &place).await?,
            Press::Confirm { transfer, seen } => {
                return send::ask_password(self, who, message, transfer, seen, false).await;
            }
            Press::ConfirmMoved { transfer, seen } => {
                return send::ask_password(self, who, message, transfer, seen, true).await;
            }
            Press::Cancel(transfer) => return send::cancel(self, who, message, transfer).await,
            Press::Renew(transfer) => return send::renew(self, who, message, transfer).await,
            Press::RecoveryStart(id) => recovery::start(self, who, message, id).await?,
            Press::RecoverySet(id) => return recovery::ask_password(self, who, message, id).await,
            Press::RecoveryStop(id) => return recovery::stop(self, who, message, id).await,
            Press::Email => contact::ask_address(self, who, message).await?,
            Press::NoEmail => contact::ask_password(self, who, Some(message), None).await?,
            Press::Check(transfer) => return send::check(self, who, message, transfer).await,
        }
        Ok(None)
    }

    /// In a group nothing is asked and nothing is shown but the way to the private chat.
    async fn invite(&self, group: ChatId, command: &Command) -> Done {
        let payload = match command {
            Command::Start { then: None } => "start",
            Command::Start { then: Some(name) } | Command::Plain(name) => name.as_str(),
            Command::Send(_) => Name::Send.as_str(),
            Command::Limit { .. } => Name::Limit.as_str(),
        };
        let link = format!("https://t.me/{}?start={payload}", self.username);
        let keyboard = Keyboard::none().and_link(texts::PRIVATE_CHAT, &link);
        Ok(self.telegram.say_in_group(group, texts::GROUP, keyboard).await?)
    }

    /// Somebody else saw that this person's name changed: what they are called is news again.
    pub(crate) fn forget_name(&self, id: TelegramId) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Tells the server under which name its owner writes, when that is news. It only moves
    /// names, so its failure stops nothing.
    async fn tell_name(&self, said: &Said) {
        let Person { id, username, .. } = &said.who;
        let lock = || self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = match lock().get(id) {
            Some((since, told)) => told != username || since.elapsed() >= TOLD_FOR,
            None => true,
        };
        if !is_news {
            return;
        }
        let seen = SeenUsername { username: username.clone(), seen_at: said.at };
        if self.kms.seen_username((*id).into(), &seen).await.is_ok() {
            let mut told = lock();
            if told.len() >= NAMES {
                told.clear();
            }
            told.insert(*id, (Instant::now(), username.clone()));
        }
    }
}
