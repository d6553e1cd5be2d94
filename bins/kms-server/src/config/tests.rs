//! Settings that are accepted, and the errors of those that are not.

mod several_chains;

use kms_chain::Endpoint;
use kms_chain::spending::Allowance;
use kms_types::{AssetId, U256, Units};

use super::*;

const DEPLOY_EXAMPLE: &str = include_str!("../../../../deploy/server.env.example");

const EXAMPLE: &str = r#"
    [tls]
    certificate = "CERT"
    key = "KEY"
    [database]
    url = "sqlite:kms.db"
    [key_database]
    url = "sqlite:keys.db"
    [kms_key]
    id = "kms-1"
    path = "kms-key.pem"
    passphrase = "0123"
    [server_keys]
    pepper = "1:1111111111111111111111111111111111111111111111111111111111111111"
    contact = "1:1111111111111111111111111111111111111111111111111111111111111111"
    row = "1:1111111111111111111111111111111111111111111111111111111111111111"
    audit = "1:1111111111111111111111111111111111111111111111111111111111111111"
    codes = "1:1111111111111111111111111111111111111111111111111111111111111111"
    checkpoint = "1:1111111111111111111111111111111111111111111111111111111111111111"
    [chains.local]
    rpc_urls = ["http://127.0.0.1:8545"]
    chain_id = 31337
    name = "Local"
"#;

fn settings(text: &str, environment: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    kms_config::load_from::<Settings>(PREFIX, text, environment)?.validate()
}

fn message(result: Result<Settings, ConfigError>) -> String {
    format!("{:#}", anyhow::Error::from(result.unwrap_err()))
}

/// The messages of invalid settings, for a snapshot. None may show a secret.
fn messages(results: impl IntoIterator<Item = Result<Settings, ConfigError>>) -> String {
    let text = results.into_iter().map(message).collect::<Vec<_>>().join("\n");
    assert!(!text.contains("secret."), "{text}");
    text
}

/// The key that is at fault.
fn key(result: Result<Settings, ConfigError>) -> String {
    let error = result.unwrap_err();
    error.key().unwrap_or_else(|| panic!("{error}")).to_owned()
}

#[test]
fn declared_tokens_differ_and_have_a_scope() {
    let token = |name: &str, digit: &str, scopes: &str| {
        let hash = digit.repeat(64);
        format!("{{ name = \"{name}\", hash = \"{hash}\", scopes = [{scopes}] }}")
    };
    let given = |tokens: &[String]| {
        let text = format!("[{}]", tokens.join(", "));
        settings(EXAMPLE, &[("KMS_SERVER__TOKENS", &text)])
    };
    let bot = token("bot", "1", "\"bot\"");
    let two = given(&[bot.clone(), token("read", "2", "\"read\", \"chat\"")]).unwrap().tokens;
    assert_eq!(two.iter().map(|token| token.scopes.len()).collect::<Vec<_>>(), [1, 2]);
    for bad in [
        token("bot", "2", "\"bot\""),
        token("other", "1", "\"bot\""),
        token("other", "2", ""),
        token("", "2", "\"bot\""),
    ] {
        assert_eq!(key(given(&[bot.clone(), bad])), "tokens");
    }
    assert_eq!(key(given(&[token("bot", "x", "\"bot\"")])), "tokens[0].hash");
    assert_eq!(key(given(&[token("bot", "1", "\"all\"")])), "tokens[0].scopes[0]");
}

#[test]
fn the_environment_wins_and_files_are_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "postgres://kms:secret@db/kms?sslmode=verify-full\n").unwrap();
    let path = file.path().to_str().unwrap();
    let settings = settings(
        EXAMPLE,
        &[
            ("KMS_SERVER__DATABASE__URL_FILE", path),
            ("KMS_SERVER__CHAINS__LOCAL__CHAIN_ID", "1"),
            ("KMS_SERVER__LISTEN", "0.0.0.0:443"),
        ],
    )
    .unwrap();
    assert_eq!(settings.database.url.expose(), "postgres://kms:secret@db/kms?sslmode=verify-full");
    assert_eq!(settings.chains["local"].chain_id, 1);
    assert_eq!(settings.listen.port(), 443);
    let KmsKeyProvider::Local { passphrase, .. } = &settings.kms_key.provider else {
        panic!("{settings:?}")
    };
    assert_eq!(passphrase.expose(), "0123");
    assert!(!format!("{settings:?}").contains("secret"));
}

