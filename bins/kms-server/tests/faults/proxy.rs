//! A proxy before the node, which loses, delays and truncates as a seed determines.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::random::Random;

/// What happens to a request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Forwarded,
    /// It is forwarded after this many milliseconds.
    Delayed(u64),
    /// It is not forwarded.
    Lost,
    /// It is forwarded, and its answer is dropped.
    AnswerLost,
    /// It is forwarded, and its answer is truncated.
    Truncated,
}

/// A proxy before a node.
pub(crate) struct Proxy {
    url: String,
    faults: Arc<Mutex<Option<Random>>>,
}

impl Proxy {
    pub(crate) fn before(node: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let node = node.trim_start_matches("http://").to_owned();
        let faults = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&faults);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (node, faults) = (node.clone(), Arc::clone(&shared));
                // A crashed server leaves broken connections; their errors are ignored.
                thread::spawn(move || stream.map(|stream| handle(stream, &node, &faults)));
            }
        });
        Self { url, faults }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// Begins to inject faults.
    pub(crate) fn inject(&self, random: Random) {
        *self.faults.lock().unwrap() = Some(random);
    }

    /// Forwards all requests again.
    pub(crate) fn stop_injecting(&self) {
        *self.faults.lock().unwrap() = None;
    }
}

fn decide(faults: &Mutex<Option<Random>>) -> Fate {
    let mut faults = faults.lock().unwrap();
    let Some(random) = faults.as_mut() else { return Fate::Forwarded };
    match random.below(100) {
        0..5 => Fate::Lost,
        5..10 => Fate::AnswerLost,
        10..13 => Fate::Truncated,
        13..25 => Fate::Delayed(10 + random.below(150)),
        _ => Fate::Forwarded,
    }
}

fn handle(mut stream: TcpStream, node: &str, faults: &Mutex<Option<Random>>) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let body = read_body(&mut BufReader::new(stream.try_clone().ok()?))?;
    let fate = decide(faults);
    match fate {
        Fate::Lost => return None,
        Fate::Delayed(milliseconds) => thread::sleep(Duration::from_millis(milliseconds)),
        _ => {}
    }
    let answer = forward(node, &body)?;
    match fate {
        Fate::AnswerLost => None,
        Fate::Truncated => stream.write_all(&answer[..answer.len() / 2]).ok(),
        _ => stream.write_all(&answer).ok(),
    }
}

fn read_body(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let (mut length, mut line) = (0, String::new());
    while stream.read_line(&mut line).ok()? > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

fn forward(node: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(node).ok()?;
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: {node}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(answer)
}
