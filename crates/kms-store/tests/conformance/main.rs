//! Every store passes the same functions: SQLite in memory and in a file, PostgreSQL, MongoDB.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod accounts;
mod audit;
mod fixtures;
mod history;
mod incoming;
mod ladder;
mod limits;
mod recoveries;
mod scks;
mod server;
mod tokens;
mod transfers;
mod unreferenced;
