//! A proxy before a node, which loses, delays, truncates, refuses, and answers as a node that is
//! behind or claims to be ahead.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

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

/// How far the node is behind.
#[derive(Clone, Debug, Default)]
pub(crate) enum Height {
    #[default]
    Newest,
    /// Always this many blocks.
    Behind(u64),
    /// Another number of blocks with each request, below four.
    Mixed(Random),
    /// It claims this many blocks more than there are, and that the newest one is final.
    Ahead(u64),
}

/// What the proxy does to requests; nothing by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// Loses, delays and truncates.
    pub(crate) losses: Option<Random>,
    pub(crate) height: Height,
    /// Refuses, in these words, transactions that contain these hex digits: those that pay an
    /// address, in coin or in a token.
    pub(crate) refused: Option<(String, &'static str)>,
    /// Refuses transactions that make the node's pool hold more than this many.
    pub(crate) pool: Option<u64>,
    /// Forwards to this node instead.
    pub(crate) other_node: Option<String>,
}

/// A proxy before a node.
pub(crate) struct Proxy {
    url: String,
    rules: Arc<Mutex<Rules>>,
}

impl Proxy {
    pub(crate) fn before(node: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let node = node.to_owned();
        let rules = Arc::default();
        let shared = Arc::clone(&rules);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (node, rules) = (node.clone(), Arc::clone(&shared));
                // A crashed server leaves broken connections; their errors are ignored.
                thread::spawn(move || stream.map(|stream| handle(stream, &node, &rules)));
            }
        });
        Self { url, rules }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Replaces the rules.
    pub(crate) fn follow(&self, rules: Rules) {
        *self.rules.lock().unwrap() = rules;
    }

    /// Loses, delays and truncates nothing more.
    pub(crate) fn stop_losses(&self) {
        self.rules.lock().unwrap().losses = None;
    }
}

impl Rules {
    fn fate(&mut self) -> Fate {
        let Some(random) = &mut self.losses else { return Fate::Forwarded };
        match random.below(100) {
            0..5 => Fate::Lost,
            5..10 => Fate::AnswerLost,
            10..13 => Fate::Truncated,
            13..25 => Fate::Delayed(10 + random.below(150)),
            _ => Fate::Forwarded,
        }
    }

    fn blocks_behind(&mut self) -> u64 {
        match &mut self.height {
            Height::Newest | Height::Ahead(_) => 0,
            Height::Behind(blocks) => *blocks,
            Height::Mixed(random) => random.below(4),
        }
    }
}

impl Height {
    fn blocks_ahead(&self) -> u64 {
        if let Self::Ahead(blocks) = self { *blocks } else { 0 }
    }
}

fn handle(mut stream: TcpStream, node: &str, rules: &Mutex<Rules>) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let request = read_body(&mut BufReader::new(stream.try_clone().ok()?))?;
    let (fate, backend) = {
        let mut rules = rules.lock().unwrap();
        let node = rules.other_node.clone().unwrap_or_else(|| node.to_owned());
        let (refused, pool) = (rules.refused.clone(), rules.pool);
        let (behind, ahead) = (rules.blocks_behind(), rules.height.blocks_ahead());
        (rules.fate(), Backend { node, behind, ahead, refused, pool })
    };
    match fate {
        Fate::Lost => return None,
        Fate::Delayed(milliseconds) => thread::sleep(Duration::from_millis(milliseconds)),
        Fate::Forwarded | Fate::AnswerLost | Fate::Truncated => {}
    }
    let answer = backend.answer(&request)?;
    let length = match fate {
        Fate::AnswerLost => return None,
        Fate::Truncated => answer.len() / 2,
        Fate::Forwarded | Fate::Delayed(_) | Fate::Lost => answer.len(),
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        answer.len()
    )
    .ok()?;
    stream.write_all(&answer[..length]).ok()
}

/// The node as one request meets it.
struct Backend {
    node: String,
    /// How many blocks it is behind.
    behind: u64,
    /// How many blocks it claims that there are not.
    ahead: u64,
    refused: Option<(String, &'static str)>,
    pool: Option<u64>,
}

impl Backend {
    fn answer(&self, request: &[u8]) -> Option<Vec<u8>> {
        let is_honest = self.behind == 0 && self.ahead == 0;
        if is_honest && self.refused.is_none() && self.pool.is_none() {
            return forward(&self.node, request);
        }
        let answer = match serde_json::from_slice(request).ok()? {
            Value::Array(batch) => {
                let answers: Option<Vec<_>> =
                    batch.into_iter().map(|call| self.answer_call(call)).collect();
                Value::Array(answers?)
            }
            call => self.answer_call(call)?,
        };
        serde_json::to_vec(&answer).ok()
    }

