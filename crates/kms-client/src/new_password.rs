//! What every client checks of a new password besides its strength, with the vectors in
//! `vectors/rewritten-v1.json`.

use crate::fold::fold_password;

/// Marks of formatting: Telegram's apps format what is between two of the same kind, and take the
/// marks out of the text.
const MARKS: [&str; 5] = ["**", "__", "~~", "||", "`"];
/// What Telegram Desktop replaces by an emoji as soon as it is typed. One that begins with a letter
/// is replaced at the beginning of a word only.
const TRIGGERS: [&str; 25] = [
    ":-)", "8-)", "<3", ":-*", "B-)", ":-D", ";-)", ";-P", ":-p", "3(", ":-(", ":]", ":'(", ":_(",
    ":((", ":|", "3-)", ">(", "O:)", ";o", "8|", "8o", ":X", "}:)", "xD ",
];
/// Words that an app of Telegram's replaces by an emoji.
const EMOTICONS: [&str; 12] =
    [":)", ":(", ";)", ":D", ":P", ":-P", ":p", ":*", ":o", ":O", ":/", "B)"];

/// Reports whether an app of Telegram's may change a password when its owner types or sends it:
/// it would be another password on another device.
#[must_use]
pub fn is_rewritten(password: &str) -> bool {
    let text = fold_password(password);
    MARKS.iter().any(|mark| text.matches(mark).count() >= 2)
        || TRIGGERS.iter().any(|trigger| is_triggered(&text, trigger))
        || text.split(' ').any(|word| EMOTICONS.contains(&word))
        || has_emoji_name(&text)
}

fn is_triggered(text: &str, trigger: &str) -> bool {
    let in_word = |at| {
        let before = text.get(..at).unwrap_or_default();
        trigger.starts_with(char::is_alphabetic) && before.ends_with(char::is_alphanumeric)
    };
    text.match_indices(trigger).any(|(at, _)| !in_word(at))
}

/// Reports whether a text has the name of an emoji between colons, such as `:shrug:`. There are
/// thousands: every such word counts as one.
fn has_emoji_name(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-');
    let mut parts = text.split(':');
    parts.next();
    parts.next_back();
    parts.any(|name| !name.is_empty() && name.chars().all(is_letter))
}

/// Returns a user's names together with the parts of those that have several: the inputs of an
/// attacker who knows the user.
#[must_use]
pub fn names_with_parts<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let parts =
        names.iter().flat_map(|name| [*name].into_iter().chain(name.split([' ', '_', '-'])));
    parts.filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Vector {
        typed: String,
        rewritten: bool,
    }

    #[test]
    fn matches_the_published_vectors() {
        let vectors = include_str!("../vectors/rewritten-v1.json");
        for vector in serde_json::from_str::<Vec<Vector>>(vectors).unwrap() {
            assert_eq!(is_rewritten(&vector.typed), vector.rewritten, "{}", vector.typed);
        }
    }

    #[test]
    fn names_have_parts() {
        let names = names_with_parts(&["Anna Belle", "ann_smith", "", "O-"]);
        let expected = ["Anna Belle", "Anna", "Belle", "ann_smith", "ann", "smith", "O-", "O"];
        assert_eq!(names, expected);
    }
}
