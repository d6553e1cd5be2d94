//! Sealed private keys, contacts and transactions from a database that an attacker may write.
#![no_main]

use std::sync::{Arc, LazyLock};

use kms_core::{Sealer, ServerKeys, fuzzing};
use kms_types::{AccountId, TransferId};
use libfuzzer_sys::fuzz_target;

static SEALER: LazyLock<Sealer> = LazyLock::new(|| Sealer::new(Arc::new(ServerKeys::random())));

fuzz_target!(|blob: &[u8]| {
    assert!(SEALER.open_contact(AccountId::random(), "email", blob).is_err());
    assert!(SEALER.open_transaction(TransferId::random(), "payment", blob).is_err());
    assert!(!fuzzing::opens_as_private_key(blob));
});
