//! The Telegram bot of the wallet KMS: the chat in front of `kms-server`.
//!
//! It holds no key and no database credentials, and no password beyond the update that carried
//! it. Everything it knows it asks the server, by `kms-client`. It must never log what people
//! write, and never ask for anything secret outside a private chat.

mod account;
mod app;
mod bot;
mod buttons;
pub mod cli;
mod clock;
mod command;
pub mod config;
mod contact;
mod history;
mod incoming;
mod lanes;
mod limit;
mod notices;
mod password;
mod qr;
mod recovery;
mod screen;
mod send;
mod steps;
mod telegram;
mod texts;
mod wallet;

pub use bot::{Bot, StartError};
