//! Telegram's HTML: what has to be escaped, stripped or left out.

use unicode_normalization::char::is_combining_mark;

/// The longest display name that is shown, in characters without their marks.
const LONGEST_NAME: usize = 40;
/// The most combining marks that a character keeps. No language needs more, and a stack of them
/// covers the lines around it.
const MOST_MARKS: usize = 3;
/// Telegram makes links of texts with these characters. A word joiner behind one, which is
/// invisible, prevents that.
const LINKING: [char; 6] = ['@', '/', ':', '.', '#', '$'];
const WORD_JOINER: char = '\u{2060}';

/// Escapes a text for Telegram's HTML, attribute values included.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Cleans a display name, which its owner chooses freely: one line of at most 40 characters,
/// without invisible characters, stacks of marks, and texts that Telegram would make a link of.
/// Returns an empty text if nothing is left to see.
pub(crate) fn clean_name(chosen: &str) -> String {
    let mut clean = String::new();
    let (mut length, mut marks, mut space) = (0, 0, false);
    for character in chosen.chars() {
        if character.is_whitespace() || character.is_control() {
            space = true;
        } else if is_invisible(character) {
        } else if is_combining_mark(character) {
            // A mark at the beginning, or behind a space, would cover what stands before the name.
            if length > 0 && !space && marks < MOST_MARKS {
                clean.push(character);
                marks += 1;
            }
        } else if length == LONGEST_NAME {
            clean.push('…');
            break;
        } else {
            if std::mem::take(&mut space) && length > 0 {
                clean.push(' ');
            }
            clean.push(character);
            if LINKING.contains(&character) {
                clean.push(WORD_JOINER);
            }
            (length, marks) = (length + 1, 0);
        }
    }
    clean
}

/// Format characters, fillers and blanks: characters without a shape, or that change the direction
/// of the text behind them.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{17b4}'
            | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Reports whether Telegram accepts a link: its host must contain a dot. A button with any other
/// link makes Telegram refuse the whole message.
pub(crate) fn is_public_link(url: &str) -> bool {
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    host.and_then(|rest| rest.split(['/', '?', '#', ':']).next())
        .is_some_and(|host| host.contains('.') && !host.starts_with('.') && !host.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escape("<b>Ann & \"Co\""), "&lt;b&gt;Ann &amp; &quot;Co&quot;");
    }

    #[test]
    fn names_are_one_line_without_invisible_characters_and_excess() {
        assert_eq!(clean_name("Ann\u{202e}dlog\u{2066}\u{0}"), "Anndlog");
        for line in ["\n", "\r\n", "\u{2028}", "\u{2029}", "\u{b}", "\u{85}"] {
            assert_eq!(clean_name(&format!(" Bob{line}Total: 0 ETH ")), "Bob Total:\u{2060} 0 ETH");
        }
        for invisible in
            ["\u{3164}", "\u{2800}\u{ffa0}", "\u{200b} \u{feff}", "\u{e0041}", "\n", ""]
        {
            assert_eq!(clean_name(invisible), "", "{invisible:?}");
        }
        assert_eq!(clean_name(&"x".repeat(100)), format!("{}…", "x".repeat(LONGEST_NAME)));
    }

    #[test]
    fn marks_are_bounded_for_each_character() {
        let stack = "\u{301}".repeat(39);
        assert_eq!(
            clean_name(&format!("Bo{stack}b")),
            format!("Bo{}b", "\u{301}".repeat(MOST_MARKS))
        );
        assert_eq!(clean_name(&format!("{stack}Bob {stack}")), "Bob");
        // Names of several scripts are kept as they are.
        for name in ["Zoë", "Nguyễn", "สมชาย", "क्षितिज", "Łukasz", "👩 Ann"]
        {
            assert_eq!(clean_name(name), name);
        }
    }

    #[test]
    fn telegram_makes_no_link_of_a_name() {
        for name in ["[z](http://e.vil)", "e.vil", "@ann", "/start", "#tag", "$ETH", "a@e.vil"] {
            let clean = clean_name(name);
            let shown: String = clean.chars().filter(|c| *c != WORD_JOINER).collect();
            assert_eq!(shown, name);
            let joined = |at: usize| clean[at..].chars().nth(1) == Some(WORD_JOINER);
            assert!(clean.match_indices(LINKING).all(|(at, _)| joined(at)), "{clean:?}");
        }
    }

    #[test]
    fn only_links_to_hosts_with_a_dot_are_public() {
        assert!(is_public_link("https://etherscan.io/tx/0x1"));
        assert!(!is_public_link("http://localhost:3000/tx/0x1"));
        assert!(!is_public_link("javascript:alert(1.0)"));
    }
}
