//! Passwords between the message that carried them and their hash.

use std::fmt;

use kms_client::{fold_password, hash_password, is_rewritten, names_with_parts};
use kms_types::{Email, PasswordHash, TelegramId};
use zeroize::Zeroizing;
use zxcvbn::{Score, zxcvbn};

use crate::texts::{Html, html};

/// The fewest and the most characters of a new password.
const MIN_LENGTH: usize = 10;
const MAX_LENGTH: usize = 128;

/// The words of greetings, thanks and questions. A text of these alone is no password.
const SMALL_TALK: [&str; 96] = [
    "a",
    "again",
    "all",
    "am",
    "and",
    "any",
    "are",
    "at",
    "bot",
    "bye",
    "can",
    "cool",
    "day",
    "did",
    "do",
    "does",
    "done",
    "evening",
    "everything",
    "fine",
    "for",
    "get",
    "good",
    "goodbye",
    "got",
    "great",
    "have",
    "hello",
    "help",
    "here",
    "hey",
    "hi",
    "how",
    "i",
    "i'm",
    "in",
    "is",
    "it",
    "it's",
    "just",
    "know",
    "later",
    "lol",
    "lot",
    "many",
    "me",
    "money",
    "morning",
    "much",
    "my",
    "need",
    "nice",
    "night",
    "no",
    "nothing",
    "now",
    "of",
    "ok",
    "okay",
    "on",
    "one",
    "perfect",
    "please",
    "really",
    "see",
    "send",
    "so",
    "sorry",
    "super",
    "sure",
    "thank",
    "thanks",
    "that",
    "the",
    "there",
    "this",
    "to",
    "too",
    "very",
    "wait",
    "wallet",
    "want",
    "was",
    "well",
    "what",
    "what's",
    "when",
    "where",
    "why",
    "will",
    "with",
    "work",
    "working",
    "yes",
    "you",
    "your",
];

/// A password as the user typed it. Zeroized when dropped; `Debug` shows nothing.
pub(crate) struct Password {
    text: Zeroizing<String>,
    /// Whether the app took formatting marks out of it.
    formatted: bool,
}

/// Why a new password is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WeakPassword {
    /// Fewer than ten characters.
    Short,
    /// More than 128 characters.
    Long,
    /// Easy to guess.
    Guessable,
    /// Another app or device would make another text of it.
    Unstable,
    /// A greeting, thanks or a question. It would not be deleted where no password is asked for.
    SmallTalk,
}

impl WeakPassword {
    /// What the user should choose instead.
    pub(crate) fn message(self) -> Html {
        match self {
            Self::Short => html!("password-too-short"),
            Self::Long => html!("password-too-long"),
            Self::Guessable => html!("password-guessable"),
            Self::Unstable => html!("password-unstable"),
            Self::SmallTalk => html!("password-small-talk"),
        }
    }
}

impl Password {
    pub(crate) fn new(text: Zeroizing<String>, formatted: bool) -> Self {
        Self { text, formatted }
    }

    /// Splits the text into the current and the new password, each on a line of its own.
    pub(crate) fn current_and_new(self) -> Option<(Self, Self)> {
        let (current, new) = self.text.trim().split_once('\n')?;
        let (current, new) = (current.trim(), new.trim());
        let line = |text: &str| Self::new(Zeroizing::new(text.to_owned()), self.formatted);
        if current.is_empty() || new.is_empty() || new.contains('\n') {
            return None;
        }
        Some((line(current), line(new)))
    }

    /// Checks a new password: that every app makes the same text of it, its length, and a zxcvbn
    /// score of at least 3 against an attacker who knows the user's names. What is left of it
    /// without them needs that score too: zxcvbn counts the order of known words for much.
    pub(crate) fn check(&self, names: &[&str]) -> Result<(), WeakPassword> {
        if self.formatted || is_rewritten(&self.text) {
            return Err(WeakPassword::Unstable);
        }
        if is_small_talk(&self.text) {
            return Err(WeakPassword::SmallTalk);
        }
        let (text, names) = (fold_password(&self.text), names_with_parts(names));
        match text.chars().count() {
            ..MIN_LENGTH => Err(WeakPassword::Short),
            MIN_LENGTH..=MAX_LENGTH => {
                let is_strong = |text: &str| zxcvbn(text, &names).score() >= Score::Three;
                match is_strong(&text) && is_strong(&without_names(&text, &names)) {
                    true => Ok(()),
                    false => Err(WeakPassword::Guessable),
                }
            }
            _ => Err(WeakPassword::Long),
        }
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        *fold_password(&self.text) == *fold_password(&other.text)
    }