#[test]
fn several_endpoints_are_given_as_a_list() {
    let count = |settings: Settings| settings.chains["local"].rpc_urls.len();
    let variable = "KMS_SERVER__CHAINS__LOCAL__RPC_URLS";
    let without = EXAMPLE.replace("rpc_urls = [\"http://127.0.0.1:8545\"]", "");
    assert_eq!(count(settings(EXAMPLE, &[]).unwrap()), 1);
    let several = settings(&without, &[(variable, "https://a/secret  https://b\nhttps://c")]);
    let several = several.unwrap();
    assert!(!format!("{several:?}").contains("secret"));
    assert_eq!(several.chains["local"].open().unwrap().chain_id(), 31_337);
    assert_eq!(count(several), 3);
    let list = without
        .replace("[chains.local]", "[chains.local]\nrpc_urls = [\"https://a\", \"https://b\"]");
    assert_eq!(count(settings(&list, &[]).unwrap()), 2);
    let refused = [
        " ",
        "https://a http://secret.example",
        "http://127.0.0.1:8545@secret.example",
        "secret.example",
    ];
    let refused = refused.map(|text| settings(&without, &[(variable, text)]));
    let refused = refused.into_iter().chain([settings(&without, &[])]);
    insta::assert_snapshot!("invalid_endpoints", messages(refused));
}

#[test]
fn the_operator_can_stop_payments() {
    let limits = "[limits]\nspend_a_day = { ETH = \"2\" }\noutflow_an_hour = { eth = \"5\" }\n\
                  external_addresses = [\"0x00000000000000000000000000000000000000cc\"]\n";
    let token = "[[chains.local.tokens]]\nsymbol = \"USD\u{20ae}0\"\n\
                 address = \"0x1111111111111111111111111111111111111111\"\ndecimals = 6\n";
    let found = settings(&format!("{EXAMPLE}{token}{limits}"), &[]).unwrap();
    assert_eq!(found.limits.external_addresses.as_ref().unwrap().len(), 1);
    let elsewhere = limits.replace("0x", "base/0x");
    let refused = settings(&format!("{EXAMPLE}{token}{elsewhere}"), &[]);
    assert_eq!(key(refused), "limits.external_addresses");
    let rules = found.limits.spending(&found.chains, &found.recovery).unwrap();
    let (coin, token) =
        (AssetId::native(31_337), AssetId::of(31_337, found.chains["local"].tokens.first()));
    assert_eq!(rules.outflow[&coin].to_string(), "5000000000000000000");
    // An asset that is not listed has a limit as well.
    let a_day = |asset| rules.caps(asset).a_day.unwrap().to_string();
    assert_eq!(a_day(coin), "2000000000000000000");
    assert_eq!(a_day(token), "1000000");
    let unlimited = ("KMS_SERVER__LIMITS__SPEND_A_DAY_UNLISTED", "unlimited");
    let found = settings(EXAMPLE, &[unlimited]).unwrap();
    let rules = found.limits.spending(&found.chains, &found.recovery).unwrap();
    assert_eq!(rules.caps(coin).a_day, None);
    let policy = |url: &str, key: &str| {
        let url = ("KMS_SERVER__PAYMENT_POLICY__URL", url);
        settings(EXAMPLE, &[url, ("KMS_SERVER__PAYMENT_POLICY__KEY", key)])
    };
    assert!(policy("https://policy.example/payments", &"k".repeat(32)).is_ok());
    assert_eq!(key(policy("http://policy.example", &"k".repeat(32))), "payment_policy.url");
    assert_eq!(key(policy("https://policy.example", "short")), "payment_policy.key");
    let outflow = ("KMS_SERVER__LIMITS__OUTFLOW_AN_HOUR", "{ DAI = \"1\" }");
    assert_eq!(key(settings(EXAMPLE, &[outflow])), "limits.outflow_an_hour.DAI");
}

