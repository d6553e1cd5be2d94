//! The bot's texts by their Fluent ids. Stories and the tour wait for an id and assert on facts, so
//! a change of wording changes snapshots and no story.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "an unknown id is a mistake")]

use std::collections::HashMap;
use std::sync::LazyLock;

use fluent_syntax::ast::{Entry, Pattern, PatternElement, Resource};

const ENGLISH: &str = include_str!("../../kms-bot/i18n/en/kms-bot.ftl");

/// The literal parts of each message, in order: what is left without variables and tags.
static MESSAGES: LazyLock<HashMap<String, Vec<String>>> = LazyLock::new(|| {
    let resource: Resource<&str> = fluent_syntax::parser::parse(ENGLISH).unwrap();
    let messages = resource.body.iter().filter_map(|entry| match entry {
        Entry::Message(message) => {
            Some((message.id.name.to_owned(), literals(message.value.as_ref()?)))
        }
        _ => None,
    });
    messages.collect()
});

/// Reports whether a text is the message with this id.
#[must_use]
pub fn is(id: &str, text: &str) -> bool {
    assert!(!MESSAGES[id].is_empty(), "{id} has no words of its own: any text would be it");
    has_words(id, text)
}

fn has_words(id: &str, text: &str) -> bool {
    let mut rest = text;
    MESSAGES[id].iter().all(|literal| match rest.split_once(literal.as_str()) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// Reports whether a text is the message with this id, with these values in it.
#[must_use]
pub fn is_with(id: &str, values: &[&str], text: &str) -> bool {
    let found = if values.is_empty() { is(id, text) } else { has_words(id, text) };
    found && values.iter().all(|value| text.contains(value))
}

/// The label of a button.
#[must_use]
pub fn label(id: &str) -> String {
    match MESSAGES[id].as_slice() {
        [label] => label.clone(),
        other => panic!("{id} is no label: {other:?}"),
    }
}

fn literals(pattern: &Pattern<&str>) -> Vec<String> {
    let texts = pattern.elements.iter().filter_map(|element| match element {
        PatternElement::TextElement { value } => Some(*value),
        PatternElement::Placeable { .. } => None,
    });
    let parts = texts.flat_map(without_tags);
    parts.map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn without_tags(text: &str) -> Vec<&str> {
    text.split('<')
        .enumerate()
        .map(|(at, part)| match part.split_once('>') {
            Some((_, after)) if at > 0 => after,
            _ => part,
        })
        .collect()
}
