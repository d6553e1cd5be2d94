//! How settings are merged from their sources, and the errors of invalid ones.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;
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

fn settings(toml: &str, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    load_from("T", toml, variables)
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
    assert_eq!(both.unwrap_err().key(), Some("amounts"));
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
    assert_eq!(both.key(), Some("secret_file"));
    let missing = secret("", &[("T__SECRET_FILE", "/nowhere")]).unwrap_err();
    let (nowhere, problem) = value_file(&missing);
    assert_eq!(nowhere, "/nowhere");
    assert!(matches!(problem, FileError::Read(_)), "{problem}");
    let key = format!("{{ provider = \"local\", passphrase_file = \"{path}\" }}");
    let found = settings("", &[("T__KEY", &key)]).unwrap();
    assert_eq!(found.key, Some(Key::Local { passphrase: "from a file".to_owned() }));
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let (file, path) = private_file("hunter2");
    fs::set_permissions(file.path(), Permissions::from_mode(0o644)).unwrap();
    let error = settings("", &[("T__SECRET_FILE", &path)]).unwrap_err();
    assert_eq!(error.key(), Some("secret_file"));
    let (named, problem) = value_file(&error);
    assert_eq!(named, path);
    assert!(matches!(problem, FileError::Readable { .. }), "{problem}");
    assert_snapshot!("readable_file", error.to_string().replace(&path, "PATH"));
}

/// The file that a `_file` key names, and why it cannot be used.
fn value_file(error: &ConfigError) -> (&str, &FileError) {
    match error {
        ConfigError::ValueFile { path, problem, .. } => (path, problem),
        other => panic!("{other}"),
    }
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
        load::<Login>("T_LOGIN", Some(file.path()))
    };
    for secret in ["password = \"hunter2\"", "pin = \"1234\""] {
        let toml = format!("user = \"ann\"\n{secret}");
        let private = load(&toml, 0o600).unwrap();
        assert!(private.password.is_some() || private.pin == Some(1234));
        let error = load(&toml, 0o644).unwrap_err();
        assert_eq!(error.key(), secret.split(' ').next());
        assert_snapshot!(format!("readable_toml_{}", error.key().unwrap()), error);
    }
    let in_a_file = format!("user = \"ann\"\npassword_file = \"{password}\"");
    let login = load(&in_a_file, 0o644).unwrap();
    assert_eq!((login.user.as_str(), login.password.unwrap().expose()), ("ann", "hunter2"));
    let ConfigError::File { problem, .. } = load(&in_a_file, 0o664).unwrap_err() else {
        panic!("it is the file that others can change")
    };
    assert!(matches!(problem, FileError::Writable { .. }), "{problem}");
}

#[test]
fn an_error_names_the_whole_key_and_shows_no_value() {
    let mut errors = Vec::new();
    for (name, value) in [
        ("T__NUMBER", "hunter2"),
        ("T__NUMBER", "-1"),
        ("T__NUMBER", "70000"),
        ("T__IS_ON", "hunter2"),
        ("T__SECRETS", "hunter2"),
        ("T__AMOUNTS__ETH", "hunter2"),
        ("T__AMOUNTS", "hunter2"),
        ("T__TOKENS", "hunter2"),
        ("T__TOKENS", "[hunter2"),
        ("T__TOKENS", "[]\nnumber = 1"),
        ("T__TOKENS", "[{ symbol = \"A\", decimals = \"hunter2\" }]"),
        ("T__TOKENS", "[{ symbol = \"A\" }]"),
        ("T__KEY__PROVIDER", "hunter2"),
        ("T__KEY__PROVIDER", "local"),
        ("T__KEY", "{ provider = \"aws-kms\", key = \"a\", size = 70000 }"),
        ("T__KEY__PASS", "hunter2"),
        ("T__KEY", "{ provider = \"local\", passphrase = \"a\", hunter = 2 }"),
        ("T__URL", "http://hunter2"),
        ("T__KEY", "hunter2"),
        ("T__SECRET__A", "hunter2"),
    ] {
        let error = settings("", &[(name, value)]).unwrap_err().to_string();
        errors.push(format!("{name}: {error}"));
    }
    for toml in ["number = 1\nsecret = hunter2\n", "number = \"hunter2\"\n"] {
        errors.push(settings(toml, &[]).unwrap_err().to_string());
    }
    let errors = errors.join("\n");
    assert!(!errors.contains("hunter2"), "{errors}");
    assert_snapshot!("invalid_settings", errors);
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
