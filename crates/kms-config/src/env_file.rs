//! The file `.env`: one `NAME=value` per line, without any syntax of a shell.
//!
//! The value is everything between the first `=` and the end of the line, literally: `$`, `\`, `#`
//! inside a word, and spaces inside the value are literal. Lines that are empty or begin with `#`
//! are ignored. Syntax that other programs interpret is an error: quotes around a value, white
//! space at either end, ` #` behind it, `export`, a name that is given twice, and a name that is no
//! setting of this program.

use std::path::Path;

use crate::error::ConfigError;
use crate::file::{self, FileError};

/// Reads the variables of a file, none if there is no such file.
pub(crate) fn read(path: &Path, prefix: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let shown = path.display().to_string();
    match file::read(path) {
        Ok(text) => parse_env_file(&shown, &text, prefix),
        Err(FileError::Read(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        Err(problem) => Err(ConfigError::File { path: shown, problem }),
    }
}

/// Parses the text of a `.env` file with variables that begin with `prefix` and `__`.
///
/// # Errors
/// [`ConfigError::Syntax`] with the first line that cannot be used.
pub fn parse_env_file(
    path: &str,
    text: &str,
    prefix: &str,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let wrong = |problem: String| {
            Err(ConfigError::Syntax { path: path.to_owned(), line: index + 1, problem })
        };
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match parse_line(line, prefix) {
            Ok(variable) => variable,
            Err(problem) => return wrong(problem),
        };
        if variables.iter().any(|(other, _)| other == name) {
            return wrong(format!("{name} is given twice"));
        }
        variables.push((name.to_owned(), value.to_owned()));
    }
    Ok(variables)
}

/// The name may be shown if it is one; the value never.
fn parse_line<'a>(line: &'a str, prefix: &str) -> Result<(&'a str, &'a str), String> {
    let Some((name, value)) = line.split_once('=') else {
        return Err("expected NAME=value".to_owned());
    };
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || !name.chars().all(is_name) {
        return Err("expected a name of capital letters, digits and _ before the =".to_owned());
    }
    if !name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("__")) {
        return Err(format!(
            "{name} does not begin with {prefix}__; set variables of other programs in the \
             environment"
        ));
    }
    let problem = if value.trim() != value {
        "has white space at an end"
    } else if value.starts_with(['"', '\'']) {
        "begins with a quote; quotes are not removed, write the value without them"
    } else if value.split_whitespace().any(|word| word.starts_with('#')) {
        "has a # after white space; write comments on lines of their own"
    } else if value.contains(char::is_control) {
        "has a control character"
    } else {
        return Ok((name, value));
    };
    Err(format!("the value of {name} {problem}"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<Vec<(String, String)>, ConfigError> {
        parse_env_file(".env", text, "T")
    }

    #[test]
    fn values_are_literal() {
        for value in [
            "postgres://kms:pa$ss1#x@localhost/kms",
            "Wallet <wallet@example.org>",
            "a\\nb",
            "${HOME}$(id)`id`",
            "it's \"so\"",
            "=a=b",
            "",
            "[{ symbol = \"USDC\" }]",
        ] {
            let found = parsed(&format!("# a comment\n\nT__A__B={value}\r\nT__C=1\n")).unwrap();
            let expected = [("T__A__B", value), ("T__C", "1")];
            assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
    }

    #[test]
    fn an_error_names_its_line_and_shows_no_value() {
        let mut errors = Vec::new();
        for text in [
            "hunter2",
            "export T__A=hunter2",
            " T__A=hunter2",
            "T__A =hunter2",
            "t__a=hunter2",
            "=hunter2",
            "T__A= hunter2",
            "T__A=hunter2 ",
            "T__A=\"hunter2\"",
            "T__A='hunter2'",
            "T__A=hunter2 # mine",
            "T__A=hunter2\u{7}",
            "T__FIRST=hunter2",
            "RUST_LOG=hunter2",
            "TT__A=hunter2",
        ] {
            let error = parsed(&format!("# secrets\nT__FIRST=1\n\n{text}\n")).unwrap_err();
            assert!(matches!(error, ConfigError::Syntax { line: 4, .. }), "{text}: {error}");
            errors.push(format!("{}: {error}", text.replace("hunter2", "VALUE").escape_debug()));
        }
        let errors = errors.join("\n");
        assert!(!errors.contains("hunter2"), "{errors}");
        insta::assert_snapshot!("invalid_lines", errors);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_and_a_missing_one_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".env");
        assert!(read(&path, "T").unwrap().is_empty());
        fs::write(&path, "T__A=hunter2\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let ConfigError::File { problem, .. } = read(&path, "T").unwrap_err() else {
            panic!("it is the file that others can read")
        };
        assert!(matches!(problem, FileError::Readable { .. }), "{problem}");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&path, "T").unwrap(), [("T__A".to_owned(), "hunter2".to_owned())]);
    }

    proptest! {
        /// A value is read as it was written, or its line is refused.
        #[test]
        fn a_value_is_read_literally_or_refused(value in "\\PC{0,40}") {
            if let Ok(found) = parsed(&format!("T__A={value}\n")) {
                prop_assert_eq!(found, [("T__A".to_owned(), value)]);
            }
        }
    }
}
