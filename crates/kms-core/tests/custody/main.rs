//! Tests of custody over SQLite in memory, and a second implementation of its formats.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod attacks;
mod export;
mod page_only;
mod recoveries;
mod repair;
mod second_implementation;
mod stories;
mod upkeep;
mod world;
