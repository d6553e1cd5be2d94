//! What stops the payments of all accounts: the pause, the hourly limit, listed addresses, the
//! limit of assets that are not listed, and the operator's own program.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use kms_client::{ClientError, hash_password};
use kms_server::Secret;
use kms_server::config::{LimitSettings, PaymentPolicySettings};
use kms_server_testing::commands::{fails, succeeds};
use kms_server_testing::requests::{confirm, quote, telegram};
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_types::wire::{ExportKey, QuoteTransfer, Transfer, TransferState};
use kms_types::{ErrorCode, Problem};
use ring::hmac;
use serde_json::{Value, json};

const WORDS: &str = "ann's password";
const STRANGER: &str = "0x00000000000000000000000000000000000000cc";
const KEY: &str = "0123456789abcdef0123456789abcdef";

async fn refused<T: std::fmt::Debug>(
    request: impl Future<Output = Result<T, ClientError>>,
) -> Problem {
    match request.await {
        Err(ClientError::Problem(problem)) => *problem,
        other => panic!("{other:?}"),
    }
}

async fn sends(test: &TestServer, request: &QuoteTransfer) -> Result<Transfer, ClientError> {
    let quoted = test.client.quote(request).await?;
    test.client.confirm(quoted.id, &confirm(&quoted, WORDS)).await
}

async fn started(change: impl FnOnce(&mut TestEnv)) -> TestServer {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    change(&mut env);
    let test = TestServer::start(env).await;
    test.ann_and_bob().await;
    test
}

