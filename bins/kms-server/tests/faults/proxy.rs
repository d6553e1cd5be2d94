//! The way to the chain, which loses, delays and cuts as a seed says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::random::Random;

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Passed,
    /// It arrives late.
    Late(u64),
    /// It never arrives.
    Lost,
    /// It arrives, and its answer is lost.
    AnswerLost,
    /// It arrives, and half of its answer comes back.
    Cut,
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
                // A server that dies leaves connections behind.
                thread::spawn(move || stream.map(|stream| pass(stream, &node, &faults)));
            }
        });
        Self { url, faults }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// From now on requests meet what this seed says.
    pub(crate) fn disturb(&self, random: Random) {
        *self.faults.lock().unwrap() = Some(random);
    }

    /// From now on all of them pass.
    pub(crate) fn calm(&self) {
        *self.faults.lock().unwrap() = None;
    }
}

fn decide(faults: &Mutex<Option<Random>>) -> Fate {
    let mut faults = faults.lock().unwrap();
    let Some(random) = faults.as_mut() else { return Fate::Passed };
    match random.below(100) {
        0..5 => Fate::Lost,
        5..10 => Fate::AnswerLost,
        10..13 => Fate::Cut,
        13..25 => Fate::Late(10 + random.below(150)),
        _ => Fate::Passed,
    }
}

fn pass(mut stream: TcpStream, node: &str, faults: &Mutex<Option<Random>>) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let body = read_body(&mut BufReader::new(stream.try_clone().ok()?))?;
    let fate = decide(faults);
    match fate {
        Fate::Lost => return None,
        Fate::Late(milliseconds) => thread::sleep(Duration::from_millis(milliseconds)),
        _ => {}
    }
    let answer = forward(node, &body)?;
    match fate {
        Fate::AnswerLost => None,
        Fate::Cut => stream.write_all(&answer[..answer.len() / 2]).ok(),
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
