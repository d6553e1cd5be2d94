//! How settings are merged from their sources, and the errors of invalid ones.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde::Deserialize;

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    secret: String,
    number: u16,
    is_on: bool,
    words: Vec<String>,
    tokens: Vec<Token>,
    amounts: BTreeMap<String, u64>,
    key: Option<Key>,
    url: Option<ServiceUrl>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    symbol: String,
    decimals: u8,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Key {
    Local { passphrase: String },
    AwsKms { key: String, size: u16 },
}

fn settings(toml: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
    load_from("T", toml, variables).map_err(|error| error.to_string())
}

fn private_file(content: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), content).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

#[test]
fn the_type_of_a_setting_decides_how_its_variable_is_parsed() {
    let found = settings(
        "",
        &[
            ("T__SECRET", "0123"),
            ("T__NUMBER", "42"),
            ("T__IS_ON", "true"),
            ("T__WORDS", "https://a  https://b\nhttps://c"),
            (
                "T__TOKENS",
                "[{ symbol = \"USDC\", decimals = 6 }, { symbol = \"DAI\", decimals = 18 }]",
            ),
            ("T__AMOUNTS", "{ eth = 1 }"),
            ("T__KEY__PROVIDER", "aws-kms"),
            ("T__KEY__KEY", "alias/kms"),
            ("T__KEY__SIZE", "4096"),
            ("OTHER__NUMBER", "1"),
            ("TT__NUMBER", "1"),
            ("T__URL", ""),
        ],
    );
    let token = |symbol: &str, decimals| Token { symbol: symbol.to_owned(), decimals };
    let expected = Settings {
        secret: "0123".to_owned(),
        number: 42,
        is_on: true,
        words: ["https://a", "https://b", "https://c"].map(str::to_owned).into(),
        tokens: vec![token("USDC", 6), token("DAI", 18)],
        amounts: [("eth".to_owned(), 1)].into(),
        key: Some(Key::AwsKms { key: "alias/kms".to_owned(), size: 4096 }),
        url: None,
    };
    assert_eq!(found.unwrap(), expected);
    for text in ["{ a = 1 }", "[1]", "true", "'"] {
        assert_eq!(settings("", &[("T__SECRET", text)]).unwrap().secret, text);
    }
    for text in ["[\"a\", \"b c\"]", "[\n\"a\",\n\"b c\",\n]"] {
        assert_eq!(settings("", &[("T__WORDS", text)]).unwrap().words, ["a", "b c"]);
    }
    let by_key = settings("", &[("T__AMOUNTS__ETH", "1"), ("T__AMOUNTS__DAI", "2")]).unwrap();
    assert_eq!(
        by_key.amounts.into_iter().collect::<Vec<_>>(),
        [("dai".into(), 2), ("eth".into(), 1)]
    );
}

#[test]
fn variables_override_the_file() {
    let toml = "number = 1\nwords = [\"a\"]\n[amounts]\neth = 1\ndai = 2\n\
                [[tokens]]\nsymbol = \"A\"\ndecimals = 1\n";
    let found = settings(
        toml,
        &[("T__NUMBER", "2"), ("T__WORDS", "b"), ("T__AMOUNTS__ETH", "3"), ("T__TOKENS", "[]")],
    );
    let found = found.unwrap();
    assert_eq!((found.number, found.words, found.tokens), (2, vec!["b".to_owned()], vec![]));
    assert_eq!(found.amounts, [("dai".to_owned(), 2), ("eth".to_owned(), 3)].into());
    let whole = settings(toml, &[("T__AMOUNTS", "{ eth = 4 }")]).unwrap();
    assert_eq!(whole.amounts, [("eth".to_owned(), 4)].into());
    let both = settings(toml, &[("T__AMOUNTS", "{ eth = 4 }"), ("T__AMOUNTS__ETH", "5")]);
    assert_eq!(both.unwrap_err(), "amounts: given twice: as a whole, and by a key below it");
}

#[test]
fn a_file_gives_a_value_unless_the_environment_does() {
    let (_file, path) = private_file("from a file\n");
    let (in_toml, in_variable) =
        (format!("secret_file = \"{path}\""), ("T__SECRET_FILE", path.as_str()));
    let direct = ("T__SECRET", "direct");
    let secret = |toml: &str, variables: &[_]| settings(toml, variables).map(|found| found.secret);
    assert_eq!(secret(&in_toml, &[]).unwrap(), "from a file");
    assert_eq!(secret(&in_toml, &[direct]).unwrap(), "direct");
    assert_eq!(secret("secret = \"in the TOML\"", &[in_variable]).unwrap(), "from a file");
    let both = secret("", &[direct, in_variable]).unwrap_err();
    assert_eq!(both, "secret_file: expected this or secret, not both");
    let missing = secret("", &[("T__SECRET_FILE", "/nowhere")]).unwrap_err();
    assert!(missing.starts_with("secret_file: /nowhere: cannot be read"), "{missing}");
    let key = format!("{{ provider = \"local\", passphrase_file = \"{path}\" }}");
    let found = settings("", &[("T__KEY", &key)]).unwrap();
    assert_eq!(found.key, Some(Key::Local { passphrase: "from a file".to_owned() }));
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let (file, path) = private_file("hunter2");
    fs::set_permissions(file.path(), Permissions::from_mode(0o644)).unwrap();
    let error = settings("", &[("T__SECRET_FILE", &path)]).unwrap_err();
    let expected = format!("secret_file: {path}: other users can read it; run `chmod 600 {path}`");
    assert_eq!(error, expected);
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    user: String,
    password: Option<Secret>,
    #[serde(default, deserialize_with = "secret_number")]
    pin: Option<u32>,
}

