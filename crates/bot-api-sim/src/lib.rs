//! A small, strict Telegram Bot API server in this process: for the tests of `kms-bot`, and for
//! the sandbox's two phones.
//!
//! It refuses what Telegram refuses: HTML that does not parse, callback data over 64 bytes,
//! editing to the same text, writing to somebody who never started the bot. What it does not know
//! it refuses too; it must never accept more than Telegram does.
//!
//! A bot talks to [`Sim::api_url`]; people act through a [`Person`], and stories through a
//! [`Phone`].

#![expect(clippy::indexing_slicing, reason = "setting a field of a JSON object never panics")]

mod form;
mod html;
mod message;
mod methods;
mod people;
mod phone;
mod refusal;
mod server;
mod state;

pub use message::{Button, ButtonKind, Message};
pub use people::{Person, SimError};
pub use phone::{Phone, Unheard};
pub use server::{Fault, Sim};
pub use state::Change;
