//! What the HTTP server, people and tests share: the state, and a counter of its changes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::message::Message;
use crate::state::{Change, State};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) token: String,
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

impl Shared {
    pub(crate) fn new(token: &str) -> Self {
        Self { token: token.to_owned(), state: Mutex::default(), version: watch::Sender::new(0) }
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
