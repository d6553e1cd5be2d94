//! The operator's table of alarms and the code name the same events.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

/// Logged while a process works as intended.
const NORMAL: [&str; 3] = ["chatting", "listening", "stopping"];

/// The names after each `marker`, up to the next quote or backtick.
fn names(text: &str, marker: &str, end: char) -> impl Iterator<Item = String> {
    text.split(marker).skip(1).filter_map(move |rest| {
        let name = rest.split(end).next()?;
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        (!name.is_empty() && name.chars().all(is_name)).then(|| name.to_owned())
    })
}

fn events_below(folder: &Path, events: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            events_below(&path, events);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            events.extend(names(&text, "event = \"", '"'));
        }
    }
}

#[test]
fn every_alarm_is_in_the_operators_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut logged = BTreeSet::new();
    for folder in ["crates", "bins"] {
        for package in std::fs::read_dir(root.join(folder)).unwrap() {
            events_below(&package.unwrap().path().join("src"), &mut logged);
        }
    }
    logged.retain(|event| !NORMAL.contains(&event.as_str()));
    let page = std::fs::read_to_string(root.join("docs/operating/monitoring.md")).unwrap();
    let (_, table) = page.split_once("## Alarms").unwrap();
    let documented: BTreeSet<_> = names(table, "\n| `", '`').collect();
    assert!(logged.len() > 10, "{logged:?}");
    assert_eq!(logged, documented);
}
