//! A process whose worker or HTTP server fails ends with an error that names it.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use kms_server_testing::{ServerProcess, Stores, TestEnv};
use serde_json::Value;

/// A process that has ended.
struct Ended {
    status: ExitStatus,
    /// The log, and when each line was read.
    log: Vec<(Instant, Value)>,
    at: Instant,
}

impl Ended {
    /// The only error line. Every line is JSON, or this is not reached.
    fn error(&self) -> &Value {
        let errors: Vec<_> = self.log.iter().filter(|(_, line)| line["level"] == "ERROR").collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        let (logged, error) = errors[0];
        assert!(self.at.duration_since(*logged) < Duration::from_secs(5));
        assert_eq!(self.status.code(), Some(1), "{error}");
        error
    }

    fn has_listened(&self) -> bool {
        self.log.iter().any(|(_, line)| line["event"] == "listening")
    }
}

/// Serves with a failpoint until the process ends; asks it to stop once it listens, if `terminate`.
fn serve(env: &TestEnv, failpoint: &str, stop_timeout: &str, terminate: bool) -> Ended {
    let mut child = Command::new(ServerProcess::binary())
        .args(["serve", "--stop-timeout", stop_timeout])
        .envs(env.environment("127.0.0.1:0"))
        .env("KMS_FAILPOINT", failpoint)
        // The errors of the process itself are logged whatever the filter is.
        .env("RUST_LOG", "kms_server=info")
        .current_dir(env.directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if terminate && line["event"] == "listening" {
            Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        }
        log.push((Instant::now(), line));
    }
    Ended { status: child.wait().unwrap(), log, at: Instant::now() }
}

#[actix_web::test]
async fn a_worker_that_panics_ends_the_process_with_one_line_that_names_it() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    env.migrate().await.unwrap();
    for worker in ["watch_transfers", "http_server"] {
        let ended = serve(&env, &format!("worker-panics:{worker}"), "25", false);
        assert!(ended.has_listened());
        let error = ended.error();
        assert_eq!((&error["event"], &error["worker"]), (&"panic".into(), &worker.into()));
        assert_eq!(error["panic"], "failpoint");
        assert!(error["location"].as_str().unwrap().contains("failpoint.rs:"), "{error}");
    }
}

#[actix_web::test]
async fn a_worker_or_http_server_that_ends_ends_the_process_with_one_line_that_names_it() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    env.migrate().await.unwrap();
    for worker in ["follow_blocks", "http_server"] {
        let ended = serve(&env, &format!("worker-ends:{worker}"), "25", false);
        assert!(ended.has_listened());
        let error = ended.error();
        assert_eq!((&error["event"], &error["worker"]), (&"worker_ended".into(), &worker.into()));
    }
}

#[actix_web::test]
async fn a_stop_that_exceeds_its_deadline_names_what_is_still_running() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    env.migrate().await.unwrap();
    let ended = serve(&env, "worker-hangs:check_wallets", "10", true);
    let error = ended.error();
    assert_eq!(error["event"], "stop_timeout");
    assert_eq!(error["workers"], "check_wallets");
    let stopping = ended.log.iter().find(|(_, line)| line["event"] == "stopping").unwrap().0;
    let took = ended.at.duration_since(stopping);
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(24), "{took:?}");
}

#[actix_web::test]
async fn without_a_failure_the_process_stops_at_once_and_without_an_error() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    env.migrate().await.unwrap();
    let ended = serve(&env, "worker-hangs:no_such_worker", "25", true);
    assert!(ended.status.success());
    assert!(ended.log.iter().all(|(_, line)| line["level"] != "ERROR"));
}

#[test]
fn an_error_at_the_start_is_one_line_of_json() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    // Nothing is migrated.
    let ended = serve(&env, "", "25", false);
    assert!(!ended.has_listened());
    let error = ended.error();
    assert_eq!(error["event"], "start_failed");
    insta::assert_snapshot!("start_without_a_schema", error["error"].as_str().unwrap());
}
