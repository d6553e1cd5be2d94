//! The chain and the transfer engine against a real node and a real store. Faults are caused by the
//! node itself, or by a stub in place of an endpoint that misbehaves.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod agreement;
mod backfill;
mod balances;
mod chain;
mod confirm;
mod data_fees;
mod endpoint;
mod failover;
mod finality;
mod follower;
mod forks;
mod ladder;
mod nonce;
mod odd_tokens;
mod probe;
mod quote;
mod rate_limits;
mod refusals;
mod requests;
mod settlement;
mod stub;
mod tokens;
mod unclear;
mod watch;
mod way_out;
mod world;
