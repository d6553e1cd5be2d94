//! API tokens as any caller may send them.
#![no_main]

use kms_core::{PlainToken, PlainTokenError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match text.parse::<PlainToken>() {
    Ok(token) => {
        assert_eq!(token.expose(), text, "one token, one text");
        assert_eq!(text.len(), 68);
        assert_eq!(format!("{token:?}"), "PlainToken(..)");
        assert_eq!(token.hash(), text.parse::<PlainToken>().unwrap().hash());
    }
    Err(PlainTokenError) => {}
});
