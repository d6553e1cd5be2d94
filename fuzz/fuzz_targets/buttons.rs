//! What comes back when a button is pressed, which whoever sees the message may forge.
#![no_main]

use kms_bot::fuzzing::read_back;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    if let Some(ours) = read_back(data) {
        assert_eq!(read_back(&ours), Some(ours.clone()), "what is read is what is written");
    }
});
