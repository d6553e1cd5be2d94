//! The bot's stories, written as chats: what users write, what the bot answers, which buttons are
//! pressed. They run the real bot, the real server and a real chain. Transcripts pin the wording in
//! snapshots; assertions are about facts.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod account;
mod buttons;
mod chains;
mod contacts;
mod floods;
mod freezing;
mod groups;
mod killed;
mod late;
mod losses;
mod memory;
mod moves;
mod names;
mod notices;
mod onboarding;
mod operations;
mod outages;
mod page;
mod process;
mod reorganised;
mod resilience;
mod restarts;
mod secrets;
mod seeds;
mod sending;
mod slow;
mod supervision;
mod traps;
mod typed;
mod unasked;
mod waiting;
mod world;

use kms_sandbox::texts;
