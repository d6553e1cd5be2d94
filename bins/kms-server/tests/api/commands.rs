//! The commands of operators.

use std::process::Output;
use std::time::{Duration, Instant};

use clap::Parser;
use insta::assert_snapshot;
use kms_server_testing::commands::{
    checks, fails, kms_server, masked, output_text, start_error, succeeds,
};
use kms_server_testing::{ServerProcess, Stores, TestEnv};

fn run(env: &TestEnv, arguments: &str) -> Output {
    kms_server(env, arguments).output().unwrap()
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
fn an_operator_migrates_checks_the_configuration_and_issues_tokens() {
    for stores in [Stores::Embedded, Stores::Servers] {
        let env = TestEnv::new(stores).unwrap();
        let early = start_error(&fails(&env, "serve"));
        assert_snapshot!("start_without_a_schema", early);
        assert!(!run(&env, "check-config").status.success());
        for _ in 0..2 {
            succeeds(&env, "migrate");
        }
        let text = succeeds(&env, "check-config");
        let ok = checks(&text);
        for section in ["kms_key", "key_database", "chains.test.rpc_urls 1", "database"] {
            assert!(ok.contains(&(section, true)), "{text}");
        }
        for secret in [&env.server_keys[0].1[2..], &env.certificate_key, "passphrase: \""] {
            assert!(!text.contains(secret), "{text}");
        }
        let made = succeeds(&env, "token new bot --scopes bot,read");
        assert!(made.starts_with("kms_"), "{made}");
        assert_snapshot!("token_name_taken", fails(&env, "token new bot --scopes bot"));
        let listed = succeeds(&env, "token list");
        let is_new = listed.starts_with("bot\tbot,read\tvalid\tmade ");
        assert!(is_new && listed.ends_with("\tused never\n"), "{listed}");
        assert!(!listed.contains("expires never"), "{listed}");
        succeeds(&env, "token revoke bot");
        // Again, because the first time may not have been recorded.
        succeeds(&env, "token revoke bot");
        fails(&env, "token revoke other");
        let ended = succeeds(&env, "token list");
        assert!(ended.starts_with("bot\tbot,read\tended\t"), "{ended}");
        let rows = succeeds(&env, "audit export");
        let recorded: Vec<_> = rows
            .lines()
            .map(|row| {
                let row: serde_json::Value = serde_json::from_str(row).unwrap();
                let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
                format!("{} {}", text("actor"), text("outcome"))
            })
            .collect();
        let expected = [
            "kms-server migrate ok",
            "kms-server migrate ok",
            "kms-server check-config -",
            "kms-server check-config ok",
            "kms-server token new bot -",
            "kms-server token new bot ok",
            "kms-server token new bot -",
            "kms-server token new bot failed",
            "kms-server token list ok",
            "kms-server token revoke bot -",
            "kms-server token revoke bot ok",
            "kms-server token revoke bot -",
            "kms-server token revoke bot ok",
            "kms-server token list ok",
            "kms-server audit export ok",
        ];
        assert_eq!(recorded, expected);
    }
}

#[actix_web::test]
async fn a_revoked_token_ends_on_every_server_within_five_seconds() {
    let env = TestEnv::new(Stores::Servers).unwrap();
    env.migrate().await.unwrap();
    let new = |name: &str, more: &str| {
        let arguments = format!("token new {name} --scopes bot{more}");
        succeeds(&env, &arguments).trim().to_owned()
    };
    let token = new("bot", "");
    let short = new("short", " --days 0");
    let servers = [(); 2].map(|()| ServerProcess::start(&env, None, "info"));
    for server in &servers {
        // Each server has cached the token now.
        server.client(&env, &token).networks().await.unwrap();
        let ended = server.client(&env, &short).networks().await.unwrap_err();
        assert_eq!(ended.code(), Some(kms_types::ErrorCode::Unauthorized), "the token has expired");
    }
    // The use is recorded after the answer.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let listed = succeeds(&env, "token list");
        let line = listed.lines().find(|line| line.starts_with("bot\t")).unwrap();
        if !line.contains("used never") {
            break;
        }
        assert!(Instant::now() < deadline, "{listed}");
    }
    // A token that expires soon is an alarm; the other one, and the one that has expired, are none.
    let soon = new("soon", " --days 20");
    servers[0].client(&env, &soon).networks().await.unwrap();
    let (log, deadline) = (&servers[0].log, Instant::now() + Duration::from_secs(30));
    while !log.lock().unwrap().contains("token_expires_soon") {
        assert!(Instant::now() < deadline, "no alarm");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let alarms = log.lock().unwrap().matches("token_expires_soon").count();
    assert_eq!(alarms, 1);
    let forever = new("forever", " --forever --reason ticket-1");
    assert!(succeeds(&env, "token list").contains("\texpires never\t"), "{forever}");
    assert!(succeeds(&env, "audit export").contains("reason=ticket-1"));
    succeeds(&env, "token revoke bot");
    let revoked = Instant::now();
    for server in &servers {
        loop {
            let asked_after = revoked.elapsed();
            if server.client(&env, &token).networks().await.is_err() {
                break;
            }
            assert!(asked_after.as_secs() < 5, "the revoked token still works");
            tokio::time::sleep(Duration::from_millis(50)).await;
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
    let arguments = "keys new --bits 3072 --id kms-2027";
    let made = succeeds(&env, arguments);
    assert!(made.contains("KMS_SERVER__KMS_KEY__ID=kms-2027"), "{made}");
    let directory = env.directory.path().join("keys");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for entry in directory.read_dir().unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    assert_snapshot!("keys_exist", masked(&fails(&env, arguments)));
    // `check-config` accepts the settings that it prints.
    let mut shown: Vec<_> = made.lines().filter_map(|line| line.split_once('=')).collect();
    // A setting and its `_FILE` exclude each other.
    shown.push(("KMS_SERVER__KMS_KEY__PASSPHRASE", ""));
    let env = TestEnv { server_keys: Default::default(), ..env };
    kms_server(&env, "migrate").envs(shown.iter().copied()).output().unwrap();
    let checked = kms_server(&env, "check-config").envs(shown.iter().copied()).output().unwrap();
    assert!(checked.status.success(), "{}", output_text(&checked));
}

#[test]
fn a_configuration_error_names_the_setting_and_no_secret() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    for (key, value, named) in [
        ("KMS_SERVER__LISTEN", "here", "listen"),
        ("KMS_SERVER__KMS_KEY__PATH", "/nowhere", "/nowhere"),
        ("KMS_SERVER__DATABASE__URL", "mysql://kms:hunter2@db/kms", "postgres:// or sqlite:"),
        ("KMS_SERVER__KEY_DATABASE__URL", "redis://x", "mongodb://"),
        ("KMS_SERVER__CHAINS__TEST__RPC_URLS", "ftp://x", "chains.test.rpc_urls"),
        ("KMS_SERVER__CHAINS__TEST__REPLACE_AFTER", "0", "chains.test.replace_after"),
        ("KMS_SERVER__CHAINS__TEST__MAX_FEE_SHARE", "101", "chains.test.max_fee_share"),
        ("KMS_SERVER__TLS__KEY", "hunter2", "tls"),
    ] {
        succeeds(&env, "migrate");
        let refused = kms_server(&env, "serve").envs([(key, value)]).output().unwrap();
        let text = output_text(&refused);
        assert!(!refused.status.success() && text.contains(named), "{key}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

/// Each `kms-server …` of the documentation parses, so that no runbook names a command or an option
/// that does not exist.
#[test]
fn the_commands_of_the_documentation_exist() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let pages = [docs.join("operating"), docs].map(|folder| folder.read_dir().unwrap());
    let pages = pages.into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut checked = 0;
    for page in pages.filter(|path| path.extension().is_some_and(|name| name == "md")) {
        let text = std::fs::read_to_string(&page).unwrap();
        for command in text.split('`').filter(|span| span.starts_with("kms-server ")) {
            // A quoted argument is the last one; alternatives and optional parts are prose.
            let (words, quoted) = command.split_once(" \"").unwrap_or((command, ""));
            if words.contains(['|', '[', '\n', '…']) {
                continue;
            }
            let argument = |word| match word {
                "ACCOUNT" => "telegram:1",
                "WALLET" => "telegram:1=0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
                "ID" | "NAME" | "OLD" => "5f0c0b44-6a5e-4a3e-9d0a-0f6a5c1f7a10",
                "KEY" => "row",
                "VERSION" => "1",
                "KEYS" => "1:1111111111111111111111111111111111111111111111111111111111111111",
                other => other,
            };
            let quoted = Some(quoted.trim_end_matches('"')).filter(|text| !text.is_empty());
            let arguments = words.split(' ').map(argument).chain(quoted);
            let parsed = kms_server::cli::Cli::try_parse_from(arguments);
            assert!(parsed.is_ok(), "{}: {command}: {}", page.display(), parsed.unwrap_err());
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked} commands were found");
}
