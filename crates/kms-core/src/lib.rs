//! Custody: the only place where a plaintext wallet key exists.
//!
//! A wallet's private key is sealed under a key derived from the owner's password: the symmetric
//! cryptographic key (SCK), the wallet's key-encryption key. The SCK in turn is wrapped by the
//! KMS's own key, so that a forgotten password can be replaced. [`Custody`] is the service; the
//! other modules are its parts, and `FORMAT.md` specifies every byte that they store.
//!
//! `examples/wallet.rs` creates, opens and recovers a wallet in some sixty lines.
//!
//! This crate contains no HTTP, no SQL and no key provider. It reaches databases through the traits
//! of [`ports`], and the KMS key through [`MasterKey`], which the crates `kms-key-*` implement.

pub mod account;
mod api_token;
pub mod audit;
#[cfg(feature = "testing")]
pub mod conformance;
mod custody;
pub mod failpoint;
pub mod freeze;
#[cfg(fuzzing)]
pub mod fuzzing;
mod integrity;
mod kdf;
mod kdf_pool;
mod keystore;
pub mod launch;
mod master_key;
pub mod page_only;
pub mod ports;
mod private_key;
mod random;
pub mod recovery;
pub mod rescue;
mod sck;
mod seal;
mod server_keys;
mod stack;
#[cfg(test)]
mod test_account;
#[cfg(test)]
mod test_key;
#[cfg(test)]
mod vectors;
mod wrap;

pub use api_token::{HashedToken, HashedTokenError, PlainToken, PlainTokenError};
pub use custody::{
    CreateWallet, Created, Custody, CustodyError, Ports, ProbeError, ProposedMove, Rescue,
    Rewrapped,
};
pub use integrity::{AlarmContext, integrity_alarm};
pub use kdf::{KdfParams, KdfParamsError, Salt};
pub use kdf_pool::{KdfPermit, KdfPool, PoolError};
pub use keystore::ExportedKey;
pub use master_key::{KeyRing, KeyRingError, MasterKey, MasterKeyError, MasterKeyId};
pub use private_key::{HashSignature, OpenWallet};
pub use seal::{SealError, Sealer};
pub use server_keys::{
    RowMac, RowMacError, RowMacFormat, ServerKey, ServerKeyError, ServerKeyId, ServerKeyKind,
    ServerKeySet, ServerKeys,
};
pub use stack::with_wiped_stack;
