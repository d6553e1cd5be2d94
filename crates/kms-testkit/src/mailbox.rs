//! An SMTP server in this process (RFC 5321) that stores every e-mail. Like a real one, it refuses
//! unknown commands and commands out of sequence.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::TestkitError;

/// How long a session may be idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The greatest length of a line, its end included (RFC 5321, 4.5.3.1.6).
const MAX_LINE: usize = 1_000;

/// A received e-mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The sender in the envelope.
    pub from: String,
    /// The recipients in the envelope.
    pub to: Vec<String>,
    /// The subject.
    pub subject: String,
    /// The decoded text.
    pub body: String,
}

/// A running SMTP server. Its thread ends with the process.
#[derive(Clone, Debug)]
pub struct Mailbox {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    mails: Vec<Mail>,
    refused: Vec<String>,
    down: bool,
    delay: Duration,
}

impl Mailbox {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start() -> Result<Self, TestkitError> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let mailbox = Self { address, shared: Arc::default() };
        let shared = Arc::clone(&mailbox.shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    // A client that disconnects early has sent no e-mail.
                    let _ = Session::new(&shared).serve(stream);
                });
            }
        });
        Ok(mailbox)
    }

    /// Its URL, `smtp://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// All received e-mails, oldest first.
    #[must_use]
    pub fn mails(&self) -> Vec<Mail> {
        lock(&self.shared).mails.clone()
    }

    /// The received e-mails to one address, oldest first.
    #[must_use]
    pub fn mails_to(&self, address: &str) -> Vec<Mail> {
        self.mails().into_iter().filter(|mail| mail.to.iter().any(|to| to == address)).collect()
    }

    /// Rejects this recipient from now on.
    pub fn refuse(&self, address: &str) {
        lock(&self.shared).refused.push(address.to_owned());
    }

    /// Closes every session with status 421 while it is down.
    pub fn set_down(&self, down: bool) {
        lock(&self.shared).down = down;
    }

    /// Takes this long to store an e-mail from now on.
    pub fn set_delay(&self, delay: Duration) {
        lock(&self.shared).delay = delay;
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Session<'a> {
    shared: &'a Mutex<Shared>,
    greeted: bool,
    from: Option<String>,
    to: Vec<String>,
}

impl<'a> Session<'a> {
    fn new(shared: &'a Mutex<Shared>) -> Self {
        Self { shared, greeted: false, from: None, to: Vec::new() }
    }

    fn serve(mut self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
        let mut out = stream.try_clone()?;
        let mut lines = BufReader::new(stream).lines();
        out.write_all(b"220 localhost ESMTP\r\n")?;
        while let Some(line) = lines.next() {
            let line = line?;
            if lock(self.shared).down {
                return out.write_all(b"421 closing\r\n");
            }
            if line.eq_ignore_ascii_case("DATA") && !self.to.is_empty() {
                out.write_all(b"354 end data with .\r\n")?;
                let mut text = Vec::new();
                for line in lines.by_ref() {
                    let line = line?;
                    match line.strip_prefix('.') {
                        Some("") => break,
                        Some(stuffed) => text.push(stuffed.to_owned()),
                        None => text.push(line),
                    }
                }
                let delay = lock(self.shared).delay;
                std::thread::sleep(delay);
                let answer = self.store(&text);
                out.write_all(format!("{answer}\r\n").as_bytes())?;
                continue;
            }
            let answer = self.run_command(&line);
            out.write_all(format!("{answer}\r\n").as_bytes())?;
            if line.eq_ignore_ascii_case("QUIT") {
                break;
            }
        }
        Ok(())
    }

    fn run_command(&mut self, line: &str) -> String {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" | "HELO" if !rest.is_empty() => {
                self.greeted = true;
                self.reset();
                "250 localhost".to_owned()
            }
            "MAIL" if self.greeted && self.from.is_none() => match address(rest, "FROM:") {
                Some(from) => {
                    self.from = Some(from);
                    "250 ok".to_owned()
                }
                None => "501 bad address".to_owned(),
            },
            "RCPT" if self.from.is_some() => match address(rest, "TO:") {
                Some(to) if lock(self.shared).refused.contains(&to) => {
                    "550 no such mailbox".to_owned()
                }
                Some(to) => {
                    self.to.push(to);
                    "250 ok".to_owned()
                }
                None => "501 bad address".to_owned(),
            },
            "RSET" => {
                self.reset();
                "250 ok".to_owned()
            }
            "NOOP" => "250 ok".to_owned(),
            "QUIT" => "221 bye".to_owned(),
            "MAIL" | "RCPT" | "DATA" => "503 bad sequence".to_owned(),
            _ => "500 unknown".to_owned(),
        }
    }

    fn store(&mut self, text: &[String]) -> &'static str {
        let end = text.iter().position(String::is_empty);
        let valid = text.iter().all(|line| line.is_ascii() && line.len() + 2 <= MAX_LINE);
        let (Some(end), true) = (end, valid) else {
            self.reset();
            return "554 not an e-mail";
        };
        let (headers, body) = text.split_at(end);
        let header = |name| headers.iter().find_map(|line| line.strip_prefix(name));
        let body: String = body.iter().skip(1).map(|line| format!("{line}\n")).collect();
        let body = match header("Content-Transfer-Encoding: ") {
            None | Some("7bit") => Ok(body),
            Some("quoted-printable") => decoded(&body),
            Some(_) => Err("554 unsupported encoding"),
        };
        let body = match body {
            Ok(body) => body,
            Err(refusal) => {
                self.reset();
                return refusal;
            }
        };
        let subject = header("Subject: ");
        lock(self.shared).mails.push(Mail {
            from: self.from.take().unwrap_or_default(),
            to: std::mem::take(&mut self.to),
            subject: subject.unwrap_or_default().to_owned(),
            body,
        });
        "250 stored"
    }

    fn reset(&mut self) {
        self.from = None;
        self.to.clear();
    }
}

fn decoded(body: &str) -> Result<String, &'static str> {
    let lines = body.replace('\n', "\r\n");
    let bytes = quoted_printable::decode(lines, quoted_printable::ParseMode::Strict);
    let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.map(|text| text.replace("\r\n", "\n")).ok_or("554 not quoted-printable")
}

/// Parses the address in angle brackets after `prefix`.
fn address(rest: &str, prefix: &str) -> Option<String> {
    let start = rest.get(..prefix.len())?;
    let rest = rest.get(prefix.len()..)?.trim_start().strip_prefix('<')?;
    let (address, _parameters) = rest.split_once('>')?;
    (start.eq_ignore_ascii_case(prefix) && address.contains('@')).then(|| address.to_owned())
}
