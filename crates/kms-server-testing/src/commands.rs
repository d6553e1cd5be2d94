//! Runs `kms-server` commands as an operator does.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::process::{Command, Output};

use serde_json::Value;

use crate::{ServerProcess, TestEnv};

/// A `kms-server` command, with its arguments separated by spaces, configured for an environment.
#[must_use]
pub fn kms_server(env: &TestEnv, arguments: &str) -> Command {
    let mut command = Command::new(ServerProcess::binary());
    command
        .args(arguments.split(' '))
        .envs(env.environment("127.0.0.1:0"))
        .current_dir(env.directory.path());
    command
}

/// Runs a command that must succeed, and returns its output.
pub fn succeeds(env: &TestEnv, arguments: &str) -> String {
    let output = kms_server(env, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", output_text(&output));
    output_text(&output)
}

/// Runs a command that must fail with status 1, and returns its output.
pub fn fails(env: &TestEnv, arguments: &str) -> String {
    let output = kms_server(env, arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments}: {}", output_text(&output));
    output_text(&output)
}

/// What a command wrote, to standard output first.
#[must_use]
pub fn output_text(output: &Output) -> String {
    String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap()
}

/// The checks that `check-config` reports, and whether each succeeded.
#[must_use]
pub fn checks(report: &str) -> Vec<(&str, bool)> {
    report.lines().filter_map(check).collect()
}

fn check(line: &str) -> Option<(&str, bool)> {
    match line.split_once(char::is_whitespace)? {
        ("ok", report) => Some((report.split(':').next()?.trim(), true)),
        ("failed", report) => Some((report.split(':').next()?.trim(), false)),
        _ => None,
    }
}

/// Why `serve` did not start, from its log.
#[must_use]
pub fn start_error(log: &str) -> String {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut errors = lines.filter(|line| line["event"] == "start_failed");
    errors.next().unwrap()["error"].as_str().unwrap().to_owned()
}

/// A text for a snapshot: what differs from run to run (ids, hashes, paths, ports) is replaced.
#[must_use]
pub fn masked(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let mut masked = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len()).max(first.len_utf8());
        let (word, after) = rest.split_at(end);
        masked += mask(word).unwrap_or(word);
        rest = after;
    }
    masked
}

fn mask(word: &str) -> Option<&'static str> {
    let all = |is: fn(&u8) -> bool| word.bytes().all(|b| is(&b));
    match word.len() {
        2.. if word.starts_with('/') => Some("PATH"),
        36 if all(|b| b.is_ascii_hexdigit() || *b == b'-') => Some("ID"),
        32.. if all(u8::is_ascii_hexdigit) => Some("HEX"),
        5.. if all(u8::is_ascii_digit) => Some("NUMBER"),
        _ => None,
    }
}
