//! The bot's operations listener, and how a user's message is found in the logs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bot_api_sim::Message;
use kms_sandbox::{Stage, StageOptions};
use kms_types::TraceId;
use serde_json::Value;

use crate::process::command;
use crate::world::{Plays, World};

const PAGE: &str = include_str!("../../../../docs/operating/monitoring.md");

/// The answer to a request, head included.
fn ask(address: &str, method: &str, path: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: bot\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_served_over_plain_http() {
    let options = StageOptions { bot: false, ..StageOptions::default() };
    let stage = Stage::start(options).await.unwrap();
    let mut serve = command(&stage, "serve");
    let mut child = serve.env("RUST_LOG", "info").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.find_map(|line| {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        line["ops_address"].as_str().map(ToOwned::to_owned)
    });
    let address = address.unwrap();
    for path in ["/healthz", "/readyz", "/metrics"] {
        for method in ["GET", "HEAD"] {
            let answer = ask(&address, method, path);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{method} {path}: {answer}");
        }
    }
    assert!(ask(&address, "GET", "/").starts_with("HTTP/1.1 404 "));
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut metrics = ask(&address, "GET", "/metrics");
    while !metrics.contains("kms_bot_oldest_notice_seconds 0") {
        assert!(Instant::now() < deadline, "{metrics}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        metrics = ask(&address, "GET", "/metrics");
    }
    let families = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for family in families.map(|line| line.split(' ').next().unwrap()) {
        assert!(PAGE.contains(&format!("`{family}")), "{family} is not in the operators' table");
    }

    // Telegram is asked again for a while; a minute without an answer is an outage.
    stage.stop().await;
    let since = Instant::now();
    while ask(&address, "GET", "/readyz").starts_with("HTTP/1.1 200 ") {
        assert!(since.elapsed() < Duration::from_secs(120), "readiness never failed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(ask(&address, "GET", "/healthz").starts_with("HTTP/1.1 200 "));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn support_shows_the_code_of_the_last_message() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let mut carl = world.stage.sim.phone(3, "Carl", Some("carl"));
    carl.says("/support");
    carl.bot("support-none").await;
    world.ann.says("/balance");
    world.ann.bot("balance-coin").await;
    world.ann.says("/support");
    let shown = world.ann.bot("support-code").await;
    let code = |message: &Message| {
        let words = message.text.split_whitespace();
        let codes = words.filter_map(|word| word.trim_end_matches('.').parse::<TraceId>().ok());
        codes.collect::<Vec<_>>()
    };
    let first = code(&shown);
    assert_eq!(first.len(), 1, "{}", shown.text);
    // It is no message of its own.
    world.ann.says("/support");
    assert_eq!(code(&world.ann.bot("support-code").await), first);
    world.ann.says("/balance");
    world.ann.bot("balance-coin").await;
    world.ann.says("/support");
    assert_ne!(code(&world.ann.bot("support-code").await), first);
    world.stage.stop().await;
}
