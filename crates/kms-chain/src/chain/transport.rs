//! Sends JSON-RPC requests over HTTP, and measures how long the endpoint takes to answer.

use std::task::{Context, Poll};
use std::time::Instant;

use alloy::rpc::json_rpc::{RequestPacket, ResponsePacket};
use alloy::transports::http::Http;
use alloy::transports::{RpcError, TransportError, TransportFut};
use metrics::{counter, histogram};
use tower::Service;

/// An HTTP transport that reports the latency and the errors of one endpoint.
#[derive(Clone)]
pub(super) struct Measured {
    pub(super) http: Http<reqwest::Client>,
    /// The chain, and the position of the endpoint in the configuration.
    pub(super) labels: [(&'static str, String); 2],
}

impl Service<RequestPacket> for Measured {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.http.poll_ready(context)
    }

    fn call(&mut self, request: RequestPacket) -> Self::Future {
        let (mut http, labels) = (self.http.clone(), self.labels.clone());
        Box::pin(async move {
            let began = Instant::now();
            let answer = http.call(request).await;
            let seconds = began.elapsed().as_secs_f64();
            histogram!("kms_chain_request_duration_seconds", &labels).record(seconds);
            if let Err(error) = &answer {
                let [chain, endpoint] = labels;
                let labels = [chain, endpoint, ("reason", reason(error).to_owned())];
                counter!("kms_chain_request_errors_total", &labels).increment(1);
            }
            answer
        })
    }
}

fn reason(error: &TransportError) -> &'static str {
    match error {
        RpcError::Transport(kind) if kind.retry_after().is_some() => "rate_limited",
        RpcError::Transport(kind) => match kind.as_http_error().map(|http| http.status) {
            Some(429) => "rate_limited",
            Some(_) => "http_status",
            None => "no_answer",
        },
        _ => "not_json_rpc",
    }
}
