//! The grammar of Telegram usernames.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A Telegram username without its `@`, shown as its owner writes it and compared without regard
/// to case.
///
/// Grammar: `[a-z](_?[a-z0-9])*`, 1 to 32 ASCII characters, in either case. Collectible names may
/// be shorter than the five characters that users may choose.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Username(String);

/// Why a text is not a username.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsernameError {
    /// Empty, but for the `@`.
    #[error("a username must not be empty")]
    Empty,
    /// More than 32 characters.
    #[error("a username has at most 32 characters")]
    TooLong,
    /// The first character is not a letter a to z.
    #[error("a username begins with a letter from a to z")]
    FirstCharacter,
    /// Something other than a letter, a digit or a single inner underscore.
    #[error("a username has only letters, digits and single underscores between them")]
    Character,
}

impl Username {
    /// Returns the name as its owner writes it, without `@`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name in lower case: the unique form, which stores compare.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl FromStr for Username {
    type Err = UsernameError;

    /// Strips one `@`. Nothing outside ASCII is folded into it: U+212A is not a `k`.
    fn from_str(text: &str) -> Result<Self, UsernameError> {
        let name = text.strip_prefix('@').unwrap_or(text);
        let mut characters = name.chars();
        match characters.next() {
            None => return Err(UsernameError::Empty),
            Some(first) if !first.is_ascii_alphabetic() => {
                return Err(UsernameError::FirstCharacter);
            }
            Some(_) => {}
        }
        let mut after_underscore = false;
        for character in characters {
            let underscore = character == '_';
            if !(character.is_ascii_alphanumeric() || (underscore && !after_underscore)) {
                return Err(UsernameError::Character);
            }
            after_underscore = underscore;
        }
        if after_underscore {
            return Err(UsernameError::Character);
        }
        if name.len() > 32 {
            return Err(UsernameError::TooLong);
        }
        Ok(Self(name.to_owned()))
    }
}

impl TryFrom<String> for Username {
    type Error = UsernameError;

    fn try_from(text: String) -> Result<Self, UsernameError> {
        text.parse()
    }
}

impl From<Username> for String {
    fn from(name: Username) -> String {
        name.0
    }
}

impl PartialEq for Username {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Username {}

impl Hash for Username {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical().hash(state);
    }
}

impl fmt::Display for Username {
    /// With its `@`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepts_telegram_usernames() {
        for good in ["a", "bob", "@Bob", "a_b", "A1_2b", &"x".repeat(32)] {
            assert!(good.parse::<Username>().is_ok(), "{good}");
        }
        assert_eq!("@BoB".parse::<Username>().unwrap().to_string(), "@BoB");
        assert_eq!("@BoB".parse::<Username>(), "bob".parse());
        assert_eq!("@BoB".parse::<Username>().unwrap().canonical(), "bob");
    }

    #[test]
    fn refuses_other_texts() {
        use UsernameError::{Character, Empty, FirstCharacter, TooLong};
        let long = "x".repeat(33);
        for (bad, why) in [
            ("", Empty),
            ("@", Empty),
            ("@@bob", FirstCharacter),
            ("1bob", FirstCharacter),
            ("_bob", FirstCharacter),
            ("bob_", Character),
            ("b__b", Character),
            ("b-b", Character),
            ("bob ", Character),
            ("bo\u{0}b", Character),
            ("bo\u{212a}", Character),
            ("\u{212a}bob", FirstCharacter),
            (long.as_str(), TooLong),
        ] {
            assert_eq!(bad.parse::<Username>(), Err(why), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn parsed_names_match_the_grammar(text in "\\PC{0,40}") {
            if let Ok(name) = text.parse::<Username>() {
                let canonical = name.canonical();
                prop_assert!(canonical.len() <= 32 && !canonical.contains("__"));
                let allowed = |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_');
                prop_assert!(canonical.bytes().all(allowed));
                prop_assert_eq!(name.to_string().parse::<Username>().unwrap(), name);
            }
        }

        #[test]
        fn every_name_of_the_grammar_parses(text in "[a-zA-Z](_?[a-zA-Z0-9]){0,15}") {
            let name: Username = text.parse().unwrap();
            prop_assert_eq!(name.as_str(), text);
        }
    }
}
