//! Runs `kms-server` commands as an operator does.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::process::{Command, Output};

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
