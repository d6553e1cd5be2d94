//! The Telegram bot of the wallet KMS: the chat in front of `kms-server`.
//!
//! The bot holds no key and no database credentials, and no password beyond the update that carried
//! it. It requests everything from the server, through `kms-client`. It must never log what users
//! write, and never ask for a secret outside a private chat.
//!
//! From top to bottom; each module uses only those below it:
//!
//! - `bot`: polls Telegram, follows the server's events.
//! - `handler` and `delivery`: each update and each event once, and to an end.
//! - `router` and `notices`: from an update, or an event, to a flow.
//! - `flows`: the conversations, each whole in one file.
//! - `page`: what belongs on the vault page rather than in the chat.
//! - `flow`, `context`: the parts of a flow, and the context of its handlers.
//! - `journal`: what survives a restart.
//! - `answered`: events that an answer has reported already.
//! - `texts`: Fluent messages, rendered and escaped in one place.
//! - `chat`: Telegram, independent of wallets.

mod answered;
mod assets;
mod bot;
mod cached;
mod chat;
pub mod cli;
mod clock;
pub mod config;
mod context;
mod delivery;
mod dialogue;
mod flow;
mod flows;
mod format;
mod handler;
mod input;
mod journal;
mod network;
mod notices;
mod ops;
mod page;
mod password_input;
mod problems;
mod requests;
mod router;
mod texts;
mod traces;
mod usernames;

pub use bot::{Bot, StartError};