#[test]
fn a_provider_may_want_a_header() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let header = r#"{ "127.0.0.1" = "Authorization: Bearer hunter2" }"#;
    std::fs::write(file.path(), header).unwrap();
    let variable = "KMS_SERVER__CHAINS__LOCAL__RPC_HEADERS";
    let in_a_file =
        [("KMS_SERVER__CHAINS__LOCAL__RPC_HEADERS_FILE", file.path().to_str().unwrap())];
    for settings in [settings(EXAMPLE, &in_a_file), settings(EXAMPLE, &[(variable, header)])] {
        let settings = settings.unwrap();
        assert_eq!(settings.chains["local"].rpc_headers.len(), 1);
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
    let refused = [
        r#"{ "other.example" = "Authorization: Bearer hunter2" }"#,
        r#"{ "127.0.0.1" = "hunter2" }"#,
    ];
    let refused = refused.map(|text| settings(EXAMPLE, &[(variable, text)]));
    insta::assert_snapshot!("invalid_headers", messages(refused.into_iter()));
}

#[tokio::test]
async fn an_endpoint_is_tried_alone_with_its_header() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let header = r#"{ "127.0.0.1" = "Authorization: Bearer hunter2" }"#;
    let variable = ("KMS_SERVER__CHAINS__LOCAL__RPC_HEADERS", header);
    let text = EXAMPLE.replace("http://127.0.0.1:8545", &url);
    let settings = settings(&text, &[variable]).unwrap();
    let chain = settings.chains["local"].open_each().next().unwrap().unwrap();
    let asked = tokio::task::spawn_blocking(move || {
        use std::io;
        let (stream, _) = listener.accept().unwrap();
        let lines = io::BufRead::lines(io::BufReader::new(stream)).map_while(Result::ok);
        lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    });
    // The connection is closed without an answer.
    chain.first(Endpoint::block_number).await.unwrap_err();
    let head = asked.await.unwrap();
    assert!(head.to_lowercase().contains("authorization: bearer hunter2"), "{head}");
}

#[test]
fn limits_are_in_the_assets_own_units() {
    let token = "[[chains.local.tokens]]\nsymbol = \"USDC\"\n\
                 address = \"0x1111111111111111111111111111111111111111\"\ndecimals = 6\n";
    let with = |limits: &str| settings(&format!("{EXAMPLE}{token}[limits]\n{limits}"), &[]);
    let settings = with("spend_a_day = { ETH = \"0.5\", usdc = \"100\" }").unwrap();
    let rules = settings.limits.spending(&settings.chains, &settings.recovery).unwrap();
    let (coin, token) =
        (AssetId::native(31_337), AssetId::of(31_337, settings.chains["local"].tokens.first()));
    let caps = |asset| rules.caps(asset).a_day.unwrap().to_string();
    assert_eq!(caps(coin), "500000000000000000");
    assert_eq!(caps(token), "100000000");
    // The same on another chain is another asset.
    for other in [AssetId { chain_id: 2, ..coin }, AssetId { chain_id: 2, ..token }] {
        assert_eq!(rules.caps(other).a_day, None);
    }
    assert_eq!(rules.caps(coin).after_recovery, Allowance::Nothing);
    let looser = with("spend_a_day_after_recovery = { ETH = \"0.5\", USDC = \"unlimited\" }");
    let looser = looser.unwrap();
    let rules = looser.limits.spending(&looser.chains, &looser.recovery).unwrap();
    let half = Units(U256::from(500_000_000_000_000_000_u64));
    assert_eq!(rules.caps(coin).after_recovery, Allowance::UpTo(half));
    assert_eq!(rules.caps(token).after_recovery, Allowance::Unlimited);
    let refused = [
        "spend_a_day_after_recovery = { USDC = \"none\" }",
        "spend_a_day = { DAI = \"1\" }",
        "spend_a_day_after_recovery = { USDC = \"0.0000001\" }",
        "spend_a_day = { ETH = \"1,5\" }",
        "spend_a_day = { ETH = \"0\" }",
    ];
    insta::assert_snapshot!("invalid_spending_limits", messages(refused.map(with)));
    let variable = ("KMS_SERVER__LIMITS__SPEND_A_DAY__ETH", "2");
    let settings = super::tests::settings(EXAMPLE, &[variable]).unwrap();
    assert!(
        settings
            .limits
            .spending(&settings.chains, &settings.recovery)
            .unwrap()
            .caps(coin)
            .a_day
            .is_some()
    );
}

