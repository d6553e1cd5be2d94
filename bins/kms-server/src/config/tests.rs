//! What an operator may write, and what is said of what they may not.

use super::*;

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
    [chain]
    rpc_url = "http://127.0.0.1:8545"
    chain_id = 31337
    name = "Local"
"#;

fn settings(text: &str, environment: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    kms_config::load_from::<Raw>(PREFIX, DEFAULTS, text, environment)?.try_into()
}

fn said(result: Result<Settings, ConfigError>) -> String {
    format!("{:#}", anyhow::Error::from(result.unwrap_err()))
}

#[test]
fn the_environment_wins_and_files_are_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "postgres://kms:secret@db/kms\n").unwrap();
    let path = file.path().to_str().unwrap();
    let settings = settings(
        EXAMPLE,
        &[
            ("KMS_SERVER__DATABASE__URL_FILE", path),
            ("KMS_SERVER__CHAIN__CHAIN_ID", "1"),
            ("KMS_SERVER__LISTEN", "0.0.0.0:443"),
        ],
    )
    .unwrap();
    assert_eq!(settings.database.url.expose(), "postgres://kms:secret@db/kms");
    assert_eq!(settings.chain.chain_id, 1);
    assert_eq!(settings.listen.port(), 443);
    let KmsKeyProvider::Local { passphrase, .. } = &settings.kms_key.provider else {
        panic!("{settings:?}")
    };
    assert_eq!(passphrase.expose(), "0123");
    assert!(!format!("{settings:?}").contains("secret"));
}

#[test]
fn endpoints_are_one_or_several() {
    let count = |settings: Settings| settings.chain.rpc_urls.0.len();
    let variable = "KMS_SERVER__CHAIN__RPC_URLS";
    let without = EXAMPLE.replace("rpc_url = \"http://127.0.0.1:8545\"", "");
    assert_eq!(count(settings(EXAMPLE, &[]).unwrap()), 1);
    let several = settings(&without, &[(variable, "https://a/secret  https://b\nhttps://c")]);
    let several = several.unwrap();
    assert!(!format!("{several:?}").contains("secret"));
    assert_eq!(several.chain.open().unwrap().chain_id(), 31_337);
    assert_eq!(count(several), 3);
    let list = without.replace("[chain]", "[chain]\nrpc_urls = [\"https://a\", \"https://b\"]");
    assert_eq!(count(settings(&list, &[]).unwrap()), 2);
    assert!(settings(&without, &[(variable, " ")]).unwrap().chain.open().is_err());
    assert!(said(settings(&without, &[])).contains("rpc_urls"));
}

#[test]
fn limits_are_in_the_assets_own_units() {
    let token = "[[chain.tokens]]\nsymbol = \"USDC\"\n\
                 address = \"0x1111111111111111111111111111111111111111\"\ndecimals = 6\n";
    let with = |limits: &str| settings(&format!("{EXAMPLE}{token}[limits]\n{limits}"), &[]);
    let settings = with("spend_a_day = { ETH = \"0.5\", usdc = \"100\" }").unwrap();
    let rules = settings.limits.spending(&settings.chain, &settings.recovery).unwrap();
    let caps = |token| rules.caps(token).a_day.unwrap().to_string();
    assert_eq!(caps(None), "500000000000000000");
    assert_eq!(caps(settings.chain.tokens.first()), "100000000");
    for (wrong, named) in [
        ("spend_a_day = { DAI = \"1\" }", "limits.spend_a_day.DAI"),
        ("spend_a_day_after_recovery = { USDC = \"0.0000001\" }", "USDC"),
        ("spend_a_day = { ETH = \"1,5\" }", "spend_a_day"),
        ("spend_a_day = { ETH = \"0\" }", "spend_a_day"),
    ] {
        let error = said(with(wrong));
        assert!(error.contains(named), "{error}");
    }
    let variable = ("KMS_SERVER__LIMITS__SPEND_A_DAY__ETH", "2");
    let settings = super::tests::settings(EXAMPLE, &[variable]).unwrap();
    assert!(
        settings
            .limits
            .spending(&settings.chain, &settings.recovery)
            .unwrap()
            .caps(None)
            .a_day
            .is_some()
    );
}

