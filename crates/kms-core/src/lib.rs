//! Custody: the only place where a plaintext wallet key exists.
//!
//! A wallet's private key is sealed under a key (SCK) derived from the owner's password; the SCK
//! is wrapped for the KMS's own key, so that a forgotten password can be replaced. [`Custody`]
//! is the service; the modules below it are its parts, each specified to the byte in
//! `FORMAT.md`.
//!
//! `examples/wallet.rs` makes, opens and recovers a wallet in some sixty lines.
//!
//! This crate must never do HTTP or SQL: it reaches stores through the traits of [`ports`]. Feature
//! `aws-kms` reaches a KMS key through AWS' own library.

pub mod account;
pub mod audit;
#[cfg(feature = "aws-kms")]
mod aws_key;
mod custody;
pub mod failpoint;
#[cfg(fuzzing)]
pub mod fuzzing;
mod integrity;
mod kdf;
mod kdf_pool;
mod keystore;
mod local_key;
mod master_key;
pub mod ports;
mod private_key;
mod random;
pub mod recovery;
mod sck;
mod seal;
mod server_keys;
mod stack;
#[cfg(test)]
mod vectors;
mod wrap;

#[cfg(feature = "aws-kms")]
pub use aws_key::{AwsKeyError, AwsMasterKey, aws_from_environment};
pub use custody::{CanaryError, CreateWallet, Created, Custody, CustodyError, Ports, Rewrapped};
pub use integrity::{AlarmContext, integrity_alarm};
pub use kdf::{KdfParams, KdfParamsError, Salt};
pub use kdf_pool::{KdfPool, Place, PoolError};
pub use keystore::ExportedKey;
pub use local_key::{LocalKeyError, LocalMasterKey};
pub use master_key::{KeyRing, KeyRingError, MasterKey, MasterKeyError, MasterKeyId};
pub use private_key::{HashSignature, OpenWallet};
pub use seal::{SealError, Sealer};
pub use server_keys::{
    RowMac, RowMacError, RowMacFormat, ServerKey, ServerKeyError, ServerKeyId, ServerKeySet,
    ServerKeys,
};
