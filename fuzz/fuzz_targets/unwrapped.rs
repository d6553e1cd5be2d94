//! Plaintexts that a KMS key unwraps. They are untrusted: anyone can encrypt to a public key.
#![no_main]

use kms_core::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|plaintext: &[u8]| {
    let accepted = fuzzing::accepts_unwrapped_sck(plaintext);
    let expected = fuzzing::is_unwrapped_sck_by_format(plaintext);
    assert_eq!(accepted, expected, "FORMAT.md, Wrapped SCK");
});
