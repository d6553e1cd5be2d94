//! Passwords between the message that carried them and their hash.

use std::fmt;

use kms_client::hash_password;
use kms_types::{PasswordHash, TelegramId};
use zeroize::Zeroizing;
use zxcvbn::{Score, zxcvbn};

use crate::texts::{Html, html};

/// The fewest and the most characters of a new password.
const MIN_LENGTH: usize = 10;
const MAX_LENGTH: usize = 128;

/// A password as the user typed it. Zeroized when dropped; `Debug` shows nothing.
pub(crate) struct Password(Zeroizing<String>);

/// Why a new password is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WeakPassword {
    /// Fewer than ten characters.
    Short,
    /// More than 128 characters.
    Long,
    /// Easy to guess.
    Guessable,
}

impl WeakPassword {
    /// What the user should choose instead.
    pub(crate) fn message(self) -> Html {
        match self {
            Self::Short => html!("password-too-short"),
            Self::Long => html!("password-too-long"),
            Self::Guessable => html!("password-guessable"),
        }
    }
}

impl Password {
    pub(crate) fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// Splits the text into the current and the new password, each on a line of its own.
    pub(crate) fn current_and_new(self) -> Option<(Self, Self)> {
        let (current, new) = self.0.trim().split_once('\n')?;
        let (current, new) = (current.trim(), new.trim());
        let line = |text: &str| Self(Zeroizing::new(text.to_owned()));
        if current.is_empty() || new.is_empty() || new.contains('\n') {
            return None;
        }
        Some((line(current), line(new)))
    }

    /// Checks the strength of a new password: its length, and a zxcvbn score of at least 3 against
    /// an attacker who knows the user's names.
    pub(crate) fn check(&self, names: &[&str]) -> Result<(), WeakPassword> {
        match self.0.chars().count() {
            ..MIN_LENGTH => Err(WeakPassword::Short),
            MIN_LENGTH..=MAX_LENGTH if zxcvbn(&self.0, names).score() >= Score::Three => Ok(()),
            MIN_LENGTH..=MAX_LENGTH => Err(WeakPassword::Guessable),
            _ => Err(WeakPassword::Long),
        }
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// Derives the password hash that the server expects, and zeroizes the password.
    pub(crate) async fn hash(self, user: TelegramId) -> PasswordHash {
        hash_password(user, &self.0).await
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::new(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", password("hunter2")), "Password(..)");
    }

    #[test]
    fn weak_passwords_are_refused_with_a_reason() {
        assert_eq!(password("hunter2").check(&[]), Err(WeakPassword::Short));
        assert_eq!(password("password123").check(&[]), Err(WeakPassword::Guessable));
        assert_eq!(password("1234567890").check(&[]), Err(WeakPassword::Guessable));
        assert_eq!(password("annabelle99").check(&["annabelle99"]), Err(WeakPassword::Guessable));
        assert_eq!(password(&"äö".repeat(100)).check(&[]), Err(WeakPassword::Long));
        assert_eq!(password("correct horse battery").check(&[]), Ok(()));
        assert_eq!(password("пароль от кошелька").check(&[]), Ok(()));
    }

    #[test]
    fn a_password_change_requires_two_lines() {
        let lines = |text: &str| {
            password(text)
                .current_and_new()
                .map(|(current, new)| (current.0.to_string(), new.0.to_string()))
        };
        assert_eq!(lines("old one\nnew one"), Some(("old one".into(), "new one".into())));
        assert_eq!(lines(" old one \r\n new one\n"), Some(("old one".into(), "new one".into())));
        assert_eq!(lines("a\n\nb"), Some(("a".into(), "b".into())));
        for bad in ["", "old", "old\n", "\nnew", "a\nb\nc"] {
            assert_eq!(lines(bad), None, "{bad:?}");
        }
    }
}
