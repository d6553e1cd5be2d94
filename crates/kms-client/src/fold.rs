//! The text of a password before it is hashed, version 1: "Password text" in `FORMAT.md` of
//! `kms-core`, with the vectors in `vectors/password-v1.json`.
//!
//! Phones, computers and Telegram's apps change what people type: a straight quote becomes a curly
//! one, two hyphens become a dash. One password has one text, whichever keyboard typed it.

use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// Folds a password: invisible characters are removed, the text is normalized to NFKC, typographic
/// quotes and dashes become those of ASCII, a run of hyphens becomes one, and so does a run of
/// white space, which is removed at both ends.
#[must_use]
pub fn fold_password(password: &str) -> Zeroizing<String> {
    // The full capacity first: a string that grows leaves copies of its content in memory.
    let mut folded = Zeroizing::new(String::with_capacity(password.len().saturating_mul(18)));
    let mut space = false;
    let visible = password.chars().filter(|c| !is_invisible(*c));
    // Before NFKC, which would make something else of a few of them, and after it, for those that
    // it makes: a superscript minus becomes U+2212.
    for character in visible.flat_map(straighten).nfkc().flat_map(straighten) {
        if character.is_whitespace() {
            space = true;
            continue;
        }
        if std::mem::take(&mut space) && !folded.is_empty() {
            folded.push(' ');
        }
        if character != '-' || !folded.ends_with('-') {
            folded.push(character);
        }
    }
    folded
}

/// The ASCII of a typographic quote or dash: one character, or two.
fn straighten(character: char) -> impl Iterator<Item = char> {
    let (first, second) = match character {
        '\u{b4}'
        | '\u{2b9}'
        | '\u{2bb}'..='\u{2bd}'
        | '\u{1ffd}'
        | '\u{2018}'..='\u{201b}'
        | '\u{2032}'
        | '\u{2035}' => ('\'', None),
        '\u{2ba}' | '\u{201c}'..='\u{201f}' | '\u{2033}' | '\u{2036}' => ('"', None),
        '\u{ab}' => ('<', Some('<')),
        '\u{bb}' => ('>', Some('>')),
        '\u{2010}'..='\u{2015}'
        | '\u{2212}'
        | '\u{2e3a}'
        | '\u{2e3b}'
        | '\u{fe31}'
        | '\u{fe32}'
        | '\u{fe58}' => ('-', None),
        other => (other, None),
    };
    [first].into_iter().chain(second)
}

/// Characters without a shape, which apps add and drop on their own: joiners, marks of direction,
/// soft hyphens, variation selectors.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}'
            | '\u{2066}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fe00}'..='\u{fe0f}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keyboards_do_not_change_a_password() {
        for (computer, phone) in [
            ("don't stop -- \"now\"", "don\u{2019}t stop \u{2014} \u{201c}now\u{201d}"),
            ("a -- b", "a \u{2013} b"),
            ("one...two", "one\u{2026}two"),
            ("<<ja>>", "\u{ab}ja\u{bb}"),
            ("it's", "it\u{b4}s"),
            ("caf\u{e9} au lait", "cafe\u{301}\u{a0}au lait "),
            ("full width 1", "\u{ff46}\u{ff55}\u{ff4c}\u{ff4c} width\u{3000}\u{ff11}"),
            ("heart \u{2764}", "heart \u{2764}\u{fe0f}\u{200b}"),
            ("two words", " two \t words\n"),
        ] {
            assert_eq!(*fold_password(computer), *fold_password(phone), "{computer}");
        }
        assert_eq!(fold_password("Don't stop -- \"now\"").as_str(), "Don't stop - \"now\"");
        assert_ne!(*fold_password("Upper"), *fold_password("upper"));
    }

    /// A client may fold what it has folded, and apps send one character in several forms.
    #[test]
    fn every_character_has_one_text() {
        for character in '\0'..=char::MAX {
            let typed = format!("a{character}b");
            let folded = fold_password(&typed);
            assert_eq!(*fold_password(&folded), *folded, "{character:?} folded twice");
            let (composed, decomposed): (String, String) =
                (typed.nfc().collect(), typed.nfd().collect());
            assert_eq!(*fold_password(&composed), *folded, "{character:?} composed");
            assert_eq!(*fold_password(&decomposed), *folded, "{character:?} decomposed");
        }
    }

    proptest! {
        #[test]
        fn folding_twice_is_folding_once(text in "\\PC{0,60}") {
            let once = fold_password(&text);
            let twice = fold_password(&once);
            prop_assert_eq!(twice.as_str(), once.as_str());
        }

        #[test]
        fn plain_words_are_their_own_text(
            text in "[a-zA-Z0-9!?.,]{1,12}( [a-zA-Z0-9!?.,]{1,12}){0,5}",
        ) {
            let folded = fold_password(&text);
            prop_assert_eq!(folded.as_str(), text);
        }
    }
}
