//! A proxy before a node that counts calls.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// How often each method was called.
pub(crate) type Calls = BTreeMap<String, u64>;

/// Forwards to a node, and counts the calls.
pub(crate) struct CountingProxy {
    pub(crate) url: String,
    calls: Arc<Mutex<Calls>>,
}

impl CountingProxy {
    pub(crate) fn before(node: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let node = node.trim_start_matches("http://").to_owned();
        let calls = Arc::<Mutex<Calls>>::default();
        let counted = Arc::clone(&calls);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (node, calls) = (node.clone(), Arc::clone(&counted));
                thread::spawn(move || stream.map(|stream| forward(stream, &node, &calls)));
            }
        });
        Self { url, calls }
    }

    pub(crate) fn calls(&self) -> Calls {
        self.calls.lock().unwrap().clone()
    }
}

fn forward(mut stream: TcpStream, node: &str, calls: &Mutex<Calls>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).ok()? > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    // Providers count the calls of a batch.
    let batch = match serde_json::from_slice(&body).ok()? {
        Value::Array(batch) => batch,
        call => vec![call],
    };
    for call in batch {
        *calls.lock().unwrap().entry(call["method"].as_str()?.to_owned()).or_default() += 1;
    }
    let mut node_stream = TcpStream::connect(node).ok()?;
    write!(
        node_stream,
        "POST / HTTP/1.1\r\nHost: {node}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    node_stream.write_all(&body).ok()?;
    let mut answer = Vec::new();
    node_stream.read_to_end(&mut answer).ok()?;
    stream.write_all(&answer).ok()
}