#[test]
fn chains_differ_and_one_of_several_is_the_primary_one() {
    let base = |section: &str, id: &str, name: &str| {
        let urls = "symbol = \"ETH\"\nrpc_urls = [\"https://a\"]";
        let several = "chain_id = 31337\n    symbol = \"ETH\"";
        let local = EXAMPLE.replace("chain_id = 31337", several);
        format!("{local}[chains.{section}]\n{urls}\nchain_id = {id}\nname = \"{name}\"\n")
    };
    let primary = |name: &'static str| [("KMS_SERVER__PRIMARY_CHAIN", name)];
    let two = base("base", "8453", "Base");
    let found = |settings: Settings| settings.primary_chain.unwrap();
    assert_eq!(found(settings(EXAMPLE, &[]).unwrap()), "local");
    // Its order decides nothing: neither in the file nor of the names.
    for name in ["base", "local"] {
        assert_eq!(found(settings(&two, &primary(name)).unwrap()), name);
    }
    assert_eq!(key(settings(&two, &[])), "primary_chain");
    // The coin of each of several chains is named.
    let unnamed = two.replacen("symbol = \"ETH\"", "", 1);
    assert_eq!(key(settings(&unnamed, &primary("base"))), "chains.local.symbol");
    assert_eq!(key(settings(&two, &primary("other"))), "primary_chain");
    assert_eq!(key(settings(EXAMPLE, &primary("other"))), "primary_chain");
    let by_variables = [
        ("KMS_SERVER__CHAINS__BASE__RPC_URLS", "https://a https://b"),
        ("KMS_SERVER__CHAINS__BASE__CHAIN_ID", "8453"),
        ("KMS_SERVER__CHAINS__BASE__NAME", "Base"),
        ("KMS_SERVER__CHAINS__BASE__SYMBOL", "ETH"),
        ("KMS_SERVER__CHAINS__LOCAL__SYMBOL", "ETH"),
        ("KMS_SERVER__PRIMARY_CHAIN", "base"),
    ];
    let two = settings(EXAMPLE, &by_variables).unwrap();
    assert_eq!((two.chains.len(), two.chains["base"].rpc_urls.len()), (2, 2));
    let refused = [
        base("base", "31337", "Base"),
        base("base", "8453", "local"),
        base("other", "8453", "Local"),
        base("Base", "8453", "Base"),
        base("base_main", "8453", "Base"),
        base("seventeen-letters", "8453", "Base"),
    ];
    let refused = refused.map(|text| settings(&text, &primary("local")));
    insta::assert_snapshot!("invalid_chains", messages(refused));
    let without = EXAMPLE.split("[chains.local]").next().unwrap();
    assert_eq!(key(settings(without, &[])), "chains");
}

#[test]
fn tokens_are_distinct() {
    let token = |symbol: &str, byte: &str, decimals: u8| {
        let address = byte.repeat(20);
        format!(
            "[[chains.local.tokens]]\nsymbol = \"{symbol}\"\naddress = \"0x{address}\"\n\
             decimals = {decimals}\n"
        )
    };
    let with = |tokens: &[String]| settings(&format!("{EXAMPLE}{}", tokens.concat()), &[]);
    let usdc = token("USDC", "11", 6);
    assert_eq!(
        with(&[usdc.clone(), token("DAI", "22", 18)]).unwrap().chains["local"].tokens.len(),
        2
    );
    let refused = [
        token("usdc", "22", 6),
        token("DAI", "11", 6),
        token("eth", "22", 18),
        token("DAI", "22", 37),
        token("D<AI", "22", 6),
        token("all", "22", 6),
        token("DAI", "1", 6),
    ];
    let refused = refused.map(|other| with(&[usdc.clone(), other]));
    insta::assert_snapshot!("invalid_tokens", messages(refused));
}

