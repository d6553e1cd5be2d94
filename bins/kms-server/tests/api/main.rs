//! The API, tested against the real application, real databases and a real chain.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod accounts;
mod attacks;
mod audit;
mod aws;
mod aws_roles;
mod bad_input;
mod brakes;
mod chains;
mod check_config;
mod checkpoints_s3;
mod clocks;
mod commands;
mod crash;
mod declared_tokens;
mod doors;
mod events;
mod exchanges;
mod fence;
mod freeze;
mod key_database;
mod keys;
mod limits;
mod memory;
mod moves;
mod operations;
mod operators;
mod other_chain;
mod outages;
mod page;
mod page_files;
mod page_only;
mod pause;
mod planted_secrets;
mod recoveries;
mod rescue;
mod restore;
mod roles;
mod rollbacks;
mod rotation;
mod runbooks;
mod server_keys;
mod slow;
mod statements;
mod stolen_token;
mod supervision;
mod thief;
mod tokens;
mod transfers;
mod transport;
mod upkeep;
mod way_out;
