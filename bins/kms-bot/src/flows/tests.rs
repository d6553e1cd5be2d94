use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::FLOWS;

/// The commands in the first column of the table of `docs/bot.md`.
#[test]
fn the_documentation_lists_every_command() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/bot.md");
    let page = fs::read_to_string(page).unwrap();
    let cells = page.lines().filter(|line| line.starts_with("| `/"));
    let cells = cells.filter_map(|line| line.split('|').nth(1));
    let words = cells.flat_map(|cell| cell.split('`')).filter_map(|code| code.strip_prefix('/'));
    let listed: BTreeSet<_> = words.filter_map(|code| code.split(' ').next()).collect();
    let commands: BTreeSet<_> = FLOWS.iter().map(|flow| flow.word()).collect();
    assert_eq!(listed, commands);
    assert_eq!(commands.len(), FLOWS.len(), "two flows have the same word");
}

#[test]
fn commands_and_descriptions_are_as_telegram_accepts_them() {
    for flow in FLOWS {
        let word = flow.word();
        assert!(word.len() <= 32 && word.chars().all(|c| c.is_ascii_lowercase()), "{word}");
        let length = flow.description().to_string().len();
        assert!((3..=256).contains(&length), "{word}");
    }
}
