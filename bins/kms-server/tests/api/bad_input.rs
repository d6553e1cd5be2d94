//! Invalid requests get an error that names the field and never quotes the input.

use kms_server_testing::{TestServer, on_both_stores};
use kms_types::{ErrorCode, Problem};
use serde_json::{Value, json};

on_both_stores!(bad_bodies_are_refused, bad_paths_are_refused, the_api_is_documented_and_monitored);

async fn post(test: &TestServer, path: &str, body: impl Into<reqwest::Body>) -> Problem {
    let request = test
        .raw()
        .post(test.url(path))
        .bearer_auth(&test.token)
        .header("content-type", "application/json")
        .body(body);
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert!(response.headers().contains_key("x-request-id"));
    response.json().await.unwrap()
}

async fn bad_bodies_are_refused(test: TestServer) {
    test.ann_and_bob().await;
    let hash = format!("v1.{}", "0".repeat(64));
    let id = "6f1c5f0a-3c0e-4d52-9a3e-0f6b7c9d1e2f";
    let mut seen = Vec::new();
    let mut cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("/v1/accounts", "empty", b"".to_vec()),
        ("/v1/accounts", "not JSON", b"{".to_vec()),
        ("/v1/accounts", "not UTF-8", b"{\"telegram_id\":1,\"usernames\":[\"\xff\"]}".to_vec()),
        ("/v1/accounts", "two documents", b"{}{}".to_vec()),
        ("/v1/accounts", "too large", vec![b' '; 17 * 1024]),
        ("/v1/accounts", "an array", b"[]".to_vec()),
    ];
    let mut json_case = |path, name, body: Value| {
        cases.push((path, name, body.to_string().into_bytes()));
    };
    let account = |field: &str, value: Value| {
        let mut body = json!({"telegram_id": 5, "password_hash": hash});
        body[field] = value;
        body
    };
    json_case("/v1/accounts", "a missing field", json!({"telegram_id": 5}));
    json_case("/v1/accounts", "an unknown field", account("seed_phrase", json!("x")));
    json_case("/v1/accounts", "a secret for a field", account("hunter2", json!(1)));
    json_case("/v1/accounts", "values without names", json!([5, hash, "hunter2"]));
    json_case("/v1/accounts", "a number as name", account("usernames", json!([12_345_678])));
    json_case("/v1/accounts", "a fraction as name", account("usernames", json!([12_345_678.5])));
    json_case("/v1/accounts", "a list as name", account("usernames", json!([[12_345_678]])));
    json_case("/v1/accounts", "an object as name", account("usernames", json!([{"hunter2": 1}])));
    json_case("/v1/accounts", "a name without a list", account("usernames", json!("hunter2")));
    let many: Vec<_> = (0..17).map(|number| format!("name{number}")).collect();
    json_case("/v1/accounts", "too many names", account("usernames", json!(many)));
    json_case("/v1/accounts", "a negative id", account("telegram_id", json!(-5)));
    json_case("/v1/accounts", "an id of zero", account("telegram_id", json!(0)));
    json_case("/v1/accounts", "an id too large", account("telegram_id", json!(1_i64 << 52)));
    json_case("/v1/accounts", "an id in a string", account("telegram_id", json!("5")));
    json_case("/v1/accounts", "a bare password", account("password_hash", json!("hunter2")));
    json_case("/v1/accounts", "a NUL in a name", account("usernames", json!(["a\u{0}b"])));
    json_case("/v1/accounts", "a bad e-mail", account("email", json!("ann@")));
    json_case("/v1/accounts", "a bad mobile", account("mobile", json!("0151")));
    let quote = |field: &str, value: Value| {
        let mut body = json!({"id": id, "from": "telegram:1", "to": "@bob", "amount": "1"});
        body[field] = value;
        body
    };
    for amount in ["", "-1", "+1", "1,5", "1_000", "1e3", ".5", "5.", "0", "0x10", "1 000", "ALL"] {
        json_case("/v1/transfers", "an amount", quote("amount", json!(amount)));
    }
    json_case("/v1/transfers", "a number as amount", quote("amount", json!(1.5)));
    let wrong = "0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
    json_case("/v1/transfers", "a bad checksum", quote("to", json!(wrong)));
    json_case("/v1/transfers", "an ENS name", quote("to", json!("bob.eth")));
    json_case("/v1/transfers", "a short address", quote("to", json!("0x12")));
    json_case("/v1/transfers", "a bad name", quote("to", json!("@b__b")));
    json_case("/v1/transfers", "a name without an @", quote("to", json!("hunter2")));
    json_case("/v1/transfers", "a bad sender", quote("from", json!("1")));
    json_case("/v1/transfers", "a bad id", quote("id", json!(id.to_uppercase())));
    json_case("/v1/transfers", "a NUL in a note", quote("client_ref", json!("\u{0}")));
    for (path, name, body) in cases {
        let problem = post(&test, path, body).await;
        let shown = format!("{problem:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("12345678"), "{shown}");
        seen.push(format!(
            "{name}: {} {} field={} {}",
            problem.status,
            problem.code.as_str(),
            problem.field.as_deref().unwrap_or("-"),
            problem.detail
        ));
    }
    let text = test.raw().post(test.url("/v1/accounts")).bearer_auth(&test.token).body("{}");
    let problem: Problem = text.send().await.unwrap().json().await.unwrap();
    seen.push(format!("no content type: {} {}", problem.status, problem.detail));
    insta::assert_snapshot!("bad_bodies", seen.join("\n"));
}