#[actix_web::test]
async fn an_operator_pauses_the_payments_of_a_chain() {
    let test = started(|env| env.use_chain_id(1_001).unwrap()).await;
    let run = |command: &str| succeeds(&test.env, &format!("payments {command}"));
    let chain = test.env.chain.chain_id;
    let before = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    // Signed, and in no block.
    test.env.anvil.rpc("evm_setAutomine", json!([false])).unwrap();
    let sent = sends(&test, &quote(1, "@bob", "1")).await.unwrap();
    let other = sends(&test, &quote(1, "@bob", "1")).await.unwrap();

    let own = format!("chain {chain}: not paused\n");
    assert_eq!(run("status"), format!("all chains: not paused\n{own}"));
    assert_eq!(run("pause"), "all chains: paused\n");
    let status = run("status");
    assert!(status.starts_with("all chains: paused since ") && status.ends_with(&own), "{status}");
    let deadline = Instant::now() + Duration::from_secs(60);
    let problem = loop {
        match test.client.quote(&quote(1, "@bob", "1")).await {
            Err(ClientError::Problem(problem)) => break *problem,
            Ok(_) => assert!(Instant::now() < deadline, "the pause is not obeyed"),
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((problem.code, problem.status), (ErrorCode::PaymentsPaused, 503));
    // A quote from before is not signed either, nor is a payment signed again.
    let confirmed = refused(test.client.confirm(before.id, &confirm(&before, WORDS))).await;
    assert_eq!(confirmed.code, ErrorCode::PaymentsPaused);
    // Nor is a key exported, which would pay without this server.
    let password_hash = hash_password(1.try_into().unwrap(), WORDS).await;
    let export = ExportKey { password_hash };
    let exported = refused(test.client.export(telegram(1), &export)).await;
    assert_eq!(exported.code, ErrorCode::PaymentsPaused);
    // What was signed can be cancelled, or proceeds.
    test.client.cancel(other.id).await.unwrap();
    test.env.anvil.rpc("evm_setAutomine", json!([true])).unwrap();
    test.env.anvil.rpc("anvil_mine", json!(["0x4"])).unwrap();
    test.until(sent.id, TransferState::Mined).await;

    // The pause outlives the server.
    let test = test.restart().await;
    let paused = refused(test.client.quote(&quote(1, "@bob", "1"))).await;
    assert_eq!(paused.code, ErrorCode::PaymentsPaused);
    let metrics = test.ops("/metrics").await.text().await.unwrap();
    assert!(
        metrics.contains(&format!("kms_payments_paused{{chain=\"{chain}\"}} 1\n")),
        "{metrics}"
    );
    let reason = format!("kms_payments_refused_total{{chain=\"{chain}\",reason=\"paused\"}}");
    assert!(metrics.contains(&reason), "{metrics}");
    // Recoveries are another switch.
    fails(&test.env, "recoveries resume --reason ticket-9");
    assert_eq!(
        succeeds(&test.env, "payments resume --all --reason ticket-9"),
        "all chains: resumed\n"
    );
    fails(&test.env, "payments resume --all --reason ticket-9");
    let deadline = Instant::now() + Duration::from_secs(60);
    while test.client.quote(&quote(1, "@bob", "1")).await.is_err() {
        assert!(Instant::now() < deadline, "the pause is obeyed for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let rows = test.database.audit_after(0, 1_000).await.unwrap();
    for action in ["payments_pause", "payments_resume"] {
        assert!(rows.iter().any(|row| row.action == action), "{action}");
    }
}

#[actix_web::test]
async fn all_accounts_together_send_no_more_in_an_hour_than_the_operator_allows() {
    let three = |env: &mut TestEnv| {
        env.limits.outflow_an_hour = [("ETH".to_owned(), "3".parse().unwrap())].into();
    };
    let test = started(three).await;
    sends(&test, &quote(1, "@bob", "2")).await.unwrap();
    let second = test.client.quote(&quote(1, "@bob", "2")).await.unwrap();
    let confirmation = confirm(&second, WORDS);
    let problem = refused(test.client.confirm(second.id, &confirmation)).await;
    assert_eq!((problem.code, problem.status), (ErrorCode::PaymentsPaused, 503));
    // A third of the bucket is missing, which refills in twenty minutes.
    let wait = problem.retry_after.unwrap();
    assert!((1_140..=1_201).contains(&wait), "{wait}");
    let quoted = test.client.transfer(second.id).await.unwrap().unwrap();
    assert_eq!(quoted.state, TransferState::Quoted);
    // Other servers count the same, what is refused takes nothing, and a part still fits.
    let test = test.restart().await;
    sends(&test, &quote(1, "@bob", "0.9")).await.unwrap();
    // More than the limit never fits.
    let problem = refused(test.client.quote(&quote(1, "@bob", "3.1"))).await;
    assert_eq!(problem.code, ErrorCode::PaymentRefused);
}

#[actix_web::test]
async fn an_asset_without_a_limit_has_that_of_one_coin_a_day() {
    let default = LimitSettings::default().spend_a_day_unlisted;
    let test = started(|env| env.limits.spend_a_day_unlisted = default).await;
    let problem = refused(test.client.quote(&quote(1, "@bob", "1.5"))).await;
    assert_eq!(problem.code, ErrorCode::LimitReached);
    sends(&test, &quote(1, "@bob", "0.5")).await.unwrap();
    let problem = refused(test.client.quote(&quote(1, "@bob", "0.6"))).await;
    assert_eq!(problem.code, ErrorCode::LimitReached);
}

#[actix_web::test]
async fn only_users_and_listed_addresses_are_paid() {
    let listed = "0x00000000000000000000000000000000000000dd";
    let only = |env: &mut TestEnv| {
        env.limits.external_addresses = Some(vec![listed.parse().unwrap()]);
    };
    let test = started(only).await;
    let problem = refused(test.client.quote(&quote(1, STRANGER, "1"))).await;
    assert_eq!((problem.code, problem.status), (ErrorCode::PaymentRefused, 403));
    sends(&test, &quote(1, listed, "1")).await.unwrap();
    let bob = test.client.account(kms_server_testing::requests::telegram(2)).await.unwrap();
    sends(&test, &quote(1, "@bob", "1")).await.unwrap();
    sends(&test, &quote(1, &bob.unwrap().address.to_string(), "1")).await.unwrap();
    // A quote from before the address was removed is not signed.
    let quoted = test.client.quote(&quote(1, listed, "1")).await.unwrap();
    let mut test = test;
    test.env.limits.external_addresses = Some(Vec::new());
    let test = test.restart().await;
    let problem = refused(test.client.confirm(quoted.id, &confirm(&quoted, WORDS))).await;
    assert_eq!(problem.code, ErrorCode::PaymentRefused);
}

/// A request to the operator's program.
struct Asked {
    signature: String,
    body: String,
}

/// Starts the operator's program. It answers each request with the next of these, if there is one.
fn start_policy(answers: Receiver<&'static str>) -> (String, Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/payments", listener.local_addr().unwrap());
    let (asked, questions): (Sender<Asked>, _) = channel();
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut line, mut length, mut signature) = (String::new(), 0, String::new());
            while stream.read_line(&mut line).unwrap() > 2 {
                let (name, value) = line.split_once(": ").unwrap_or_default();
                match name.to_lowercase().as_str() {
                    "content-length" => length = value.trim().parse().unwrap(),
                    "kms-signature" => signature = value.trim().to_owned(),
                    _ => {}
                }
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            asked.send(Asked { signature, body: String::from_utf8(body).unwrap() }).unwrap();
            match answers.recv() {
                Ok("") | Err(_) => held.push(stream),
                Ok(answer) => stream.get_mut().write_all(answer.as_bytes()).unwrap(),
            }
        }
    });
    (url, questions)
}

fn answer(body: &str) -> &'static str {
    let length = body.len();
    let head = "Content-Type: application/json\r\nConnection: close";
    format!("HTTP/1.1 200 OK\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}").leak()
}

