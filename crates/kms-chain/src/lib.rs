//! Money on an EVM chain: balances, fees, and transfers of the native coin that are sent exactly
//! once.
//!
//! Keys stay in `kms-core`; this crate asks an opened wallet for signatures. It must never
//! broadcast what is not committed, nor sign twice for one intent.

pub mod ports;
pub mod transfer;
