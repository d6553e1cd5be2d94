//! The text that Telegram signs for an opening of the vault page.
#![no_main]

use std::sync::LazyLock;

use kms_core::launch::{LaunchVerifier, TelegramKey};
use libfuzzer_sys::fuzz_target;

static VERIFIER: LazyLock<LaunchVerifier> = LazyLock::new(|| LaunchVerifier {
    key: TelegramKey::PRODUCTION,
    bots: vec![7_342_037_359.try_into().unwrap()],
});

fuzz_target!(|init_data: &str| {
    let published = include_str!("../seeds/launch/published");
    let known = VERIFIER.verify(published).unwrap();
    if let Ok(launch) = VERIFIER.verify(init_data) {
        assert_eq!(launch, known, "an opening was forged");
        assert_eq!(VERIFIER.verify_proof(&launch.proof), Ok(launch));
    }
});
