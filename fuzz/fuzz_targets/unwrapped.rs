//! What a KMS key unwraps: anybody can encrypt to a public key.
#![no_main]

use kms_core::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|plaintext: &[u8]| {
    let taken = fuzzing::is_taken_as_unwrapped(plaintext);
    assert_eq!(taken, fuzzing::is_that_of_the_owner(plaintext), "FORMAT.md, wrapped SCK");
});
