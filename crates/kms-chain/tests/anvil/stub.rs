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
    // No node: every call is answered here.
    start_proxy("", move |method| Fate::Answered(answer_to(method)))
}

/// Starts a proxy in front of a node, and returns its URL. `decide` decides by the method, for each
/// call of a batch.
pub(crate) fn start_proxy(
    node: &str,
    mut decide: impl FnMut(&str) -> Fate + Send + 'static,
) -> String {
    start_proxy_by_call(node, move |call| decide(method_of(call)))
}

/// Like [`start_proxy`]; `decide` has the whole call.
pub(crate) fn start_proxy_by_call(
    node: &str,
    mut decide: impl FnMut(&Value) -> Fate + Send + 'static,
) -> String {
    let node = node.trim_start_matches("http://").to_owned();
    serve(move |request| match &request {
        Value::Array(calls) => {
            let answers: Option<Vec<Value>> =
                calls.iter().map(|call| answer(&node, call, &mut decide)?.ok()).collect();
            answers.map(|answers| Ok(Value::Array(answers)))
        }
        call => answer(&node, call, &mut decide),
    })
}

/// Starts a proxy that forwards every request as it is, once `record` has seen it.
pub(crate) fn start_recording(
    node: &str,
    mut record: impl FnMut(&Value) + Send + 'static,
) -> String {
    let node = node.trim_start_matches("http://").to_owned();
    serve(move |request| {
        record(&request);
        Some(Ok(forward(&node, &request)))
    })
}

/// Starts a proxy that answers every batch like this, and forwards single calls.
pub(crate) fn start_without_batches(
    node: &str,
    mut refuse: impl FnMut() -> Answer + Send + 'static,
) -> String {
    let node = node.trim_start_matches("http://").to_owned();
    serve(move |request| match request {
        // In the place of an array: one error, whose id is none of theirs.
        Value::Array(_) => Some(response(&json!({"id": null}), refuse())),
        call => Some(Ok(forward(&node, &call))),
    })
}

/// Starts a proxy that refuses requests without this header, in lower case.
pub(crate) fn start_with_header(node: &str, header: &'static str) -> String {
    let node = node.trim_start_matches("http://").to_owned();
    serve_with_headers(move |headers, call| match headers.contains(header) {
        true => Some(Ok(forward(&node, &call))),
        false => Some(Err("401 Unauthorized".to_owned())),
    })
}

/// An answer: JSON, or an HTTP status line and headers without it. `None` drops the connection.
type Answered = Option<Result<Value, String>>;

fn serve(mut answer_to: impl FnMut(Value) -> Answered + Send + 'static) -> String {
    serve_with_headers(move |_headers, call| answer_to(call))
}

fn serve_with_headers(
    mut answer_to: impl FnMut(&str, Value) -> Answered + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (headers, request) = read_request(&mut stream);
            if let Some(answer) = answer_to(&headers, request) {
                write_answer(stream.get_mut(), answer);
            }
        }
    });
    url
}

pub(crate) fn method_of(call: &Value) -> &str {
    call.get("method").unwrap().as_str().unwrap()
}

fn answer(node: &str, call: &Value, decide: &mut impl FnMut(&Value) -> Fate) -> Answered {
    match decide(call) {
        Fate::Passed => Some(Ok(forward(node, call))),
        Fate::AnswerLost => {
            forward(node, call);
            None
        }
        Fate::Lost => None,
        Fate::Answered(answer) => Some(response(call, answer)),
    }
}

/// Returns a node's result of one call.
pub(crate) fn ask(node: &str, method: &str, params: &Value) -> Value {
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    forward(node.trim_start_matches("http://"), &call).get("result").unwrap().clone()
}

/// The head of a request in lower case, and its body.
fn read_request(stream: &mut BufReader<TcpStream>) -> (String, Value) {
    let (mut length, mut head) = (0, String::new());
    let mut line = String::new();
    while stream.read_line(&mut line).unwrap() > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line.to_lowercase());
        line.clear();
    }
    let mut call = vec![0; length];
    stream.read_exact(&mut call).unwrap();
    (head, serde_json::from_slice(&call).unwrap())
}

fn forward(node: &str, call: &Value) -> Value {
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
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    serde_json::from_slice(answer.get(end..).unwrap()).unwrap()
}

fn response(call: &Value, answer: Answer) -> Result<Value, String> {
    let (member, value) = match answer {
        Answer::Result(value) => ("result", value),
        Answer::Error(code, message) => ("error", json!({"code": code, "message": message})),
        Answer::ErrorWith(code, message, data) => {
            ("error", json!({"code": code, "message": message, "data": data}))
        }
        Answer::Http(head) => return Err(head),
    };
    Ok(json!({"jsonrpc": "2.0", "id": call.get("id").unwrap(), member: value}))
}

fn write_answer(stream: &mut TcpStream, answer: Result<Value, String>) {
    let (head, body) = match answer {
        Ok(body) => ("200 OK".to_owned(), body.to_string()),
        Err(head) => (head, String::new()),
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {head}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).unwrap();
}
