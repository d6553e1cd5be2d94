//! What the HTTP server, people and tests share: the state, and a counter of its changes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::message::Message;
use crate::mini_apps::MiniApps;
use crate::state::{Change, State};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) token: String,
    /// The Mini Apps that BotFather has registered.
    apps: Mutex<MiniApps>,
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

impl Shared {
    pub(crate) fn new(token: &str, apps: MiniApps) -> Self {
        Self {
            token: token.to_owned(),
            apps: Mutex::new(apps),
            state: Mutex::default(),
            version: watch::Sender::new(0),
        }
    }

    /// The Mini Apps that BotFather has registered.
    pub(crate) fn apps(&self) -> MutexGuard<'_, MiniApps> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and notifies all watchers.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.notify();
        result
    }

    /// Notifies all watchers of a change.
    pub(crate) fn notify(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The messages of a chat as they are now.
    pub(crate) fn messages(&self, chat: i64) -> Vec<Message> {
        let state = self.lock();
        let chat = state.chats.get(&chat);
        chat.map(|chat| chat.messages.values().cloned().collect()).unwrap_or_default()
    }

    /// What has happened in a chat, in order.
    pub(crate) fn changes(&self, chat: i64) -> Vec<Change> {
        let state = self.lock();
        state.chats.get(&chat).map(|chat| chat.changes.clone()).unwrap_or_default()
    }
}