/// Settings of production with one change.
fn production(key: &str, value: &str) -> Result<Settings, ConfigError> {
    let mut variables = vec![
        ("KMS_SERVER__PROFILE", "production"),
        ("KMS_SERVER__AUDIT__CHECKPOINT_PATH", "/var/lib/kms-audit/checkpoints"),
        ("KMS_SERVER__MAIL__URL", "smtps://mail.example.org"),
        ("KMS_SERVER__MAIL__FROM", "Wallet <wallet@example.org>"),
        ("KMS_SERVER__MAIL__PUBLIC_URL", "https://kms.example.org"),
    ];
    let key = format!("{PREFIX}__{key}");
    variables.retain(|(known, _)| *known != key);
    variables.push((&key, value));
    settings(EXAMPLE, &variables)
}

#[test]
fn production_accepts_defaults_and_stricter_settings() {
    for (key, value) in [
        ("LISTEN", "0.0.0.0:443"),
        ("RECOVERY__WAIT_WITHOUT_EMAIL", "72h"),
        ("RECOVERY__HOLD", "30d"),
        ("LIMITS__EXPORTS", "0/day"),
        ("LIMITS__RECOVERIES", "1/day"),
        ("LIMITS__SPEND_A_DAY_AFTER_RECOVERY", "{ ETH = \"0.1\" }"),
        ("LIMITS__SPEND_A_DAY_UNLISTED", "250"),
        ("PASSWORD__KDF", "argon2id:m=65536,t=3,p=1"),
        ("PASSWORD__KDF", "pbkdf2-sha256:i=600000"),
        ("UPKEEP__RETENTION", "0d"),
        ("UPKEEP__CHECK_INTERVAL", "1h"),
    ] {
        let accepted = production(key, value).unwrap();
        assert_eq!(accepted.weaknesses(), [], "{key}");
    }
}

#[test]
fn production_refuses_what_is_weaker_than_the_defaults() {
    let refused = [
        ("AUDIT__CHECKPOINT_PATH", ""),
        ("AUDIT__CHECKPOINT_INTERVAL", "1h"),
        ("RECOVERY__WAIT_WITH_CODE", "59m"),
        ("RECOVERY__WAIT_WITHOUT_EMAIL", "0s"),
        ("RECOVERY__WAIT_WITHOUT_EMAIL", "8d"),
        ("RECOVERY__WAIT_WITHOUT_CODE", "6d"),
        ("RECOVERY__EMAIL_TRUSTED_AFTER", "1d"),
        ("RECOVERY__HOLD", "0s"),
        ("RECOVERY__UNFREEZE_WAIT", "23h"),
        ("LIMITS__RECOVERIES", "4/day"),
        ("LIMITS__RECOVERIES", "3/hour"),
        ("LIMITS__ALL_RECOVERIES", "30/minute"),
        ("LIMITS__EXPORTS", "100/day"),
        ("LIMITS__EMAIL_CODES", "6/day"),
        ("LIMITS__CODES_TO_AN_ADDRESS", "1000/day"),
        ("LIMITS__PASSWORD_CHANGES", "1000/day"),
        ("LIMITS__EMAILS", "1000/day"),
        ("LIMITS__SPEND_A_DAY_AFTER_RECOVERY", "{ ETH = \"unlimited\" }"),
        ("LIMITS__SPEND_A_DAY_UNLISTED", "unlimited"),
        ("PASSWORD__KDF", "argon2id:m=8192,t=2,p=1"),
        ("PASSWORD__KDF", "argon2id:m=65536,t=1,p=1"),
        ("PASSWORD__KDF", "pbkdf2-sha256:i=100000"),
        ("UPKEEP__RETENTION", "34d"),
        ("UPKEEP__CHECK_INTERVAL", "48h"),
        ("UPKEEP__PROBE_INTERVAL", "2h"),
        ("CHAINS__LOCAL__PROVE_RECEIPTS", "false"),
        ("CHAINS__LOCAL__STALLED_AFTER", "0s"),
    ]
    .map(|(key, value)| message(production(key, value)));
    insta::assert_snapshot!(refused.join("\n"));
    let without_mail = settings(EXAMPLE, &[("KMS_SERVER__PROFILE", "production")]);
    insta::assert_snapshot!("production_without_anything", message(without_mail));
    assert!(settings(EXAMPLE, &[("KMS_SERVER__RECOVERY__HOLD", "0s")]).is_ok());
}

