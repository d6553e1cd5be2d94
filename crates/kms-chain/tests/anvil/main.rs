//! The chain and the engine against a real node and a real store; faults are made by the node
//! itself, or by a stand-in for an endpoint that misbehaves.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which stop at what they do not expect")]

mod chain;
mod confirm;
mod endpoint;
mod failover;
mod follower;
mod ladder;
mod nonce;
mod quote;
mod stub;
mod tokens;
mod unclear;
mod watch;
mod world;