#[test]
fn tokens_are_told_apart() {
    let token = |symbol: &str, byte: &str, decimals: u8| {
        let address = byte.repeat(20);
        format!(
            "[[chain.tokens]]\nsymbol = \"{symbol}\"\naddress = \"0x{address}\"\n\
             decimals = {decimals}\n"
        )
    };
    let with = |tokens: &[String]| settings(&format!("{EXAMPLE}{}", tokens.concat()), &[]);
    let usdc = token("USDC", "11", 6);
    assert_eq!(with(&[usdc.clone(), token("DAI", "22", 18)]).unwrap().chain.tokens.len(), 2);
    for (other, why) in [
        (token("usdc", "22", 6), "symbol"),
        (token("DAI", "11", 6), "address"),
        (token("eth", "22", 18), "native coin"),
        (token("DAI", "22", 37), "decimals"),
        (token("D<AI", "22", 6), "symbol"),
        (token("all", "22", 6), "native and all"),
        (token("DAI", "1", 6), "address"),
    ] {
        let error = said(with(&[usdc.clone(), other]));
        assert!(error.contains("tokens") && error.contains(why), "{error}");
    }
}

#[cfg(feature = "aws-kms")]
#[test]
fn a_key_in_aws_is_not_asked_in_clear() {
    let settings = |endpoint| {
        let key = [
            ("KMS_SERVER__KMS_KEY__KEY", "alias/kms"),
            ("KMS_SERVER__KMS_KEY__PUBLIC_KEY", "PEM"),
            ("KMS_SERVER__KMS_KEY__PROVIDER", "aws-kms"),
            ("KMS_SERVER__KMS_KEY__ENDPOINT", endpoint),
        ];
        let local = ["path = \"kms-key.pem\"", "passphrase = \"0123\""];
        let text = local.iter().fold(EXAMPLE.to_owned(), |text, line| text.replace(line, ""));
        settings(&text, &key)
    };
    assert!(settings("https://vpce-1.kms.eu-central-1.vpce.amazonaws.com").is_ok());
    assert!(settings("http://127.0.0.1:4566").is_ok());
    for bad in ["http://kms.example", "http://127.0.0.1:80@kms.example"] {
        assert!(said(settings(bad)).contains("kms_key.endpoint"), "{bad}");
    }
}

#[test]
fn mail_does_not_go_in_clear() {
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
    ] {
        assert!(said(settings(bad, public)).contains("mail.url"), "{bad}");
    }
    for bad in ["http://kms.example.org", "https://kms.example.org/"] {
        let error = said(settings("smtps://mail.example.org", bad));
        assert!(error.contains("mail.public_url"), "{error}");
    }
    let without = super::tests::settings(EXAMPLE, &[]).unwrap();
    assert!(without.mail.is_none() && !without.recovery.sends_codes);
}

#[test]
fn a_bad_value_names_itself() {
    for (key, value, named) in [
        ("KMS_SERVER__LISTEN", "here", "listen"),
        ("KMS_SERVER__KMS_KEY__ID", "KMS", "kms_key.id"),
        ("KMS_SERVER__KMS_KEY__PROVIDER", "gcp", "aws-kms"),
        ("KMS_SERVER__KMS_KEY__PROVIDER", "aws-kms", "public_key"),
        ("KMS_SERVER__KMS_KEY__KEY", "alias/kms", "key"),
        ("KMS_SERVER__SERVER_KEYS__PEPPER", "1:zz", "server_keys.pepper"),
        ("KMS_SERVER__PASSWORD__KDF", "md5", "password.kdf"),
        ("KMS_SERVER__PASSWORD__RUNNING", "0", "password.running"),
        ("KMS_SERVER__CHAIN__CHAIN_ID", "one", "chain.chain_id"),
        ("KMS_SERVER__AUDIT__CHECKPOINT_MINUTES", "0", "audit.checkpoint_minutes"),
        ("KMS_SERVER__UPKEEP__CANARY_SECONDS", "0", "upkeep.canary_seconds"),
        ("KMS_SERVER__LIMITS__READS_A_SECOND", "0", "reads_a_second"),
        ("KMS_SERVER__RECOVERY__OPEN_FOR", "0", "recovery.open_for"),
        ("KMS_SERVER__RECOVERY__HOLD", "-1", "hold"),
        ("KMS_SERVER__DATABASE__URL_FILE", "/nowhere/at/all", "database.url_file"),
        ("KMS_SERVER__DATABASE__URI", "x", "uri"),
    ] {
        let error = said(settings(EXAMPLE, &[(key, value)]));
        assert!(error.contains(named), "{key}: {error}");
    }
    let missing = EXAMPLE.replace("chain_id = 31337", "");
    let error = said(settings(&missing, &[]));
    assert!(error.contains("chain_id"), "{error}");
}
