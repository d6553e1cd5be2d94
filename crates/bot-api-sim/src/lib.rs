//! A small, strict Telegram Bot API server in this process, for the tests of `kms-bot` and for the
//! sandbox's two phones.
//!
//! It refuses what Telegram refuses, for instance HTML that does not parse, callback data over 64
//! bytes, an edit that changes nothing, a message to a user who never started the bot, and more
//! messages than the rate limits allow. Methods and parameters that it does not simulate are
//! refused too: it must never accept more than Telegram does.
//!
//! It fails as Telegram fails, on a test's order: see [`Fault`].
//!
//! [`MiniApps`] signs the openings of Mini Apps with a key pair of its own.
//!
//! A bot connects to [`Sim::api_url`]. Users act through a [`Person`]; a [`Phone`] also waits for
//! the bot's answers and writes the chat down as a transcript.

#![expect(clippy::indexing_slicing, reason = "setting a field of a JSON object never panics")]

mod entities;
mod form;
mod html;
mod limits;
mod message;
mod methods;
mod mini_apps;
mod person;
mod phone;
mod refusal;
mod server;
mod shared;
mod state;

pub use html::{Formatted, parse_html};
pub use limits::Limits;
pub use message::{Button, ButtonKind, Message};
pub use mini_apps::{MiniApps, Opening};
pub use person::content::Attachment;
pub use person::{Person, SimError};
pub use phone::{Phone, Unheard};
pub use server::Sim;
pub use state::{Change, Fault};
