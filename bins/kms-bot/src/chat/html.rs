//! Telegram's HTML: what has to be escaped, stripped or left out.

/// The longest display name that is shown, in characters.
const LONGEST_NAME: usize = 40;

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

/// Cleans a display name, which its owner chooses freely: at most 40 characters on one line,
/// without invisible characters and controls that change the direction of the text after it.
pub(crate) fn clean_name(chosen: &str) -> String {
    let invisible = |c: char| matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
    let clean = chosen.chars().filter(|c| !c.is_control() && !invisible(*c)).take(LONGEST_NAME);
    clean.collect::<String>().trim().to_owned()
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
    fn names_lose_direction_controls_newlines_and_excess_length() {
        assert_eq!(clean_name("Ann\u{202e}dlog\u{2066}\n\u{0}"), "Anndlog");
        assert_eq!(clean_name(&"x".repeat(100)).len(), LONGEST_NAME);
    }

    #[test]
    fn only_links_to_hosts_with_a_dot_are_public() {
        assert!(is_public_link("https://etherscan.io/tx/0x1"));
        assert!(!is_public_link("http://localhost:3000/tx/0x1"));
        assert!(!is_public_link("javascript:alert(1.0)"));
    }
}
