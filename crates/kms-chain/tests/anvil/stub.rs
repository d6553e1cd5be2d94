//! Stubs of endpoints that misbehave in ways that a real node cannot be made to: alone, or as a
//! proxy in front of a real node.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};

/// The answer to one call.
pub(crate) enum Answer {
    Result(Value),
    Error(i64, &'static str),
    /// An error with `data`.
    ErrorWith(i64, &'static str, Value),
    /// An HTTP status line and headers without JSON-RPC.
    Http(String),
}

/// What the proxy does with one call.
pub(crate) enum Fate {
    /// Forwards the call and the answer.
    Passed,
    /// Forwards the call, and drops the answer.
    AnswerLost,
    /// Drops the call.
    Lost,
    /// Drops the call, and returns this answer.
    Answered(Answer),
}

/// Starts a stub, and returns its URL. `answer_to` returns the answer to a method.
pub(crate) fn start(answer_to: impl Fn(&str) -> Answer + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &answer_to);
        }
    });
    url
}

/// Starts a proxy in front of a node, and returns its URL. `decide` decides by the method.
pub(crate) fn start_proxy(
    node: &str,
    mut decide: impl FnMut(&str) -> Fate + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let node = node.trim_start_matches("http://").to_owned();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let call = read_call(&mut stream);
            let method = call.get("method").unwrap().as_str().unwrap();
            match decide(method) {
                Fate::Passed => stream.get_mut().write_all(&forward(&node, &call)).unwrap(),
                Fate::AnswerLost => drop(forward(&node, &call)),
                Fate::Lost => {}
                Fate::Answered(answer) => respond(&mut stream, &call, answer),
            }
        }
    });
    url
}

/// Returns a node's result of one call.
pub(crate) fn ask(node: &str, method: &str, params: &Value) -> Value {
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let answer = forward(node.trim_start_matches("http://"), &call);
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let answer: Value = serde_json::from_slice(answer.get(end..).unwrap()).unwrap();
    answer.get("result").unwrap().clone()
}

fn answer(stream: TcpStream, answer_to: impl Fn(&str) -> Answer) {
    let mut stream = BufReader::new(stream);
    let call = read_call(&mut stream);
    let answer = answer_to(call.get("method").unwrap().as_str().unwrap());
    respond(&mut stream, &call, answer);
}

fn read_call(stream: &mut BufReader<TcpStream>) -> Value {
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
    serde_json::from_slice(&call).unwrap()
}

fn forward(node: &str, call: &Value) -> Vec<u8> {
    let body = call.to_string();
    let length = body.len();
    let mut stream = TcpStream::connect(node).unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {node}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

fn respond(stream: &mut BufReader<TcpStream>, call: &Value, answer: Answer) {
    let id = call.get("id").unwrap();
    let (head, member, value) = match answer {
        Answer::Result(value) => ("200 OK".to_owned(), "result", value),
        Answer::Error(code, message) => {
            ("200 OK".to_owned(), "error", json!({"code": code, "message": message}))
        }
        Answer::ErrorWith(code, message, data) => {
            ("200 OK".to_owned(), "error", json!({"code": code, "message": message, "data": data}))
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