#[cfg(feature = "aws-kms")]
#[test]
fn production_accepts_a_bucket_in_the_place_of_a_file() {
    let settings = |bucket| {
        let variables = [
            ("KMS_SERVER__PROFILE", "production"),
            ("KMS_SERVER__AUDIT__CHECKPOINT_S3", bucket),
            ("KMS_SERVER__MAIL__URL", "smtps://mail.example.org"),
            ("KMS_SERVER__MAIL__FROM", "Wallet <wallet@example.org>"),
            ("KMS_SERVER__MAIL__PUBLIC_URL", "https://kms.example.org"),
        ];
        settings(EXAMPLE, &variables)
    };
    assert!(settings("s3://kms/checkpoints").is_ok());
    assert_eq!(key(settings("")), "profile");
    assert_eq!(key(settings("s3://kms")), "audit.checkpoint_s3");
}

#[test]
fn databases_on_other_machines_are_reached_over_tls() {
    for (name, url) in [
        ("DATABASE__URL", "postgres://kms:secret@db.example/kms"),
        ("DATABASE__MIGRATE_URL", "postgres://kms:secret@db.example/kms?sslmode=require"),
        ("KEY_DATABASE__URL", "mongodb://kms:secret@db.example/?replicaSet=rs0"),
    ] {
        let refused = || settings(EXAMPLE, &[(&format!("{PREFIX}__{name}"), url)]);
        assert_eq!(key(refused()), name.replace("__", ".").to_lowercase());
        assert!(!message(refused()).contains("secret"));
    }
    insta::assert_snapshot!(
        [DatabaseUrlError::Postgres.to_string(), DatabaseUrlError::MongoDb.to_string(),].join("\n")
    );
}

#[cfg(feature = "aws-kms")]
#[test]
fn aws_kms_is_reached_over_tls() {
    let settings = |endpoint| {
        let section = [
            ("KMS_SERVER__KMS_KEY__KEY", "alias/kms"),
            ("KMS_SERVER__KMS_KEY__PUBLIC_KEY", "PEM"),
            ("KMS_SERVER__KMS_KEY__PROVIDER", "aws-kms"),
            ("KMS_SERVER__KMS_KEY__ENDPOINT", endpoint),
        ];
        let local = ["path = \"kms-key.pem\"", "passphrase = \"0123\""];
        let text = local.iter().fold(EXAMPLE.to_owned(), |text, line| text.replace(line, ""));
        settings(&text, &section)
    };
    assert!(settings("https://vpce-1.kms.eu-central-1.vpce.amazonaws.com").is_ok());
    assert!(settings("http://127.0.0.1:4566").is_ok());
    for bad in ["http://kms.example", "http://127.0.0.1:80@kms.example"] {
        assert_eq!(key(settings(bad)), "kms_key.endpoint", "{bad}");
    }
}

#[test]
fn mail_is_encrypted() {
    let settings = |url, public_url| {
        let mail = [
            ("KMS_SERVER__MAIL__URL", url),
            ("KMS_SERVER__MAIL__FROM", "Wallet <wallet@example.org>"),
            ("KMS_SERVER__MAIL__PUBLIC_URL", public_url),
        ];
        settings(EXAMPLE, &mail)
    };
    let public = "https://kms.example.org";
    for good in [
        "smtps://user:secret@mail.example.org",
        "smtp://user:secret@mail.example.org:587?tls=required",
        "smtp://127.0.0.1:1025",
    ] {
        let settings = settings(good, public).unwrap();
        assert!(settings.recovery.sends_codes);
        assert!(!format!("{settings:?}").contains("secret"));
    }
    for bad in [
        "smtp://mail.example.org",
        "smtp://mail.example.org?tls=opportunistic",
        "smtp://127.0.0.1.example.org",
        "smtp://127.0.0.1:25@mail.example.org",
        "smtp://user:secret@127.0.0.1:25",
        "smtp://mail.example.org?tls=opportunistic&x=?tls=required",
        "https://mail.example.org",
    ] {
        assert_eq!(key(settings(bad, public)), "mail.url", "{bad}");
    }
    for bad in [
        "http://kms.example.org",
        "http://127.0.0.1",
        "https://kms.example.org/",
        "https://kms.example.org/?x",
        "https://a@kms.example.org",
    ] {
        assert_eq!(key(settings("smtps://mail.example.org", bad)), "mail.public_url", "{bad}");
    }
    let without = super::tests::settings(EXAMPLE, &[]).unwrap();
    assert!(without.mail.is_none() && !without.recovery.sends_codes);
}

