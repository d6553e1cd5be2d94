//! A bot whose background task ends or panics exits with an error that names the task.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use kms_sandbox::{Stage, StageOptions};
use serde_json::Value;

use crate::process::command;

/// A process that has ended.
struct Ended {
    status: ExitStatus,
    /// The log, and when each line was written. Every line is JSON.
    log: Vec<(Instant, Value)>,
    at: Instant,
}

impl Ended {
    /// The only error line, written at most two seconds before the end.
    fn error(&self) -> &Value {
        let errors: Vec<_> = self.log.iter().filter(|(_, line)| line["level"] == "ERROR").collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        let (logged, error) = errors[0];
        assert!(self.at.duration_since(*logged) < Duration::from_secs(5));
        assert_eq!(self.status.code(), Some(1), "{error}");
        error
    }

    fn has_chatted(&self) -> bool {
        self.log.iter().any(|(_, line)| line["event"] == "polling")
    }
}

async fn stage() -> Stage {
    Stage::start(StageOptions { bot: false, ..StageOptions::default() }).await.unwrap()
}

/// Runs the process until it ends.
fn run(mut command: Command) -> Ended {
    let mut child = command.env("RUST_LOG", "info").stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let log = lines.map(|line| (Instant::now(), serde_json::from_str(&line.unwrap()).unwrap()));
    let log = log.collect();
    Ended { status: child.wait().unwrap(), log, at: Instant::now() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_panics_ends_the_process_with_one_line_that_names_it() {
    let stage = stage().await;
    for task in ["poll_updates", "follow_security", "follow_payments"] {
        let mut serve = command(&stage, "serve");
        serve.env("KMS_FAILPOINT", format!("worker-panics:{task}"));
        let ended = run(serve);
        assert!(ended.has_chatted());
        let error = ended.error();
        assert_eq!((&error["event"], &error["worker"]), (&"panic".into(), &task.into()));
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_ends_the_process_with_one_line_that_names_it() {
    let stage = stage().await;
    for task in ["poll_updates", "follow_security", "follow_payments"] {
        let mut serve = command(&stage, "serve");
        serve.env("KMS_FAILPOINT", format!("worker-ends:{task}"));
        let ended = run(serve);
        assert!(ended.has_chatted());
        let error = ended.error();
        assert_eq!((&error["event"], &error["worker"]), (&"worker_ended".into(), &task.into()));
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_is_one_json_line() {
    let stage = stage().await;
    for (variable, value) in [
        // A token that this Telegram does not know, and a missing setting.
        ("KMS_BOT__TELEGRAM__TOKEN", "7000000009:AAabcdefghijklmnopqrstuvwxyz-_12345"),
        ("KMS_BOT__SERVER__URL", ""),
    ] {
        let mut serve = command(&stage, "serve");
        serve.env(variable, value);
        let ended = run(serve);
        assert_eq!(ended.error()["event"], "start_failed", "{variable}");
    }
    stage.stop().await;
}
