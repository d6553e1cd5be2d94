//! The commands, as an operator runs them.

use std::process::{Command, Output};

use crate::harness::{Place, Stores};
use crate::process::ServerProcess;

fn run(place: &Place, arguments: &[&str], extra: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kms-server"))
        .args(arguments)
        .envs(place.environment("127.0.0.1:0"))
        .envs(extra.iter().copied())
        .current_dir(place.directory.path())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(text).unwrap()
}

#[actix_web::test]
async fn a_server_leaves_no_core_dump() {
    let place = Place::new(Stores::Embedded);
    place.migrated().await;
    let server = ServerProcess::start(&place, None, "info");
    let limits = server.limits();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
    server.terminate();
}

#[test]
fn an_operator_migrates_checks_and_hands_out_tokens() {
    for stores in [Stores::Embedded, Stores::Servers] {
        let place = Place::new(stores);
        let early = run(&place, &["serve"], &[]);
        assert!(!early.status.success());
        assert!(said(&early).contains("kms-server migrate"), "{}", said(&early));
        assert!(!run(&place, &["check-config"], &[]).status.success());
        assert!(run(&place, &["migrate"], &[]).status.success());
        assert!(run(&place, &["migrate"], &[]).status.success());
        let checked = run(&place, &["check-config"], &[]);
        let text = said(&checked);
        assert!(checked.status.success(), "{text}");
        for what in ["kms_key", "key_database", "chain", "database"] {
            assert!(text.contains(&format!("ok      {what}")), "{text}");
        }
        for secret in [&place.server_keys[0].1[2..], &place.certificate_key, "passphrase: \""] {
            assert!(!text.contains(secret), "{text}");
        }
        let made = run(&place, &["token", "new", "bot", "--scopes", "bot,read"], &[]);
        assert!(said(&made).starts_with("kms_"), "{}", said(&made));
        let twice = run(&place, &["token", "new", "bot", "--scopes", "bot"], &[]);
        assert!(said(&twice).contains("there is a token bot already"), "{}", said(&twice));
        let listed = said(&run(&place, &["token", "list"], &[]));
        assert_eq!(listed, "bot\tbot,read\tvalid\n");
        assert!(run(&place, &["token", "revoke", "bot"], &[]).status.success());
        assert!(!run(&place, &["token", "revoke", "bot"], &[]).status.success());
        assert!(said(&run(&place, &["token", "list"], &[])).contains("ended"));
        let rows = said(&run(&place, &["audit", "export"], &[]));
        let told: Vec<_> = rows
            .lines()
            .map(|row| {
                let row: serde_json::Value = serde_json::from_str(row).unwrap();
                let word = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
                format!("{} {}", word("actor"), word("outcome"))
            })
            .collect();
        let expected = [
            "kms-server migrate ok",
            "kms-server migrate ok",
            "kms-server token new bot -",
            "kms-server token new bot ok",
            "kms-server token new bot -",
            "kms-server token new bot failed",
            "kms-server token list ok",
            "kms-server token revoke bot -",
            "kms-server token revoke bot ok",
            "kms-server token revoke bot -",
            "kms-server token revoke bot failed",
            "kms-server token list ok",
            "kms-server audit export ok",
        ];
        assert_eq!(told, expected);
    }
}

#[actix_web::test]
async fn a_token_ends_on_every_server_within_five_seconds() {
    let place = Place::new(Stores::Servers);
    place.migrated().await;
    let new = |name: &str, more: &[&str]| {
        let arguments = [&["token", "new", name, "--scopes", "bot"], more].concat();
        said(&run(&place, &arguments, &[])).trim().to_owned()
    };
    let token = new("bot", &[]);
    let short = new("short", &["--days", "0"]);
    let servers = [(); 2].map(|()| ServerProcess::start(&place, None, "info"));
    for server in &servers {
        // Each has it at hand now.
        server.client(&place, &token).network().await.unwrap();
        let ended = server.client(&place, &short).network().await.unwrap_err();
        assert_eq!(ended.code(), Some(kms_types::ErrorCode::Unauthorized), "its days are over");
    }
    assert!(run(&place, &["token", "revoke", "bot"], &[]).status.success());
    let revoked = std::time::Instant::now();
    for server in &servers {
        while server.client(&place, &token).network().await.is_ok() {
            assert!(revoked.elapsed().as_millis() < 5_500, "the revoked token still works");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    for server in servers {
        server.terminate();
    }
}

#[test]
fn new_keys_are_private_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new(Stores::Embedded);
    let arguments = ["keys", "new", "--bits", "3072", "--id", "kms-2027"];
    let made = run(&place, &arguments, &[]);
    assert!(said(&made).contains("KMS_SERVER__KMS_KEY__ID=kms-2027"), "{}", said(&made));
    let directory = place.directory.path().join("keys");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for entry in directory.read_dir().unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let again = run(&place, &arguments, &[]);
    assert!(said(&again).contains("keys are never overwritten"), "{}", said(&again));
    // What it shows is what `check-config` takes.
    let shown = said(&made);
    let mut shown: Vec<_> = shown.lines().filter_map(|line| line.split_once('=')).collect();
    // Not beside the file that holds it.
    shown.push(("KMS_SERVER__KMS_KEY__PASSPHRASE", ""));
    let place = Place { server_keys: Default::default(), ..place };
    run(&place, &["migrate"], &shown);
    let checked = run(&place, &["check-config"], &shown);
    assert!(checked.status.success(), "{}", said(&checked));
}

#[test]
fn a_mistake_in_the_configuration_names_itself() {
    let place = Place::new(Stores::Embedded);
    for (key, value, named) in [
        ("KMS_SERVER__LISTEN", "here", "listen"),
        ("KMS_SERVER__KMS_KEY__PATH", "/nowhere", "/nowhere"),
        ("KMS_SERVER__DATABASE__URL", "mysql://kms:hunter2@db/kms", "postgres:// or sqlite:"),
        ("KMS_SERVER__KEY_DATABASE__URL", "redis://x", "mongodb://"),
        ("KMS_SERVER__CHAIN__RPC_URLS", "ftp://x", "http:// or https://"),
        ("KMS_SERVER__TLS__KEY", "hunter2", "tls"),
    ] {
        run(&place, &["migrate"], &[]);
        let refused = run(&place, &["serve"], &[(key, value)]);
        let text = said(&refused);
        assert!(!refused.status.success() && text.contains(named), "{key}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}
