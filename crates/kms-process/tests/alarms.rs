//! The operator's tables and the code name the same metrics and events.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Logged while a process works as intended.
const NORMAL: [&str; 3] = ["listening", "polling", "stopping"];

const PAGE: &str = include_str!("../../../docs/operating/monitoring.md");

/// The names after each `marker`, up to the next of these characters.
fn names(text: &str, marker: &str, end: [char; 2]) -> impl Iterator<Item = String> {
    text.split(marker).skip(1).filter_map(move |rest| {
        let name = rest.split(end).next()?;
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        (!name.is_empty() && name.chars().all(is_name)).then(|| name.to_owned())
    })
}

/// Passes the path and the text of every source file of all packages to a function.
fn each_source(mut check: impl FnMut(&Path, &str)) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let packages = ["crates", "bins"].map(|folder| std::fs::read_dir(root.join(folder)).unwrap());
    let mut folders: Vec<PathBuf> =
        packages.into_iter().flatten().map(|package| package.unwrap().path().join("src")).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                check(&path, &std::fs::read_to_string(&path).unwrap());
            }
        }
    }
}

/// The text up to the parenthesis that closes one before it.
fn arguments(text: &str) -> &str {
    let mut open = 1;
    let end = text.find(|c| {
        open += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        open == 0
    });
    &text[..end.unwrap()]
}

/// The names of fields and events are words in lower case, joined by underscores.
#[test]
fn every_log_line_names_its_fields_alike() {
    let mut others = Vec::new();
    each_source(|path, text| {
        let levels = ["info!(", "warn!(", "error!("];
        for call in levels.iter().flat_map(|level| text.split(level).skip(1)) {
            for (name, _value) in arguments(call).split(',').filter_map(|f| f.split_once(" = ")) {
                let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
                if !name.trim().chars().all(is_part) {
                    others.push(format!("{}: {}", path.display(), name.trim()));
                }
            }
        }
    });
    assert!(others.is_empty(), "{others:#?}");
}

#[test]
fn every_warning_and_error_has_an_event() {
    let mut without = Vec::new();
    each_source(|path, text| {
        for call in ["warn!(", "error!("].iter().flat_map(|level| text.split(level).skip(1)) {
            let fields: String = arguments(call).split_whitespace().collect();
            let has_event = |field: &str| field == "event" || field.starts_with("event=\"");
            if !fields.split([',', '(']).any(has_event) {
                without.push(format!("{}: {fields}", path.display()));
            }
        }
    });
    assert!(without.is_empty(), "{without:#?}");
}

/// A transfer, a token or an endpoint alone does not say on which of several chains it is.
#[test]
fn every_log_line_about_a_chain_names_it() {
    let (mut without, mut found) = (Vec::new(), 0);
    each_source(|path, text| {
        let is_of_chains = path.components().any(|part| part.as_os_str() == "kms-chain");
        let levels = ["info!(", "warn!(", "error!("].iter().filter(|_| is_of_chains);
        for call in levels.flat_map(|level| text.split(level).skip(1)) {
            let fields: String = arguments(call).split_whitespace().collect();
            let names_it = |field: &str| field == "chain_id" || field.starts_with("chain_id=");
            found += 1;
            if !fields.split(',').any(names_it) {
                without.push(format!("{}: {fields}", path.display()));
            }
        }
    });
    assert!(found > 20 && without.is_empty(), "{found} {without:#?}");
}

/// A count that begins with its first alarm shows no increase by it.
#[test]
fn every_alarm_about_a_chain_is_counted_for_it_from_the_start() {
    let mut others = BTreeSet::new();
    each_source(|_path, text| {
        for call in ["warn!(", "error!("].iter().flat_map(|level| text.split(level).skip(1)) {
            let fields: String = arguments(call).split_whitespace().collect();
            let is_of_a_chain = fields
                .split(',')
                .any(|field| field == "chain_id" || field.starts_with("chain_id="));
            let event = fields.split("event=\"").nth(1).and_then(|rest| rest.split('"').next());
            if let Some(event) = event.filter(|_| is_of_a_chain)
                && kms_process::ALARMS.contains(&event)
                && !kms_process::ALARMS_OF_CHAINS.contains(&event)
            {
                others.insert(event.to_owned());
            }
        }
    });
    assert!(others.is_empty(), "{others:?}");
}

/// The names in the first cell of each row of a table.
fn documented(table: &str, end: [char; 2]) -> BTreeSet<String> {
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells.flat_map(|cell| names(cell, "`", end).collect::<Vec<_>>()).collect()
}

#[test]
fn every_metric_is_in_the_operators_table() {
    let mut recorded = BTreeSet::new();
    each_source(|_path, text| {
        for macro_name in ["counter!(\"", "gauge!(\"", "histogram!(\""] {
            recorded.extend(names(text, macro_name, ['"', '"']));
        }
    });
    let (_, page) = PAGE.split_once("## Metrics").unwrap();
    let (table, _) = page.split_once("## Logs").unwrap();
    assert!(recorded.len() > 10, "{recorded:?}");
    assert!(recorded.iter().all(|name| name.starts_with("kms_")), "{recorded:?}");
    assert_eq!(recorded, documented(table, ['`', '{']));
}

#[test]
fn every_alarm_is_in_the_operators_table() {
    let mut logged = BTreeSet::new();
    each_source(|_path, text| logged.extend(names(text, "event = \"", ['"', '"'])));
    logged.retain(|event| !NORMAL.contains(&event.as_str()));
    let (_, table) = PAGE.split_once("## Alarms").unwrap();
    assert!(logged.len() > 10, "{logged:?}");
    assert_eq!(logged, documented(table, ['`', '`']));
}

#[test]
fn every_event_to_alert_on_is_counted_from_the_start() {
    let (_, section) = PAGE.split_once("### Alert on these").unwrap();
    let (table, _) = section.split_once("### Watch").unwrap();
    let counted: BTreeSet<String> = kms_process::ALARMS.map(str::to_owned).into();
    assert_eq!(counted, documented(table, ['`', '`']));
}