    /// Derives the password hash that the server expects, and zeroizes the password.
    pub(crate) async fn hash(self, user: TelegramId) -> PasswordHash {
        hash_password(user, &self.text).await
    }
}

/// A text in lower case without the names in it that have at least three letters.
fn without_names(text: &str, names: &[&str]) -> Zeroizing<String> {
    let mut rest = Zeroizing::new(text.to_lowercase());
    let mut names: Vec<_> = names.iter().map(|name| fold_password(&name.to_lowercase())).collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in names.iter().filter(|name| name.chars().count() >= 3) {
        rest = Zeroizing::new(rest.replace(name.as_str(), ""));
    }
    rest
}

/// Reports whether a text that nothing asked for may be a password, right or mistyped: it is as
/// long as one, and neither small talk nor an e-mail address.
pub(crate) fn may_be_password(text: &str) -> bool {
    let text = text.trim();
    text.chars().count() >= MIN_LENGTH && !is_small_talk(text) && text.parse::<Email>().is_err()
}

/// Reports whether a text has words, and all of them are those of [`SMALL_TALK`].
fn is_small_talk(text: &str) -> bool {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '\u{2019}');
    let mut words = words.filter(|word| !word.is_empty()).peekable();
    let small_talk =
        |word: &str| SMALL_TALK.contains(&word.to_lowercase().replace('\u{2019}', "'").as_str());
    words.peek().is_some() && words.all(small_talk)
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
        Password::new(Zeroizing::new(text.to_owned()), false)
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
    fn names_and_what_is_made_of_them_are_guessable() {
        let names = ["Annabelle", "Smithers", "username"];
        for text in ["annabelle smithers", "AnnabelleSmithers", "username2026", "smithers123!"] {
            assert_eq!(password(text).check(&names), Err(WeakPassword::Guessable), "{text}");
        }
        // A name's parts are names, too.
        for names in ["Anna Quillfeather", "anna_quillfeather", "Lee-Quillfeather"] {
            let text = password("quillfeather2026").check(&[names]);
            assert_eq!(text, Err(WeakPassword::Guessable), "{names}");
        }
    }

    #[test]
    fn what_an_app_would_rewrite_is_refused() {
        let rewritten = password("C:-) orange ladder sings").check(&[]);
        assert_eq!(rewritten, Err(WeakPassword::Unstable));
        let bold = Zeroizing::new("marble seven clouds".to_owned());
        assert_eq!(Password::new(bold, true).check(&[]), Err(WeakPassword::Unstable));
        assert_eq!(password("C:) orange ladder sings").check(&[]), Ok(()));
    }

    #[test]
    fn one_password_is_the_same_from_every_keyboard() {
        assert!(password("don't stop -- ever").is(&password("don\u{2019}t stop \u{2014} ever")));
        assert!(!password("don't stop").is(&password("dont stop")));
    }

    #[test]
    fn a_greeting_is_no_password() {
        for text in [
            "hello",
            "thank you!",
            "Good morning!",
            "what is this?",
            "",
            "Thanks a lot :)",
            "ann@example.org",
        ] {
            assert!(!may_be_password(text), "{text}");
        }
        for text in
            ["hello", "thank you very much", "how does this work, please?", "What\u{2019}s this?"]
        {
            assert_eq!(password(text).check(&[]), Err(WeakPassword::SmallTalk), "{text}");
        }
        for text in [
            "orange ladder seldom sings",
            "sesame, too late",
            "Tr0ub4dor&3",
            "canary one in the coal mine",
            "!\u{a7}$%&/()=?+*#",
        ] {
            assert!(may_be_password(text), "{text}");
        }
    }

    #[test]
    fn a_password_change_requires_two_lines() {
        let lines = |text: &str| {
            password(text)
                .current_and_new()
                .map(|(current, new)| (current.text.to_string(), new.text.to_string()))
        };
        assert_eq!(lines("old one\nnew one"), Some(("old one".into(), "new one".into())));
        assert_eq!(lines(" old one \r\n new one\n"), Some(("old one".into(), "new one".into())));
        assert_eq!(lines("a\n\nb"), Some(("a".into(), "b".into())));
        for bad in ["", "old", "old\n", "\nnew", "a\nb\nc"] {
            assert_eq!(lines(bad), None, "{bad:?}");
        }
    }
}
