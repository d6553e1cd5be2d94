//! The chain and the engine against a real node and a real store; faults are made by the node
//! itself, or by a stand-in for an endpoint that misbehaves.

mod chain;
mod confirm;
mod endpoint;
mod quote;
mod stub;
mod watch;
mod world;
