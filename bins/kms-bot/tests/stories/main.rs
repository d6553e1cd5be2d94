//! The bot's stories, as chats: who says what, what the bot answers, which button is pressed.
//! The real bot, the real server and a real chain; each story leaves its transcript.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod account;
mod canary;
mod onboarding;
mod outages;
mod sending;
mod traps;
mod world;
