//! A password on its way from a message to its hash.

use std::fmt;

use kms_client::hash_password;
use kms_types::{PasswordHash, TelegramId};
use zeroize::Zeroizing;
use zxcvbn::{Score, zxcvbn};

const SHORTEST: usize = 10;
const LONGEST: usize = 128;

/// What somebody typed. Zeroized when dropped; `Debug` shows nothing.
pub(crate) struct Password(Zeroizing<String>);

/// Why a new password is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weak {
    /// Fewer than ten characters.
    Short,
    /// More characters than anybody types.
    Long,
    /// Easy to guess.
    Common,
}

impl Password {
    pub(crate) fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The old and the new one, each on a line of its own.
    pub(crate) fn old_and_new(self) -> Option<(Self, Self)> {
        let (old, new) = self.0.trim().split_once('\n')?;
        // As every other message with a password is.
        let (old, new) = (old.trim(), new.trim());
        let line = |text: &str| Self(Zeroizing::new(text.to_owned()));
        if old.is_empty() || new.is_empty() || new.contains('\n') {
            return None;
        }
        Some((line(old), line(new)))
    }

    /// Whether a new password is good enough: ten characters, and not easily guessed (zxcvbn's
    /// score 3) by somebody who knows the person's names.
    pub(crate) fn check(&self, names: &[&str]) -> Result<(), Weak> {
        match self.0.chars().count() {
            ..SHORTEST => Err(Weak::Short),
            SHORTEST..=LONGEST if zxcvbn(&self.0, names).score() >= Score::Three => Ok(()),
            SHORTEST..=LONGEST => Err(Weak::Common),
            _ => Err(Weak::Long),
        }
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// Stretched, as the server takes it. The password is gone afterwards.
    pub(crate) async fn hash(self, who: TelegramId) -> PasswordHash {
        hash_password(who, &self.0).await
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
    fn weak_passwords_are_told_apart() {
        assert_eq!(password("hunter2").check(&[]), Err(Weak::Short));
        assert_eq!(password("password123").check(&[]), Err(Weak::Common));
        assert_eq!(password("1234567890").check(&[]), Err(Weak::Common));
        assert_eq!(password("annabelle99").check(&["annabelle99"]), Err(Weak::Common));
        assert_eq!(password(&"äö".repeat(100)).check(&[]), Err(Weak::Long));
        assert_eq!(password("correct horse battery").check(&[]), Ok(()));
        assert_eq!(password("пароль от кошелька").check(&[]), Ok(()));
    }

    #[test]
    fn a_change_has_two_lines() {
        let lines = |text: &str| {
            password(text).old_and_new().map(|(old, new)| (old.0.to_string(), new.0.to_string()))
        };
        assert_eq!(lines("old one\nnew one"), Some(("old one".into(), "new one".into())));
        assert_eq!(lines(" old one \r\n new one\n"), Some(("old one".into(), "new one".into())));
        assert_eq!(lines("a\n\nb"), Some(("a".into(), "b".into())));
        for bad in ["", "old", "old\n", "\nnew", "a\nb\nc"] {
            assert_eq!(lines(bad), None, "{bad:?}");
        }
    }
}