fn secret_number<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u32>, D::Error> {
    crate::secret(deserializer).map(Some)
}

#[test]
fn a_toml_file_that_others_can_read_holds_no_secret() {
    let (_password, password) = private_file("hunter2");
    let load = |toml: &str, mode: u32| {
        let (file, _) = private_file(toml);
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        load::<Login>("T_LOGIN", Some(file.path())).map_err(|error| error.to_string())
    };
    for secret in ["password = \"hunter2\"", "pin = \"1234\""] {
        let toml = format!("user = \"ann\"\n{secret}");
        let private = load(&toml, 0o600).unwrap();
        assert!(private.password.is_some() || private.pin == Some(1234));
        let error = load(&toml, 0o644).unwrap_err();
        assert!(error.ends_with("run `chmod 600` on it"), "{error}");
        assert!(error.starts_with(secret.split(' ').next().unwrap()), "{error}");
    }
    let in_a_file = format!("user = \"ann\"\npassword_file = \"{password}\"");
    let login = load(&in_a_file, 0o644).unwrap();
    assert_eq!((login.user.as_str(), login.password.unwrap().expose()), ("ann", "hunter2"));
    assert!(load(&in_a_file, 0o664).unwrap_err().contains("other users can write to it"));
}

#[test]
fn an_error_names_the_whole_key_and_shows_no_value() {
    for (name, value, error) in [
        ("T__NUMBER", "hunter2", "number: expected a whole number in the range of this setting"),
        ("T__NUMBER", "-1", "number: expected a whole number in the range of this setting"),
        ("T__NUMBER", "70000", "number: expected a whole number in the range of this setting"),
        ("T__IS_ON", "hunter2", "is_on: expected true or false"),
        (
            "T__SECRETS",
            "hunter2",
            "secrets: unknown; expected one of secret, number, is_on, words, tokens, amounts, key, \
             url",
        ),
        (
            "T__AMOUNTS__ETH",
            "hunter2",
            "amounts.eth: expected a whole number in the range of this setting",
        ),
        (
            "T__AMOUNTS",
            "hunter2",
            "amounts: expected a table, in one variable as { key = \"value\" }",
        ),
        (
            "T__TOKENS",
            "hunter2",
            "tokens[0]: expected a table, in one variable as { key = \"value\" }",
        ),
        (
            "T__TOKENS",
            "[hunter2",
            "tokens: expected words with white space between them, or a TOML array",
        ),
        (
            "T__TOKENS",
            "[]\nnumber = 1",
            "tokens: expected words with white space between them, or a TOML array",
        ),
        (
            "T__TOKENS",
            "[{ symbol = \"A\", decimals = \"hunter2\" }]",
            "tokens[0].decimals: expected a whole number in the range of this setting",
        ),
        ("T__TOKENS", "[{ symbol = \"A\" }]", "tokens[0].decimals: missing"),
        ("T__KEY__PROVIDER", "hunter2", "key.provider: expected local or aws-kms"),
        ("T__KEY__PROVIDER", "local", "key.passphrase: missing"),
        (
            "T__KEY",
            "{ provider = \"aws-kms\", key = \"a\", size = 70000 }",
            "key.size: expected a whole number in the range of this setting",
        ),
        ("T__KEY__PASS", "hunter2", "key.pass: unknown; expected one of passphrase"),
        (
            "T__KEY",
            "{ provider = \"local\", passphrase = \"a\", hunter = 2 }",
            "key.hunter: unknown; expected one of passphrase",
        ),
        (
            "T__URL",
            "http://hunter2",
            "url: expected https://, or http:// to localhost, 127.0.0.1 or [::1]",
        ),
        ("T__KEY", "hunter2", "key: expected local or aws-kms"),
        ("T__SECRET__A", "hunter2", "secret: expected a string"),
    ] {
        let found = settings("", &[(name, value)]).unwrap_err();
        assert_eq!(found, error, "{name}={value}");
        assert!(!found.contains("hunter2"), "{found}");
    }
    let error = settings("number = 1\nsecret = hunter2\n", &[]).unwrap_err();
    assert_eq!(error, "TOML, line 2: expected TOML: key = \"value\" or [section]");
    let error = settings("number = \"hunter2\"\n", &[]).unwrap_err();
    assert_eq!(error, "number: expected a whole number in the range of this setting");
}

#[test]
fn a_table_is_the_variant_that_its_provider_names_or_the_first() {
    let key = |toml: &str, variables: &[_]| settings(toml, variables).unwrap().key.unwrap();
    let local = || Key::Local { passphrase: "a".to_owned() };
    assert_eq!(key("", &[("T__KEY__PASSPHRASE", "a")]), local());
    assert_eq!(key("[key]\nprovider = \"local\"\npassphrase = \"a\"\n", &[]), local());
    let (name, size) = (("T__KEY__KEY", "b"), ("T__KEY__SIZE", "1"));
    let found = key("[key]\nprovider = \"aws-kms\"\n", &[name, size]);
    assert_eq!(found, Key::AwsKms { key: "b".to_owned(), size: 1 });
}
