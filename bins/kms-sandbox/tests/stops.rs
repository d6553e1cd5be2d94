//! A stop of the sandbox leaves nothing behind.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// With a browser that waits for news, as each visitor's does.
#[test]
fn ctrl_c_deletes_every_file() {
    for signal in ["-INT", "-TERM"] {
        let temporary = tempfile::tempdir().unwrap();
        let mut sandbox = Command::new(env!("CARGO_BIN_EXE_kms-sandbox"))
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(sandbox.stdout.take().unwrap()).lines();
        let page = lines.find_map(|line| {
            line.unwrap().strip_prefix("Two phones    http://").map(str::to_owned)
        });
        let host = page.unwrap().trim_end_matches('/').to_owned();
        let mut browser = TcpStream::connect(&host).unwrap();
        write!(browser, "GET /state HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        browser.read_exact(&mut [0; 1]).unwrap();
        assert!(lines.any(|line| line.unwrap().starts_with("Ready in")));
        assert!(fs::read_dir(temporary.path()).unwrap().count() > 0);
        let id = sandbox.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        assert!(sandbox.wait().unwrap().success(), "{signal}");
        let left: Vec<_> = fs::read_dir(temporary.path()).unwrap().map(Result::unwrap).collect();
        assert!(left.is_empty(), "{signal} left {left:?}");
    }
}
