//! `check-config` names each thing that a server would fail on, and what to do.

use kms_server_testing::commands::{checks, kms_server, output_text, succeeds};
use kms_server_testing::{ServerProcess, Stores, TestEnv};
use kms_testkit::{Mailbox, Postgres};
use serde_json::json;

type Variables<'a> = &'a [(&'a str, &'a str)];

/// The failed checks with these variables, and the whole report.
fn failures(env: &TestEnv, variables: Variables<'_>) -> (Vec<String>, String) {
    let mut command = kms_server(env, "check-config");
    let variables = variables.iter().map(|(name, value)| (format!("KMS_SERVER__{name}"), *value));
    let output = command.envs(variables).output().unwrap();
    let report = output_text(&output);
    let failed = checks(&report).into_iter().filter(|(_, is_ok)| !is_ok);
    let failed: Vec<_> = failed.map(|(what, _)| what.to_owned()).collect();
    let code = if failed.is_empty() { 0 } else { 1 };
    assert_eq!(output.status.code(), Some(code), "{report}");
    (failed, report)
}

#[test]
fn check_config_names_what_a_server_would_fail_on() {
    let mut expired = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    expired.not_after = rcgen::date_time_ymd(2026, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = expired.self_signed(&key).unwrap().pem();
    let key = key.serialize_pem();
    let env = TestEnv::new(Stores::Embedded).unwrap();
    succeeds(&env, "migrate");
    let mailbox = Mailbox::start().unwrap();
    let mail_url = mailbox.url();
    let mail = [
        ("MAIL__URL", mail_url.as_str()),
        ("MAIL__FROM", "Wallet <wallet@example.org>"),
        ("MAIL__PUBLIC_URL", "https://kms.example.org"),
    ];
    env.anvil.rpc("anvil_mine", json!(["0x3"])).unwrap();
    let address = "0x1111111111111111111111111111111111111111";
    let token = format!("[{{ symbol = \"USDC\", address = \"{address}\", decimals = 6 }}]");
    let all_needs =
        [("CHAINS__TEST__TOKENS", token.as_str()), ("CHAINS__TEST__COMPARE_BALANCES", "true")];
    let (all, report) = failures(&env, &all_needs);
    assert_eq!(all, ["chains.test.tokens USDC"], "{report}");
    for need in ["prices", "gas", "logs", "receipts", "balances", "state of the last 3 blocks"] {
        assert!(report.contains(&format!("ok      chains.test.rpc_urls 1 {need}\n")), "{report}");
    }
    assert_eq!(failures(&env, &mail).0, [""; 0]);
    // A server stores what its keys are recognized by.
    ServerProcess::start(&env, None, "info").terminate();

    mailbox.set_down(true);
    let pepper = format!("1:{}", "77".repeat(32));
    let two = format!("{} http://127.0.0.1:1", env.rpc_urls);
    let dead = "postgres://kms@127.0.0.1:1/kms";
    let cases: [(&str, Variables<'_>, &str); 8] = [
        ("tls", &[("TLS__CERTIFICATE", &certificate), ("TLS__KEY", &key)], "replace the files"),
        ("mail", &mail, "mail.url"),
        ("server_keys", &[("SERVER_KEYS__PEPPER", &pepper)], "server keys that the data"),
        ("chains.test.rpc_urls 1", &[("CHAINS__TEST__CHAIN_ID", "5")], "not chain 5"),
        ("chains.test.rpc_urls 2", &[("CHAINS__TEST__RPC_URLS", &two)], "chains.test.rpc_urls"),
        ("kms_key.open", &[("KMS_KEY__PASSPHRASE", "another one")], "passphrase"),
        ("database", &[("DATABASE__URL", dead)], "can be reached"),
        ("key_database", &[("KEY_DATABASE__URL", "mongodb://127.0.0.1:1/")], "key_database.url"),
    ];
    for (failed, variables, next) in cases {
        let (all, report) = failures(&env, variables);
        assert!(all.iter().any(|what| what == failed), "{failed}: {report}");
        assert!(report.contains(next), "{failed}: {report}");
    }
    // What does not depend on it is tried all the same.
    let (all, report) = failures(&env, &[("DATABASE__URL", dead)]);
    assert_eq!(all, ["database"], "{report}");
    assert!(report.contains("ok      key_database\n"), "{report}");
    assert!(report.contains("skipped kms_key"), "{report}");
}

/// As on Fargate, where there are no files.
#[test]
fn the_whole_configuration_can_be_one_variable() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    succeeds(&env, "migrate");
    let settings = env.environment("127.0.0.1:0");
    let lines = settings.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| {
        let key = name.strip_prefix("KMS_SERVER__").unwrap();
        let key = key.to_lowercase().replace("__", ".");
        let is_bare = value.parse::<i64>().is_ok() || value.parse::<bool>().is_ok();
        // A number of blocks, or the word `finalized`.
        let is_bare = is_bare && key != "chains.test.finality";
        let value = match &*key {
            "chains.test.rpc_urls" => format!("[\"{value}\"]"),
            _ if is_bare => value.clone(),
            _ => format!("\"\"\"{value}\"\"\""),
        };
        format!("{key} = {value}\n")
    });
    let toml: String = lines.collect();
    let run = |toml: &str, variables: Variables<'_>, arguments: &str| {
        let mut command = kms_server(&env, arguments);
        command.env_clear().env("KMS_SERVER_CONFIG_TOML", toml).envs(variables.iter().copied());
        let output = command.output().unwrap();
        (output.status.code(), output_text(&output))
    };
    let (code, report) = run(&toml, &[], "check-config");
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("name: \"Test\""), "{report}");
    // A variable of its own wins.
    let name = [("KMS_SERVER__CHAINS__TEST__NAME", "Other")];
    assert!(run(&toml, &name, "check-config").1.contains("name: \"Other\""));
    let (code, report) = run(&format!("{toml}hunter2\n"), &[], "check-config");
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("KMS_SERVER_CONFIG_TOML, line"), "{report}");
    assert!(!report.contains("hunter2"), "{report}");
    let (_, report) = run(&toml, &[], "check-config --config kms.toml");
    assert!(report.contains("KMS_SERVER_CONFIG_TOML: expected no --config"), "{report}");
}

