//! A proxy before a node that counts calls.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::Value;

/// Forwards to a node, and counts the calls.
pub(crate) struct CountingProxy {
    pub(crate) url: String,
    calls: Arc<AtomicU64>,
}

impl CountingProxy {
    pub(crate) fn before(node: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let node = node.trim_start_matches("http://").to_owned();
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&calls);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (node, calls) = (node.clone(), Arc::clone(&counted));
                thread::spawn(move || stream.map(|stream| forward(stream, &node, &calls)));
            }
        });
        Self { url, calls }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

fn forward(mut stream: TcpStream, node: &str, calls: &AtomicU64) -> Option<()> {
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
    let count = match serde_json::from_slice(&body).ok()? {
        // Providers count the calls of a batch.
        Value::Array(batch) => batch.len(),
        _ => 1,
    };
    calls.fetch_add(u64::try_from(count).ok()?, Ordering::SeqCst);
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