#[actix_web::test]
async fn the_operators_program_is_asked_before_a_payment_is_signed() {
    let (answers, next) = channel();
    let (url, questions) = start_policy(next);
    let asking = |env: &mut TestEnv| {
        let (url, key) = (url.parse().unwrap(), Secret::from(KEY.to_owned()));
        env.payment_policy = Some(PaymentPolicySettings { url, key });
    };
    let test = started(asking).await;
    answers.send(answer(r#"{"allow": true}"#)).unwrap();
    let sent = sends(&test, &quote(1, "@bob", "1")).await.unwrap();
    let Asked { signature, body } = questions.recv().unwrap();
    let (time, tag) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    let signed = format!("{time}.{body}");
    hmac::verify(&key, signed.as_bytes(), &hex::decode(tag).unwrap()).unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["transfer"], sent.id.to_string());
    assert_eq!(body["chain_id"], test.env.chain.chain_id);
    assert_eq!((&body["asset"], &body["to"]["username"]), (&json!("native"), &json!("bob")));
    assert_eq!(body["value"], "1000000000000000000");
    assert_eq!(body["at"].to_string(), time);

    // Only its consent allows; nothing is signed otherwise.
    answers.send(answer(r#"{"allow": false}"#)).unwrap();
    let problem = refused(sends(&test, &quote(1, "@bob", "1"))).await;
    assert_eq!((problem.code, problem.status), (ErrorCode::PaymentRefused, 403));
    let long = answer(&format!("{}{}", r#"{"allow": true}"#, " ".repeat(2_000)));
    for unclear in [
        answer("{}"),
        answer("true"),
        answer(r#"{"allow": "true"}"#),
        long,
        "HTTP/1.1 500 No\r\nContent-Length: 15\r\n\r\n{\"allow\": true}",
        "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        "nonsense",
    ] {
        answers.send(unclear).unwrap();
        let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
        let problem = refused(test.client.confirm(quoted.id, &confirm(&quoted, WORDS))).await;
        assert_eq!((problem.code, problem.status), (ErrorCode::PaymentsPaused, 503), "{unclear}");
        let after = test.client.transfer(quoted.id).await.unwrap().unwrap();
        assert_eq!(after.state, TransferState::Quoted);
    }
    // It has two seconds.
    answers.send("").unwrap();
    let began = Instant::now();
    let problem = refused(sends(&test, &quote(1, "@bob", "1"))).await;
    assert_eq!(problem.code, ErrorCode::PaymentsPaused);
    assert!(began.elapsed() >= Duration::from_secs(2));
    // What is refused used no attempt at a password.
    answers.send(answer(r#"{"allow": true}"#)).unwrap();
    sends(&test, &quote(1, "@bob", "1")).await.unwrap();
}
