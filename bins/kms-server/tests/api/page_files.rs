//! The files of the vault page, as the public listener serves them.

use std::collections::{BTreeMap, BTreeSet};

use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_types::ErrorCode;
use reqwest::header::HeaderMap;
use reqwest::{Response, StatusCode};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; form-action 'none'; base-uri 'none'; \
    frame-ancestors https://web.telegram.org; require-trusted-types-for 'script'; \
    trusted-types 'none'";

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
}

fn assert_protected(response: &Response) {
    let headers = response.headers();
    assert_eq!(header(headers, "content-security-policy"), POLICY);
    assert_eq!(header(headers, "referrer-policy"), "no-referrer");
    assert_eq!(header(headers, "x-content-type-options"), "nosniff");
    assert_eq!(header(headers, "strict-transport-security"), "max-age=63072000");
    assert!(header(headers, "permissions-policy").contains("camera=()"));
    assert!(!headers.keys().any(|name| name.as_str().starts_with("access-control")));
    assert!(!headers.contains_key("set-cookie"));
}

/// The texts of the document's attribute.
fn attribute<'a>(document: &'a str, before: &str) -> &'a str {
    let (_, rest) = document.split_once(before).unwrap();
    rest.split('"').next().unwrap()
}

#[actix_web::test]
async fn the_page_is_served_with_its_headers() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    env.page.app = Some("https://t.me/acme_vault_bot/wallet".parse().unwrap());
    let test = TestServer::start(env).await;
    let http = test.raw();
    let get = async |path: &str| http.get(test.page_url(path)).send().await.unwrap();

    let page = get("/").await;
    assert_eq!(page.status(), StatusCode::OK);
    assert_protected(&page);
    assert_eq!(header(page.headers(), "cache-control"), "no-store");
    assert_eq!(header(page.headers(), "content-type"), "text/html; charset=utf-8");
    let document = page.text().await.unwrap();
    assert_eq!(attribute(&document, "name=\"app\" content=\""), env_app(&test));
    // Neither scripts nor styles nor handlers of its own, which the policy would refuse.
    for inline in ["<style", "style=", "onclick", "onload", "javascript:", "{version}", "{app}"] {
        assert!(!document.contains(inline), "{inline}");
    }
    for (before, kind) in
        [("type=\"module\" src=\"", "text/javascript"), ("stylesheet\" href=\"", "text/css")]
    {
        let path = attribute(&document, before);
        let file = get(path).await;
        assert_eq!(file.status(), StatusCode::OK, "{path}");
        assert_protected(&file);
        let cached = header(file.headers(), "cache-control");
        assert_eq!(cached, "public, max-age=31536000, immutable");
        assert!(header(file.headers(), "content-type").starts_with(kind));
        // The file of another release is not this one.
        let version = path.split('/').nth(2).unwrap();
        let other = path.replace(version, &"0".repeat(64));
        for missing in [other, path.replace("/app.", "/../app."), format!("{path}.map")] {
            let missing = get(&missing).await;
            assert_eq!(missing.status(), StatusCode::NOT_FOUND);
            assert_eq!(header(missing.headers(), "cache-control"), "no-store");
        }
    }
}

fn env_app(test: &TestServer) -> String {
    test.env.page.app.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn texts(json: &str) -> BTreeMap<String, String> {
    serde_json::from_str(json).unwrap()
}

fn placeholders(text: &str) -> BTreeSet<&str> {
    text.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name).collect()
}

#[test]
fn both_languages_say_the_same_things() {
    let english = texts(include_str!("../../page/texts/en.json"));
    let german = texts(include_str!("../../page/texts/de.json"));
    let keys = |texts: &BTreeMap<String, String>| texts.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(&english), keys(&german));
    for (key, text) in &english {
        assert_eq!(placeholders(text), placeholders(&german[key]), "{key}");
        // What is not translated was forgotten.
        let may_be_equal = ["code", "outcome.password_locked", "lift.own"];
        assert!(may_be_equal.contains(&key.as_str()) || *text != german[key], "{key}");
    }
    for code in ErrorCode::ALL {
        assert!(english.contains_key(&format!("error.{}", code.as_str())), "{code:?}");
    }
}

/// The owner sees what was done with the account and its key: each action of the audit has a text,
/// but for reads and what is about no account.
#[test]
fn every_use_of_an_account_has_a_text() {
    let audit = include_str!("../../../../crates/kms-core/src/audit.rs");
    let names =
        audit.split("pub fn as_str(self)").nth(1).unwrap().split("\n    }\n").next().unwrap();
    let names = names.lines().filter_map(|line| line.split_once("=> \"")?.1.split('"').next());
    let hidden = ["read_row", "read_contact", "probe_kms_key", "authenticate", "token_revoke"];
    let named: BTreeSet<_> = names.filter(|name| !hidden.contains(name)).collect();
    let json = include_str!("../../page/texts/en.json");
    let english = texts(json);
    let shown = english.keys().filter_map(|key| key.strip_prefix("use."));
    let shown: BTreeSet<_> = shown.filter(|key| !["page", "elsewhere"].contains(key)).collect();
    assert!(named.len() > 25, "the source was not read");
    assert_eq!(named, shown);
    for json in [json, include_str!("../../page/texts/de.json")] {
        let lines = json.lines().filter(|line| line.contains("\": \"")).count();
        assert_eq!(lines, texts(json).len(), "a key is there twice");
    }
}

/// Every literal key of the modules is a text, and every text is used.
#[test]
fn every_text_is_used_and_none_is_missing() {
    let english = texts(include_str!("../../page/texts/en.json"));
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/page");
    let mut modules = String::new();
    for directory in [page.to_owned(), format!("{page}/screens")] {
        for file in std::fs::read_dir(directory).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|kind| kind == "js") {
                modules.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    for call in [" t('", "(t('", "[t('", ".t('", " rich('", "(rich('"] {
        for rest in modules.split(call).skip(1) {
            let key = rest.split('\'').next().unwrap();
            assert!(english.contains_key(key), "{key} is missing");
        }
    }
    for key in english.keys() {
        // `error.${code}` and the like.
        let is_family =
            |(dot, _): (usize, &str)| modules.contains(&format!("`{}.${{", &key[..dot]));
        let is_used =
            modules.contains(&format!("'{key}'")) || key.match_indices('.').any(is_family);
        assert!(is_used, "{key} is not used");
    }
}

/// One peer cannot take every connection, and gets new ones once its own are closed.
#[actix_web::test]
async fn a_peer_has_a_limited_number_of_connections() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    env.page.connections_per_peer = 3;
    let test = TestServer::start(env).await;
    // Each client keeps its connection.
    let clients: Vec<_> = (0..4).map(|_| test.raw()).collect();
    let mut statuses = Vec::new();
    for client in &clients {
        let forwarded = client.get(test.page_url("/")).header("x-forwarded-for", "192.0.2.1");
        let answer = forwarded.send().await.unwrap();
        assert_protected(&answer);
        statuses.push(answer.status().as_u16());
        answer.bytes().await.unwrap();
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
    drop(clients);
    let again = async || test.raw().get(test.page_url("/")).send().await.unwrap().status();
    for _ in 0..600 {
        if again().await == StatusCode::OK {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the connections of closed clients still count");
}
