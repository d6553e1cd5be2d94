//! Bearer tokens, as any caller may send them.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The file itself: the server around it brings databases and AWS along.
#[path = "../../bins/kms-server/src/token.rs"]
#[expect(dead_code, reason = "tokens are made elsewhere")]
mod token;

use token::BearerToken;

fuzz_target!(|text: &str| match text.parse::<BearerToken>() {
    Ok(token) => {
        assert_eq!(token.expose(), text, "one token, one text");
        assert_eq!(text.len(), 68);
        assert_eq!(format!("{token:?}"), "BearerToken(..)");
        assert_eq!(token.hash(), text.parse::<BearerToken>().unwrap().hash());
    }
    // One error for all: it can say nothing of the text.
    Err(token::BearerTokenError) => {}
});