#[test]
fn an_error_names_the_key() {
    let refused = [
        ("KMS_SERVER__LISTEN", "here"),
        ("KMS_SERVER__KMS_KEY__ID", "KMS"),
        ("KMS_SERVER__KMS_KEY__PROVIDER", "gcp"),
        ("KMS_SERVER__KMS_KEY__PROVIDER", "aws-kms"),
        ("KMS_SERVER__KMS_KEY__KEY", "alias/kms"),
        ("KMS_SERVER__SERVER_KEYS__PEPPER", "1:zz"),
        ("KMS_SERVER__PASSWORD__KDF", "md5"),
        ("KMS_SERVER__PASSWORD__RUNNING", "0"),
        ("KMS_SERVER__CHAINS__LOCAL__CHAIN_ID", "one"),
        ("KMS_SERVER__AUDIT__CHECKPOINT_INTERVAL", "0s"),
        ("KMS_SERVER__UPKEEP__PROBE_INTERVAL", "3600"),
        ("KMS_SERVER__LIMITS__READS", "0/second"),
        ("KMS_SERVER__LIMITS__EXPORTS", "3"),
        ("KMS_SERVER__RECOVERY__OPEN_FOR", "0s"),
        ("KMS_SERVER__RECOVERY__HOLD", "-1s"),
        ("KMS_SERVER__DATABASE__URL_FILE", "/nowhere/at/all"),
        ("KMS_SERVER__DATABASE__URI", "x"),
        ("KMS_SERVER__CHAINS__LOCAL__RPC_URL", "https://a"),
    ];
    let refused = refused.map(|variable| settings(EXAMPLE, &[variable]));
    insta::assert_snapshot!("invalid_settings", messages(refused));
    let missing = EXAMPLE.replace("chain_id = 31337", "");
    assert_eq!(key(settings(&missing, &[])), "chains.local.chain_id");
}

/// Every setting is in the example, and everything in the example is a setting: once for each
/// provider of the KMS key, whose settings begin with its `PROVIDER`, but for the default one's.
#[test]
fn the_example_documents_every_setting() {
    for variables in examples() {
        let variables: Vec<_> = variables.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        settings("", &variables).unwrap();
        let missing = kms_config::undocumented::<Settings>(PREFIX, &variables);
        assert!(missing.is_empty(), "not in deploy/server.env.example: {missing:?}");
    }
}

/// `UPDATE_SCHEMAS=1` writes it.
#[test]
fn the_schema_is_that_of_the_settings() {
    let found = kms_config::schema::<Settings>(PREFIX, DEPLOY_EXAMPLE, &examples());
    let found = format!("{found:#}\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/server.schema.json");
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), found);
}

/// The variables of the example, once for each provider of the KMS key.
fn examples() -> Vec<Vec<(String, String)>> {
    let key = format!("{PREFIX}__KMS_KEY__");
    let (of_key, others): (Vec<_>, Vec<_>) = example()
        .into_iter()
        .partition(|(name, _)| name.starts_with(&key) && !name.ends_with("__ID"));
    let mut providers = vec![Vec::new()];
    for (name, value) in of_key {
        if name.ends_with("__PROVIDER") {
            providers.push(Vec::new());
        }
        providers.last_mut().unwrap().push((name, value));
    }
    assert!(providers.len() > 1, "{providers:?}");
    providers.into_iter().map(|provider| others.iter().cloned().chain(provider).collect()).collect()
}

/// The variables of the example, with values for those that are read from files.
fn example() -> Vec<(String, String)> {
    let variables = kms_config::example_variables(PREFIX, DEPLOY_EXAMPLE).unwrap();
    let variables = variables.into_iter().map(|(name, value)| match name.strip_suffix("_FILE") {
        Some(name) if name.contains("SERVER_KEYS") => {
            (name.to_owned(), format!("1:{}", "1".repeat(64)))
        }
        Some(name) => (name.to_owned(), "from a file".to_owned()),
        None => (name, value),
    });
    variables.collect()
}
