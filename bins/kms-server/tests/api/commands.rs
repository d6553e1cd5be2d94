//! The commands, as an operator runs them.

use kms_server_testing::{ServerProcess, Stores, TestEnv};
use std::process::{Command, Output};

fn run(env: &TestEnv, arguments: &[&str], extra: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kms-server"))
        .args(arguments)
        .envs(env.environment("127.0.0.1:0"))
        .envs(extra.iter().copied())
        .current_dir(env.directory.path())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(text).unwrap()
}

#[actix_web::test]
async fn a_server_leaves_no_core_dump() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    env.migrate().await.unwrap();
    let server = ServerProcess::start(&env, None, "info");
    let limits = server.limits();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
    server.terminate();
}

#[test]
fn an_operator_migrates_checks_and_hands_out_tokens() {
    for stores in [Stores::Embedded, Stores::Servers] {
        let env = TestEnv::new(stores).unwrap();
        let early = run(&env, &["serve"], &[]);
        assert!(!early.status.success());
        assert!(said(&early).contains("kms-server migrate"), "{}", said(&early));
        assert!(!run(&env, &["check-config"], &[]).status.success());
        assert!(run(&env, &["migrate"], &[]).status.success());
        assert!(run(&env, &["migrate"], &[]).status.success());
        let checked = run(&env, &["check-config"], &[]);
        let text = said(&checked);
        assert!(checked.status.success(), "{text}");
        for what in ["kms_key", "key_database", "chain", "database"] {
            assert!(text.contains(&format!("ok      {what}")), "{text}");
        }
        for secret in [&env.server_keys[0].1[2..], &env.certificate_key, "passphrase: \""] {
            assert!(!text.contains(secret), "{text}");
        }
        let made = run(&env, &["token", "new", "bot", "--scopes", "bot,read"], &[]);
        assert!(said(&made).starts_with("kms_"), "{}", said(&made));
        let twice = run(&env, &["token", "new", "bot", "--scopes", "bot"], &[]);
        assert!(said(&twice).contains("there is a token bot already"), "{}", said(&twice));
        let listed = said(&run(&env, &["token", "list"], &[]));
        assert_eq!(listed, "bot\tbot,read\tvalid\n");
        assert!(run(&env, &["token", "revoke", "bot"], &[]).status.success());
        assert!(!run(&env, &["token", "revoke", "bot"], &[]).status.success());
        assert!(said(&run(&env, &["token", "list"], &[])).contains("ended"));
        let rows = said(&run(&env, &["audit", "export"], &[]));
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
    let env = TestEnv::new(Stores::Servers).unwrap();
    env.migrate().await.unwrap();
    let new = |name: &str, more: &[&str]| {
        let arguments = [&["token", "new", name, "--scopes", "bot"], more].concat();
        said(&run(&env, &arguments, &[])).trim().to_owned()
    };
    let token = new("bot", &[]);
    let short = new("short", &["--days", "0"]);
    let servers = [(); 2].map(|()| ServerProcess::start(&env, None, "info"));
    for server in &servers {
        // Each has it at hand now.
        server.client(&env, &token).network().await.unwrap();
        let ended = server.client(&env, &short).network().await.unwrap_err();
        assert_eq!(ended.code(), Some(kms_types::ErrorCode::Unauthorized), "its days are over");
    }
    assert!(run(&env, &["token", "revoke", "bot"], &[]).status.success());
    let revoked = std::time::Instant::now();
    for server in &servers {
        while server.client(&env, &token).network().await.is_ok() {
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
    let env = TestEnv::new(Stores::Embedded).unwrap();
    let arguments = ["keys", "new", "--bits", "3072", "--id", "kms-2027"];
    let made = run(&env, &arguments, &[]);
    assert!(said(&made).contains("KMS_SERVER__KMS_KEY__ID=kms-2027"), "{}", said(&made));
    let directory = env.directory.path().join("keys");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for entry in directory.read_dir().unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let again = run(&env, &arguments, &[]);
    assert!(said(&again).contains("keys are never overwritten"), "{}", said(&again));
    // What it shows is what `check-config` takes.
    let shown = said(&made);
    let mut shown: Vec<_> = shown.lines().filter_map(|line| line.split_once('=')).collect();
    // Not beside the file that holds it.
    shown.push(("KMS_SERVER__KMS_KEY__PASSPHRASE", ""));
    let env = TestEnv { server_keys: Default::default(), ..env };
    run(&env, &["migrate"], &shown);
    let checked = run(&env, &["check-config"], &shown);
    assert!(checked.status.success(), "{}", said(&checked));
}

#[test]
fn a_mistake_in_the_configuration_names_itself() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    for (key, value, named) in [
        ("KMS_SERVER__LISTEN", "here", "listen"),
        ("KMS_SERVER__KMS_KEY__PATH", "/nowhere", "/nowhere"),
        ("KMS_SERVER__DATABASE__URL", "mysql://kms:hunter2@db/kms", "postgres:// or sqlite:"),
        ("KMS_SERVER__KEY_DATABASE__URL", "redis://x", "mongodb://"),
        ("KMS_SERVER__CHAIN__RPC_URLS", "ftp://x", "chain.rpc_urls"),
        ("KMS_SERVER__TLS__KEY", "hunter2", "tls"),
    ] {
        run(&env, &["migrate"], &[]);
        let refused = run(&env, &["serve"], &[(key, value)]);
        let text = said(&refused);
        assert!(!refused.status.success() && text.contains(named), "{key}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}
