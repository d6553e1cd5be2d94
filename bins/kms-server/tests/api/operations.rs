//! The operations listener: health, readiness, metrics, and what a load balancer sees at a stop.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use futures::future::join_all;
use kms_server::Server;
use kms_server_testing::commands::{kms_server, succeeds};
use kms_server_testing::requests::{confirm, create, quote, telegram};
use kms_server_testing::{ServerProcess, Stores, TestEnv, TestServer};
use kms_store::Scope;
use kms_testkit::{Mongod, Postgres};
use kms_types::{ErrorCode, TraceId};
use reqwest::Method;
use serde_json::Value;

const PATHS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Waits until `/readyz` answers with this status, and returns its body.
pub(crate) async fn until_ready(status: u16, ask: impl AsyncFn() -> reqwest::Response) -> Value {
    for _ in 0..1_200 {
        let answer = ask().await;
        if answer.status() == status {
            return answer.json().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("readiness never was {status}");
}

/// An environment on a PostgreSQL of its own.
fn with_own_postgres(postgres: &Postgres) -> TestEnv {
    let database = postgres.create_database().unwrap();
    let directory = kms_testkit::Scratch::new("server").unwrap();
    let keys = Mongod::shared().unwrap().url();
    TestEnv::on(directory, database, keys, format!("kms_{}", std::process::id())).unwrap()
}

#[actix_web::test]
async fn health_and_metrics_are_on_the_operations_listener_alone() {
    let test = TestServer::start(TestEnv::new(Stores::Embedded).unwrap()).await;
    let ops = format!("http://{}", test.server.ops_address());
    let plain = reqwest::Client::new();
    for path in PATHS {
        assert_eq!(test.raw().get(test.url(path)).send().await.unwrap().status(), 404, "{path}");
        for method in [Method::GET, Method::HEAD] {
            let request = plain.request(method.clone(), format!("{ops}{path}"));
            assert_eq!(request.send().await.unwrap().status(), 200, "{method} {path}");
        }
    }
    assert_eq!(plain.get(format!("{ops}/v1/networks")).send().await.unwrap().status(), 404);
    let metrics = test.ops("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("kms_http_requests_total"), "{metrics}");
    assert!(metrics.contains("kms_http_request_duration_seconds_bucket"), "{metrics}");
    assert!(metrics.contains("kms_alarms_total{event=\"integrity_alarm\"} 0"), "{metrics}");
    let page = include_str!("../../../../docs/operating/monitoring.md");
    for family in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let family = family.split(' ').next().unwrap();
        assert!(page.contains(&format!("`{family}")), "{family} is not in the operators' table");
    }
}

/// Waits until the metrics have all of these.
async fn until_metrics(test: &TestServer, parts: &[String]) {
    for _ in 0..1_200 {
        let metrics = test.ops("/metrics").await.text().await.unwrap();
        if parts.iter().all(|part| metrics.contains(part)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no metrics {parts:?}");
}

#[actix_web::test]
async fn an_address_in_use_is_reported_with_its_setting() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    env.migrate().await.unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for setting in ["listen", "ops.listen", "page.listen"] {
        let mut settings = env.settings().unwrap();
        *match setting {
            "listen" => &mut settings.listen,
            "ops.listen" => &mut settings.ops.listen,
            _ => &mut settings.page.listen,
        } = address;
        let refused = Server::start(settings).await.err().unwrap().to_string();
        let expected = format!("{setting}: {address} cannot be listened on: ");
        assert!(refused.starts_with(&expected), "{refused}");
    }
}

#[actix_web::test]
async fn money_and_the_chain_show_in_numbers() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    env.use_chain_id(1_002).unwrap();
    // The second endpoint is down.
    env.rpc_urls = format!("{} http://127.0.0.1:1 {0}", env.anvil.url());
    let test = TestServer::start(env).await;
    test.ann_and_bob().await;
    let quoted = test.client.quote(&quote(1, "@bob", "1.5")).await.unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    let chain = format!("chain=\"{}\"", test.env.chain.chain_id);
    let parts = [
        format!("kms_payment_amount_sum{{{chain},asset=\"native\"}} 1.5\n"),
        format!("kms_payment_amount_count{{{chain},asset=\"native\"}} 1\n"),
        format!("kms_chain_head_age_seconds{{{chain}}} "),
        format!("kms_deposit_lag_seconds{{{chain}}} "),
        format!("kms_chain_request_duration_seconds_count{{{chain},endpoint=\"1\"}} "),
        format!("kms_chain_request_errors_total{{{chain},endpoint=\"2\",reason=\"no_answer\"}} "),
    ];
    until_metrics(&test, &parts).await;
}

#[actix_web::test]
async fn a_silent_chain_is_reported_by_readiness_and_does_not_fail_it() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    env.migrate().await.unwrap();
    env.anvil.pause().unwrap();
    let test = TestServer::start(env).await;
    let mut ready: Value = test.ops("/readyz").await.json().await.unwrap();
    for _ in 0..1_200 {
        if ready["chains"]["31337"] != "unknown" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        ready = until_ready(200, async || test.ops("/readyz").await).await;
    }
    let statuses = (&ready["chains"]["31337"], &ready["database"]);
    assert_eq!(statuses, (&"down".into(), &"ok".into()), "{ready}");
    // Each before a call of the chain would have timed out.
    for _ in 0..20 {
        let since = Instant::now();
        assert_eq!(test.ops("/readyz").await.status(), 200);
        assert!(since.elapsed() < test.env.chain.rpc_timeout, "{:?}", since.elapsed());
    }
}

#[actix_web::test]
async fn a_silent_postgresql_is_reported_and_holds_no_thread_a_request() {
    let mut postgres = Postgres::start().unwrap();
    let env = with_own_postgres(&postgres);
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, Scope::Bot).await.unwrap();
    let server = ServerProcess::start(&env, None, "info");
    let client = server.client(&env, &token);
    client.create_account(&create(1, "ann", "ann's")).await.unwrap();
    let threads = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
        line.trim().parse::<usize>().unwrap()
    };
    let before = threads();

    postgres.pause().unwrap();
    let reads = || join_all((0..100).map(|id| client.account(telegram(1_000 + id))));
    for refused in reads().await {
        assert_eq!(refused.unwrap_err().code(), Some(ErrorCode::StoreUnavailable));
    }
    let found = (Value::from("down"), Value::from("ok"));
    let mut ready = Value::Null;
    for _ in 0..600 {
        ready = until_ready(503, async || server.ops("/readyz").await).await;
        if (&ready["database"], &ready["key_database"]) == (&found.0, &found.1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((&ready["database"], &ready["key_database"]), (&found.0, &found.1), "{ready}");
    let down = kms_server(&env, &format!("healthcheck --address 127.0.0.1:{}", server.ops_port))
        .status()
        .unwrap();
    assert_eq!(down.code(), Some(1));
    // At most one for each of the pool's 16 connections and of about twenty workers, not one for
    // each of the hundred requests.
    assert!(threads() <= before + 36, "{before} threads before, {} now", threads());

    postgres.resume().unwrap();
    until_ready(200, async || server.ops("/readyz").await).await;
    assert!(client.account(telegram(1)).await.unwrap().is_some());
    succeeds(&env, &format!("healthcheck --address 127.0.0.1:{}", server.ops_port));

    // After a failover every pooled connection is broken, and the check finds them all.
    reads().await;
    postgres.kill().unwrap();
    until_ready(503, async || server.ops("/readyz").await).await;
    postgres.start_again().unwrap();
    until_ready(200, async || server.ops("/readyz").await).await;
    for read in reads().await {
        assert_eq!(read.unwrap(), None);
    }
    server.terminate();
}

#[actix_web::test]
async fn a_stopping_server_sends_its_clients_elsewhere_before_it_stops_listening() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    env.ops.drain = Some(Duration::from_secs(15));
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, Scope::Bot).await.unwrap();
    let server = ServerProcess::start(&env, None, "info");
    let client = server.client(&env, &token);
    let certificate = reqwest::Certificate::from_pem(env.certificate.as_bytes()).unwrap();
    let raw = reqwest::Client::builder().add_root_certificate(certificate).build().unwrap();
    let url = format!("https://localhost:{}/v1/networks", server.port);
    let connection = async || {
        let answer = raw.get(&url).send().await.unwrap();
        answer.headers().get("connection").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(connection().await, None);
    Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap();
    let ready = until_ready(503, async || server.ops("/readyz").await).await;
    assert_eq!((&ready["draining"], &ready["database"]), (&true.into(), &"ok".into()));
    assert_eq!(client.account(telegram(1)).await.unwrap(), None);
    // The next request of this client goes elsewhere.
    assert_eq!(connection().await.as_deref(), Some("close"));
    let log = server.terminate();
    assert!(log.contains(r#""event":"stopping""#), "{log}");
}

#[actix_web::test]
async fn the_log_leads_from_a_callers_trace_id_to_the_audit() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, Scope::Bot).await.unwrap();
    let server = ServerProcess::start(&env, None, "info");
    let (client, id) = (server.client(&env, &token), TraceId::random());
    let ann = create(1, "ann", "ann's");
    kms_client::traced(id.clone(), client.create_account(&ann)).await.unwrap();
    client.account(telegram(1)).await.unwrap();
    let log = server.terminate();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let traced: Vec<_> = lines.filter(|line| line["trace"] == id.to_string()).collect();
    let [line] = traced.as_slice() else { panic!("{log}") };
    assert_eq!((line["method"].as_str(), line["status"].as_u64()), (Some("POST"), Some(201)));
    let audit = succeeds(&env, "audit export");
    let request = line["request_id"].as_str().unwrap();
    assert!(audit.lines().any(|row| row.contains(request) && row.contains("create")), "{audit}");
}