#[actix_web::test]
async fn check_config_names_a_wrong_password_and_a_role_that_can_change_the_audit() {
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let postgres = Postgres::start_tls(&certificate, &key, Some("right")).unwrap();
    let url = postgres.create_database().unwrap();
    let with = |password: &str| url.replace("postgres@", &format!("postgres:{password}@"));
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    env.database = with("right");
    succeeds(&env, "migrate");
    let (all, report) = failures(&env, &[]);
    assert_eq!(all, [""; 0], "{report}");
    assert!(report.contains("weak    database"), "{report}");
    let wrong = with("hunter2");
    let (all, report) = failures(&env, &[("DATABASE__URL", &wrong)]);
    assert_eq!(all, ["database"], "{report}");
    assert!(report.contains("password authentication failed"), "{report}");
    assert!(report.contains("check host, role, password"), "{report}");
    assert!(!report.contains("hunter2"), "{report}");
    // A table without a grant, as after a migration by hand.
    let statement = "create role other login password 'other'; \
                     grant select on all tables in schema public to other; \
                     revoke select on transfers from other";
    let name = url.rsplit('/').next().unwrap();
    postgres.execute(name, statement).unwrap();
    let other = url.replace("postgres@", "other:other@");
    let (all, report) = failures(&env, &[("DATABASE__URL", &other)]);
    assert!(all.contains(&"database.grants".to_owned()), "{report}");
    assert!(report.contains("cannot read transfers"), "{report}");
}