    fn answer_call(&self, mut call: Value) -> Option<Value> {
        let method = call["method"].as_str()?.to_owned();
        if method == "eth_sendRawTransaction"
            && let Some(words) = self.refusal(&call["params"])
        {
            return Some(refused(&call, words));
        }
        if self.ahead > 0 {
            return self.boast(call);
        }
        if self.behind == 0 {
            let answer = self.forward_call(&call)?;
            let is_refused = method == "eth_sendRawTransaction" && self.drops(&answer["result"])?;
            let full = || refused(&call, "txpool is full");
            return Some(if is_refused { full() } else { answer });
        }
        let newest = number(&self.ask("eth_blockNumber", &json!([]))?)?;
        let at = newest.saturating_sub(self.behind);
        if !self.is_known(&call["params"], at)? {
            let mut answer = json!({"jsonrpc": "2.0", "id": call["id"]});
            match method.as_str() {
                "eth_getBlockByNumber" | "eth_getBlockReceipts" => answer["result"] = Value::Null,
                _ => answer["error"] = json!({"code": -32_000, "message": "header not found"}),
            }
            return Some(answer);
        }
        for parameter in call["params"].as_array_mut().into_iter().flatten() {
            if matches!(parameter.as_str(), Some("latest" | "pending")) {
                *parameter = json!(format!("{at:#x}"));
            }
        }
        let mut answer = self.forward_call(&call)?;
        if method == "eth_blockNumber" {
            answer["result"] = json!(format!("{at:#x}"));
        } else if is_above(&answer["result"], at) {
            answer["result"] = Value::Null;
        }
        Some(answer)
    }

    /// Answers a call with a newest block that is too high, and that is final.
    fn boast(&self, mut call: Value) -> Option<Value> {
        let is_count = call["method"] == "eth_blockNumber";
        let is_block = call["method"] == "eth_getBlockByNumber"
            && matches!(call["params"][0].as_str(), Some("latest" | "finalized"));
        if is_block {
            call["params"][0] = json!("latest");
        }
        let mut answer = self.forward_call(&call)?;
        let newest = match &mut answer["result"] {
            newest if is_count => newest,
            block if is_block => &mut block["number"],
            _ => return Some(answer),
        };
        *newest = json!(format!("{:#x}", number(newest)? + self.ahead));
        Some(answer)
    }

    fn refusal(&self, params: &Value) -> Option<&'static str> {
        let bytes = params[0].as_str().unwrap_or_default().to_lowercase();
        if let Some((digits, words)) = &self.refused
            && bytes.contains(digits)
        {
            return Some(words);
        }
        None
    }

    /// Drops a transaction that makes the pool too full. One that replaces another does not.
    fn drops(&self, accepted: &Value) -> Option<bool> {
        let (Some(pool), Some(_)) = (self.pool, accepted.as_str()) else { return Some(false) };
        let status = self.ask("txpool_status", &json!([]))?;
        let held = number(&status["pending"])? + number(&status["queued"])?;
        if held > pool {
            self.ask("anvil_dropTransaction", &json!([accepted]))?;
        }
        Some(held > pool)
    }

    /// Whether a node at this height knows the block that a parameter names.
    fn is_known(&self, params: &Value, at: u64) -> Option<bool> {
        // A call without parameters may lack the member.
        for parameter in params.as_array().into_iter().flatten() {
            let block = match &parameter["blockHash"] {
                Value::String(hash) => self.ask("eth_getBlockByHash", &json!([hash, false]))?,
                _ => parameter.clone(),
            };
            // Numbers of blocks are short; hashes and addresses are not.
            let named = block["number"].as_str().or(block.as_str().filter(|text| text.len() < 18));
            if named.and_then(hex).is_some_and(|number| number > at) {
                return Some(false);
            }
        }
        Some(true)
    }

    fn ask(&self, method: &str, params: &Value) -> Option<Value> {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        Some(self.forward_call(&call)?["result"].take())
    }

    fn forward_call(&self, call: &Value) -> Option<Value> {
        let answer = forward(&self.node, &serde_json::to_vec(call).ok()?)?;
        serde_json::from_slice(&answer).ok()
    }
}

fn refused(call: &Value, words: &str) -> Value {
    let error = json!({"code": -32_000, "message": words});
    json!({"jsonrpc": "2.0", "id": call["id"], "error": error})
}

/// Whether a block, a transaction, a receipt or the receipts of a block are above this height.
fn is_above(result: &Value, at: u64) -> bool {
    let first = result.get(0).unwrap_or(result);
    let block = first.get("blockNumber").or_else(|| first.get("number"));
    block.and_then(number).is_some_and(|block| block > at)
}

fn number(value: &Value) -> Option<u64> {
    value.as_str().and_then(hex)
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
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

/// Sends a request to a node, and returns the body of the answer.
fn forward(node: &str, body: &[u8]) -> Option<Vec<u8>> {
    let node = node.trim_start_matches("http://");
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
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(answer.split_off(end + 4))
}
