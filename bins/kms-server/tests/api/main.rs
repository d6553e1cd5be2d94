//! The API, tested against the real application, real databases and a real chain.

mod accounts;
mod bad_input;
mod canary;
mod crash;
mod harness;
mod outages;
mod process;
mod transfers;
