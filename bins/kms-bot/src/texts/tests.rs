use std::collections::HashMap;
use std::fs;
use std::path::Path;

use fluent_syntax::ast::{Entry, Expression, InlineExpression, Message, Pattern, PatternElement};

use super::*;

/// Values that an attacker, a token's contract or an operator may put into a message.
fn hostile() -> Vec<String> {
    let values = [
        "<b>Bob</b>",
        "</code><a href=\"https://evil.example\">",
        "&amp;&lt; &",
        "\"quoted\" 'twice'",
        "two\nlines\r\n\nand three",
        "\u{202e}right to left\u{2066}\u{200f}",
        "{ $amount } {-not-encrypted} { \"x\" } }{",
        "",
    ];
    values.map(str::to_owned).into_iter().chain(["<".repeat(4096), "é".repeat(4096)]).collect()
}

fn english() -> fluent_syntax::ast::Resource<&'static str> {
    fluent_syntax::parser::parse(Embedded::FILES[0].1).expect("the file parses without errors")
}

fn variables<'a>(pattern: &'a Pattern<&'a str>, found: &mut Vec<&'a str>) {
    for element in &pattern.elements {
        if let PatternElement::Placeable { expression } = element {
            match expression {
                Expression::Inline(InlineExpression::VariableReference { id }) => {
                    found.push(id.name)
                }
                Expression::Inline(_) => {}
                Expression::Select { selector, variants } => {
                    if let InlineExpression::VariableReference { id } = selector {
                        found.push(id.name);
                    }
                    variants.iter().for_each(|variant| variables(&variant.value, found));
                }
            }
        }
    }
}

fn each_message(check: impl Fn(&Message<&str>, &[&str])) {
    for entry in &english().body {
        if let Entry::Message(message) = entry {
            let mut names = Vec::new();
            variables(message.value.as_ref().expect("a message has a text"), &mut names);
            check(message, &names);
        }
    }
}

/// Renders as `html!` does, with the same value for every variable.
fn render(id: &str, names: &[&str], value: &str) -> String {
    let values: HashMap<&str, String> =
        names.iter().map(|name| (*name, Variable::into_html(value))).collect();
    messages().get_args(id, values)
}

/// The wording of every message, with the name of each variable in place of its value.
#[test]
fn every_message_as_it_is_shown() {
    let shown = std::cell::RefCell::new(Vec::new());
    each_message(|message, names| {
        let named = |name: &&str| format!("[{name}]");
        let values: HashMap<&str, String> = names.iter().map(|name| (*name, named(name))).collect();
        let id = message.id.name;
        shown.borrow_mut().push(format!("{id}: {}", messages().get_args(id, values)));
    });
    insta::assert_snapshot!(shown.into_inner().join("\n"));
}

#[test]
fn hostile_values_are_shown_as_text_in_every_message() {
    each_message(|message, names| {
        let plain = bot_api_sim::parse_html(&render(message.id.name, names, "0")).unwrap();
        for value in hostile() {
            let html = render(message.id.name, names, &value);
            let shown = bot_api_sim::parse_html(&html)
                .unwrap_or_else(|error| panic!("{}: {error}\n{html}", message.id.name));
            for name in names {
                let shows = value.trim().is_empty() || shown.text.contains(value.trim());
                let is_plural = *name == "count" || *name == "link";
                assert!(shows || is_plural, "{} {name}: {}", message.id.name, shown.text);
            }
            let (tags, expected) = (shown.entities.len(), plain.entities.len());
            assert!(tags <= expected, "{}: a value became markup\n{html}", message.id.name);
        }
    });
}

#[test]
fn no_isolation_marks_surround_values() {
    let address = "0x1486F47822927e3F2321E0bE433247dDADAf8F8C";
    let html = html!("transfer-address", address = address);
    assert_eq!(html.as_str(), format!("<code>{address}</code>"));
    assert_eq!(html!("send-total-coin", amount = "1,000.5 ETH").as_str(), "1,000.5 ETH");
}

#[test]
fn long_texts_are_cut_between_paragraphs() {
    let part = |length| html!("amount", amount = "é".repeat(length));
    let lengths = |parts: Vec<Html>| {
        let messages = Html::messages(parts);
        messages.iter().map(|message| message.as_str().chars().count()).collect::<Vec<_>>()
    };
    assert!(lengths(vec![]).is_empty());
    assert_eq!(lengths(vec![part(3), Html::default(), part(4)]), [9]);
    assert_eq!(lengths(vec![part(2_000), part(2_094), part(1)]), [4_096, 1]);
    assert_eq!(lengths(vec![part(2_000), part(2_095)]), [2_000, 2_095]);
    assert!(part(1_024).is_caption() && !part(1_025).is_caption());
}

#[test]
fn markup_is_kept_and_text_is_escaped() {
    let inner = html!("transfer-username", username = "<b>");
    assert_eq!(inner.as_str(), "&lt;b&gt;");
    assert_eq!(html!("send-total-coin", amount = &inner).as_str(), "&lt;b&gt;");
    assert_eq!(text!("duration-seconds", count = Count(1)).into_string(), "1 second");
}

#[test]
fn plurals_follow_the_number() {
    let decimals = |count| html!("input-amount-precision", count = Count(count));
    assert!(decimals(0).as_str().contains("cannot have decimals"));
    assert!(decimals(1).as_str().ends_with("1 decimal."));
    assert!(decimals(6).as_str().ends_with("6 decimals."));
}

macro_rules! message_ids {
    ($($(#[$about:meta])* $event:ident = $text:literal, $id:literal, $remedy:ident;)+) => {
        [$($id),+]
    };
}

/// The compiler checks that each id in the sources exists; this checks the other direction.
#[test]
fn every_message_is_used() {
    let security = kms_types::with_security_events!(message_ids);
    let sources = sources(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path());
    each_message(|message, _| {
        let (id, file) = (message.id.name, Embedded::FILES[0].1);
        let used = sources.contains(&format!("\"{id}\"")) || file.contains(&format!("{{ {id} }}"));
        assert!(used || security.contains(&id), "no code uses {id}");
    });
}

#[test]
fn only_the_macros_construct_messages() {
    let sources = sources(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path());
    let calls = sources.matches(concat!("from_", "rendered(")).count();
    assert_eq!(calls, 4, "two definitions and two macros in texts.rs");
}

/// Everything under a folder but tests.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else if !path.ends_with("tests.rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
    text
}
