//! Parses Telegram's HTML into a text with entities, or into Telegram's error.

use serde_json::{Value, json};

use crate::refusal::Refusal;

/// A text without tags, and its formatting. Offsets count UTF-16 units.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Formatted {
    /// The text as a user reads it.
    pub text: String,
    /// Telegram's entities: bold, links and so on.
    pub entities: Vec<Value>,
}

impl Formatted {
    /// Without the white space at both ends, as Telegram stores it.
    fn trimmed(self) -> Self {
        let cut = utf16_len(&self.text) - utf16_len(self.text.trim_start());
        let text = self.text.trim().to_owned();
        let length = utf16_len(&text);
        let number = |entity: &Value, name: &str| {
            entity.get(name).and_then(Value::as_u64).and_then(|at| usize::try_from(at).ok())
        };
        let entities = self.entities.into_iter().filter_map(|mut entity| {
            let (start, size) = (number(&entity, "offset")?, number(&entity, "length")?);
            let end = (start + size).saturating_sub(cut).min(length);
            let start = start.saturating_sub(cut);
            (entity["offset"], entity["length"]) = (json!(start), json!(end.checked_sub(start)?));
            (end > start).then_some(entity)
        });
        let entities = entities.collect();
        Self { text, entities }
    }
}

struct Open {
    tag: String,
    offset: usize,
    link: Option<String>,
}

pub(crate) fn utf16_len(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Parses a text as Telegram does with `parse_mode=HTML`.
///
/// # Errors
/// When Telegram would refuse it; the text is Telegram's description.
pub fn parse_html(html: &str) -> Result<Formatted, String> {
    parse(html).map_err(|refusal| refusal.description)
}

/// Parses `parse_mode=HTML`.
pub(crate) fn parse(html: &str) -> Result<Formatted, Refusal> {
    let wrong = |reason: String| Refusal::bad_request(&format!("can't parse entities: {reason}"));
    let (mut out, mut open) = (Formatted::default(), Vec::<Open>::new());
    let mut rest = html;
    while let Some(at) = rest.find(['<', '&']) {
        let (plain, special) = rest.split_at(at);
        out.text.push_str(plain);
        if special.starts_with('&') {
            let (character, length) = character(special);
            out.text.push(character);
            rest = special.get(length..).unwrap_or_default();
            continue;
        }
        let byte = html.len() - special.len();
        let end = special
            .find('>')
            .ok_or_else(|| wrong(format!("Unclosed start tag at byte offset {byte}")))?;
        let tag = special.get(1..end).unwrap_or_default();
        rest = special.get(end + 1..).unwrap_or_default();
        if let Some(name) = tag.strip_prefix('/') {
            let Some(opened) = open.pop() else {
                return Err(wrong(format!("Unexpected end tag at byte offset {byte}")));
            };
            if !name.trim().eq_ignore_ascii_case(&opened.tag) {
                return Err(wrong(format!(
                    "Unmatched end tag at byte offset {byte}, expected \"</{}>\", \
                     found \"</{name}>\"",
                    opened.tag
                )));
            }
            out.entities.extend(entity(&opened, utf16_len(&out.text)));
        } else {
            let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            let name = name.to_ascii_lowercase();
            if kind(&name).is_none() {
                return Err(wrong(format!(
                    "Unsupported start tag \"{name}\" at byte offset {byte}"
                )));
            }
            let link = attributes
                .split_once("href=\"")
                .and_then(|(_, value)| value.split_once('"'))
                .map(|(link, _)| link.to_owned());
            open.push(Open { tag: name, offset: utf16_len(&out.text), link });
        }
    }
    out.text.push_str(rest);
    if let Some(left) = open.pop() {
        let tag = left.tag;
        return Err(wrong(format!("Can't find end tag corresponding to start tag \"{tag}\"")));
    }
    Ok(out.trimmed())
}

/// The character of an entity, and the entity's length. Like Telegram, accepts a lone `&`.
fn character(text: &str) -> (char, usize) {
    for (entity, character) in [("&lt;", '<'), ("&gt;", '>'), ("&amp;", '&'), ("&quot;", '"')] {
        if text.starts_with(entity) {
            return (character, entity.len());
        }
    }
    ('&', 1)
}

fn kind(tag: &str) -> Option<&'static str> {
    Some(match tag {
        "b" | "strong" => "bold",
        "i" | "em" => "italic",
        "u" | "ins" => "underline",
        "s" | "strike" | "del" => "strikethrough",
        "tg-spoiler" => "spoiler",
        "code" => "code",
        "pre" => "pre",
        "blockquote" => "blockquote",
        "a" => "text_link",
        _ => return None,
    })
}

fn entity(opened: &Open, end: usize) -> Option<Value> {
    let length = end.checked_sub(opened.offset).filter(|length| *length > 0)?;
    let kind = kind(&opened.tag)?;
    let mut entity = json!({ "type": kind, "offset": opened.offset, "length": length });
    if kind == "text_link" {
        // Telegram silently drops links to hosts that it does not accept.
        let link = opened.link.as_deref().filter(|link| is_public(link))?;
        entity["url"] = json!(link);
    }
    Some(entity)
}

/// Whether Telegram accepts the URL: `tg://`, or http or https with a dot in the host.
pub(crate) fn is_public(url: &str) -> bool {
    if url.starts_with("tg://") {
        return true;
    }
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    host.and_then(|host| host.split(['/', '?', ':']).next())
        .is_some_and(|host| host.contains('.') && !host.starts_with('.') && !host.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_become_entities_in_utf16() {
        let parsed = parse("😀 <b>a <i>ä</i></b> &lt;&amp;&gt; <a href=\"https://a.b/c\">x</a>");
        let parsed = parsed.unwrap();
        assert_eq!(parsed.text, "😀 a ä <&> x");
        assert_eq!(
            parsed.entities,
            [
                json!({"type": "italic", "offset": 5, "length": 1}),
                json!({"type": "bold", "offset": 3, "length": 3}),
                json!({"type": "text_link", "offset": 11, "length": 1, "url": "https://a.b/c"}),
            ]
        );
    }

    #[test]
    fn white_space_at_the_ends_is_trimmed_with_its_entities() {
        let parsed = parse("\n <b> a</b> b<i> </i>").unwrap();
        assert_eq!(parsed.text, "a b");
        assert_eq!(parsed.entities, [json!({"type": "bold", "offset": 0, "length": 1})]);
    }

    #[test]
    fn html_that_does_not_parse_is_refused() {
        for bad in ["<b>", "</b>", "<b></i>", "a < b", "<script>x</script>", "<b", "<br>"] {
            let refusal = parse(bad).unwrap_err();
            assert_eq!(refusal.code, 400, "{bad}");
            assert!(refusal.description.contains("can't parse entities"), "{bad}");
        }
    }

    #[test]
    fn links_to_hosts_without_a_dot_are_dropped() {
        assert!(parse("<a href=\"http://localhost/x\">x</a>").unwrap().entities.is_empty());
        assert!(!is_public("http://localhost:80/a.b") && is_public("https://t.me/x"));
    }
}