async fn bad_paths_are_refused(test: TestServer) {
    let mut seen = Vec::new();
    for path in [
        "/v1/accounts/1",
        "/v1/accounts/telegram:0",
        "/v1/accounts/telegram:%00",
        "/v1/accounts/telegram:5",
        "/v1/accounts/telegram:5/transfers?limit=0",
        "/v1/accounts/telegram:5/transfers?limt=5",
        "/v1/accounts/telegram:5/transfers?cursor=x",
        "/v1/transfers/x",
        "/v1/transfers/6f1c5f0a-3c0e-4d52-9a3e-0f6b7c9d1e2f",
        "/v1/names/a.b",
        "/v1/names/%ff",
        "/v1/names/nobody",
        "/v1/events?wait=1",
        "/v1/events?stream=both",
        "/v1/events?stream=security&wait=61",
        "/v1/events?stream=payments&after=5",
        "/v1/events?stream=security&acknowledge=0-9223372036854775807",
        "/v1/events?stream=payments&acknowledge=9223372036854775807-0",
        "/v1/nothing",
        "/",
    ] {
        let request = test.raw().get(test.url(path)).bearer_auth(&test.token);
        let problem: Problem = request.send().await.unwrap().json().await.unwrap();
        seen.push(format!(
            "{path}: {} {} field={} {}",
            problem.status,
            problem.code.as_str(),
            problem.field.as_deref().unwrap_or("-"),
            problem.detail
        ));
    }
    insta::assert_snapshot!("bad_paths", seen.join("\n"));
    let wrong_method = test.raw().delete(test.url("/v1/accounts/telegram:5/limits"));
    let answer = wrong_method.bearer_auth(&test.token).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["allow"] == "GET, PUT"), (405, true));
    let problem: Problem = answer.json().await.unwrap();
    assert_eq!(problem.code, ErrorCode::MethodNotAllowed);
}

async fn the_api_is_documented_and_monitored(test: TestServer) {
    let get = async |path: &str| test.raw().get(test.url(path)).send().await.unwrap();
    let document: Value = get("/openapi.json").await.json().await.unwrap();
    let text = document.to_string();
    for reference in text.split("\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document.pointer(reference).is_some(), "{reference} is in no document");
    }
    let described = document["paths"].as_object().unwrap().iter();
    for (path, item) in described.filter(|(path, _)| path.starts_with("/v1/")) {
        for (method, operation) in item.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            for status in ["401", "403", "500", "503"] {
                assert!(responses.contains_key(status), "{method} {path} {status}");
            }
            for (status, response) in
                responses.iter().filter(|(status, _)| *status >= &"4".to_owned())
            {
                let content = response["content"].as_object().unwrap();
                let types: Vec<_> = content.keys().collect();
                assert_eq!(types, ["application/problem+json"], "{method} {path} {status}");
            }
        }
    }
    assert_eq!(get("/docs/").await.status(), 200);
}
