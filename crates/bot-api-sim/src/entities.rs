//! What Telegram makes of plain text on its own: links, mentions, commands and e-mail addresses.

use serde_json::{Value, json};

use crate::html::{Formatted, utf16_len};

/// Adds the entities that Telegram finds in a text, outside of code and of links that were given.
/// It finds more than Telegram does, which knows the ends of host names: here, any two letters are
/// one.
pub(crate) fn with_found(mut formatted: Formatted) -> Formatted {
    let text = &formatted.text;
    let closed: Vec<_> = formatted.entities.iter().filter_map(closed).collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let (kind, length) = entity(before, rest).unwrap_or(("", 0));
        let offset = utf16_len(text.get(..at).unwrap_or_default());
        if length > 0 && !closed.iter().any(|(start, end)| (*start..*end).contains(&offset)) {
            let part = rest.get(..length).unwrap_or_default();
            found.push(json!({ "type": kind, "offset": offset, "length": utf16_len(part) }));
        }
        at += length.max(rest.chars().next().map_or(1, char::len_utf8));
    }
    formatted.entities.extend(found);
    formatted
}

/// The range of an entity in which no others are looked for.
fn closed(entity: &Value) -> Option<(usize, usize)> {
    let number = |name| entity.get(name)?.as_u64().and_then(|number| usize::try_from(number).ok());
    let kind = entity.get("type")?.as_str()?;
    let (start, length) = (number("offset")?, number("length")?);
    ["code", "pre", "text_link"].contains(&kind).then_some((start, start + length))
}

/// The kind and the length in bytes of the entity with which a text begins.
fn entity(before: Option<char>, text: &str) -> Option<(&'static str, usize)> {
    let is_in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if is_in_word {
        return None;
    }
    let run = |from: usize, is_part: fn(char) -> bool| {
        let rest = text.get(from..).unwrap_or_default();
        rest.find(|c| !is_part(c)).unwrap_or(rest.len())
    };
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_stop = |c: char| matches!(c, '/' | '<' | '>');
    match text.chars().next()? {
        '@' => (2..=32).contains(&run(1, name)).then(|| ("mention", 1 + run(1, name))),
        '/' if !before.is_some_and(is_stop) => {
            let length = 1 + run(1, name);
            let closes = text.get(length..).is_none_or(|rest| !rest.starts_with(is_stop));
            ((2..=65).contains(&length) && closes).then_some(("bot_command", length))
        }
        first if first.is_ascii_alphanumeric() => {
            let scheme = run(0, |c| c.is_ascii_alphanumeric());
            if text.get(scheme..).is_some_and(|rest| rest.starts_with("://")) {
                let length = run(0, |c| !c.is_whitespace());
                return (length > scheme + 3).then_some(("url", length));
            }
            let local = run(0, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+'));
            if text.get(local..).is_some_and(|rest| rest.starts_with('@')) {
                let host = host(text.get(local + 1..)?)?;
                return Some(("email", local + 1 + host));
            }
            host(text).map(|length| ("url", length))
        }
        _ => None,
    }
}

/// The length of the host name with which a text begins.
fn host(text: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-');
    let host = text.get(..text.find(|c| !is_part(c)).unwrap_or(text.len()))?;
    let host = host.trim_end_matches(['.', '-']);
    let (_, end) = host.rsplit_once('.').filter(|(name, _)| !name.is_empty())?;
    let is_end = end.chars().count() >= 2 && end.chars().all(char::is_alphabetic);
    is_end.then_some(host.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(String, String)> {
        let plain = Formatted { text: text.to_owned(), entities: Vec::new() };
        let units: Vec<_> = text.encode_utf16().collect();
        let entity = |entity: &Value| {
            let number = |name| usize::try_from(entity[name].as_u64().unwrap()).unwrap();
            let (start, length) = (number("offset"), number("length"));
            let part = String::from_utf16(&units[start..start + length]).unwrap();
            (entity["type"].as_str().unwrap().to_owned(), part)
        };
        with_found(plain).entities.iter().map(entity).collect()
    }

    #[test]
    fn links_mentions_commands_and_addresses_are_found() {
        for (text, kind, part) in [
            ("\u{1f600} pay @ann now", "mention", "@ann"),
            ("(@ann_smith)", "mention", "@ann_smith"),
            ("send /help, please", "bot_command", "/help"),
            ("see http://e.vil/x now", "url", "http://e.vil/x"),
            ("[z](e.vil)", "url", "e.vil"),
            ("t.me/bob", "url", "t.me"),
            ("to ann@example.org.", "email", "ann@example.org"),
        ] {
            assert_eq!(found(text), [(kind.to_owned(), part.to_owned())], "{text}");
        }
        for text in [
            "0.5 ETH",
            "a@b",
            "and/or",
            "@\u{2060}ann",
            "e.\u{2060}vil",
            "/\u{2060}send",
            "</b>",
            "Sent. Then more",
            "@a",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn nothing_is_found_in_code_and_links() {
        let given = json!({ "type": "code", "offset": 0, "length": 5 });
        let plain = Formatted { text: "/help @ann".to_owned(), entities: vec![given] };
        let entities = with_found(plain).entities;
        assert_eq!(entities.len(), 2);
        assert_eq!(entities[1]["offset"], json!(6));
    }
}
