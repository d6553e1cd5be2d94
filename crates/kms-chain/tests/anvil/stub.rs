//! A stand-in for an endpoint that misbehaves in ways a real node can not be made to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};

/// What it says to one call.
pub(crate) enum Answer {
    Result(Value),
    Error(i64, &'static str),
    /// Nothing of JSON-RPC: a status line and headers.
    Http(String),
}

/// Starts it, and gives its URL. `say` is asked for every call, by its method.
pub(crate) fn start(say: impl Fn(&str) -> Answer + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &say);
        }
    });
    url
}

fn answer(stream: TcpStream, say: impl Fn(&str) -> Answer) {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    let mut line = String::new();
    while stream.read_line(&mut line).unwrap() > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut call = vec![0; length];
    stream.read_exact(&mut call).unwrap();
    let call: Value = serde_json::from_slice(&call).unwrap();
    let (id, method) = (call.get("id").unwrap(), call.get("method").unwrap());
    let (head, member, value) = match say(method.as_str().unwrap()) {
        Answer::Result(value) => ("200 OK".to_owned(), "result", value),
        Answer::Error(code, message) => {
            ("200 OK".to_owned(), "error", json!({"code": code, "message": message}))
        }
        Answer::Http(head) => (head, "nothing", Value::Null),
    };
    let body = json!({"jsonrpc": "2.0", "id": id, member: value}).to_string();
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {head}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    stream.get_mut().write_all(answer.as_bytes()).unwrap();
}
