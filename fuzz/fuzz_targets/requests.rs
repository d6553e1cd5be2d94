//! The bodies of all requests. The first byte selects the request.
#![no_main]

use kms_types::wire::{
    ChangeEmail, ChangeMobile, ChangePassword, CompleteRecovery, ConfirmCode, ConfirmTransfer,
    CreateAccount, ExportKey, QuoteTransfer, RequestRecovery, SeenUsernames, SetLimit,
    SetLimitByPassword,
};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A parsed body survives a round trip through JSON.
fn round_trips<T: DeserializeOwned + Serialize>(body: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<T>(body) {
        let text = serde_json::to_string(&request).unwrap();
        let again: T = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((which, body)) = data.split_first() else { return };
    match which % 13 {
        0 => round_trips::<CreateAccount>(body),
        1 => round_trips::<ChangePassword>(body),
        2 => round_trips::<CompleteRecovery>(body),
        3 => round_trips::<SeenUsernames>(body),
        4 => round_trips::<QuoteTransfer>(body),
        5 => round_trips::<ConfirmTransfer>(body),
        6 => round_trips::<ExportKey>(body),
        7 => round_trips::<RequestRecovery>(body),
        8 => round_trips::<ConfirmCode>(body),
        9 => round_trips::<ChangeMobile>(body),
        10 => round_trips::<ChangeEmail>(body),
        11 => round_trips::<SetLimit>(body),
        _ => round_trips::<SetLimitByPassword>(body),
    }
});
