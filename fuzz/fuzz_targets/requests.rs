//! The bodies of all requests: the first byte says which.
#![no_main]

use kms_types::wire::{
    ChangeEmail, ChangeMobile, ChangePassword, CompleteRecovery, ConfirmCode, ConfirmTransfer,
    CreateAccount, ExportKey, QuoteTransfer, RequestRecovery, SeenUsername, SetLimit,
};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is read can be written and read again as the same.
fn stays<T: DeserializeOwned + Serialize>(body: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<T>(body) {
        let text = serde_json::to_string(&request).unwrap();
        let again: T = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((which, body)) = data.split_first() else { return };
    match which % 12 {
        0 => stays::<CreateAccount>(body),
        1 => stays::<ChangePassword>(body),
        2 => stays::<CompleteRecovery>(body),
        3 => stays::<SeenUsername>(body),
        4 => stays::<QuoteTransfer>(body),
        5 => stays::<ConfirmTransfer>(body),
        6 => stays::<ExportKey>(body),
        7 => stays::<RequestRecovery>(body),
        8 => stays::<ConfirmCode>(body),
        9 => stays::<ChangeMobile>(body),
        10 => stays::<ChangeEmail>(body),
        _ => stays::<SetLimit>(body),
    }
});
