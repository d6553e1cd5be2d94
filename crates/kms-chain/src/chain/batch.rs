//! Calls that are sent at once: in one JSON-RPC batch, or as single requests to an endpoint that
//! refuses batches.

use std::marker::PhantomData;
use std::sync::atomic::Ordering;

use alloy::providers::Provider;
use alloy::rpc::client::BatchRequest;
use alloy::transports::{RpcError, TransportError, TransportErrorKind};
use futures::future::join_all;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::endpoint::Endpoint;
use super::error::ChainError;

/// Calls to send at once.
#[derive(Default)]
pub(super) struct Calls(Vec<(&'static str, Value)>);

/// The place of one answer.
pub(super) struct Place<T>(usize, PhantomData<fn() -> T>);

/// The answers to calls.
pub(super) struct Answers(Vec<Result<Value, TransportError>>);

impl Calls {
    /// Adds a call, whose answer is a `T`.
    pub(super) fn add<T>(&mut self, method: &'static str, params: Value) -> Place<T> {
        self.0.push((method, params));
        Place(self.0.len().saturating_sub(1), PhantomData)
    }
}

impl Answers {
    /// Removes an answer.
    pub(super) fn take<T: DeserializeOwned>(
        &mut self,
        Place(at, _): Place<T>,
    ) -> Result<T, TransportError> {
        let missing = Err(TransportErrorKind::custom_str("no answer to this call"));
        let answer = match self.0.get_mut(at) {
            Some(answer) => std::mem::replace(answer, missing),
            None => missing,
        };
        serde_json::from_value(answer?)
            .map_err(|error| TransportError::deser_err(error, String::new()))
    }

    /// Whether the endpoint took the batch for one request that it does not understand.
    fn are_missing(&self) -> bool {
        let is_missing = |answer: &Result<Value, TransportError>| {
            let Err(RpcError::Transport(kind)) = answer else { return false };
            matches!(kind, TransportErrorKind::MissingBatchResponse(_))
        };
        self.0.iter().all(is_missing)
    }
}

impl Endpoint {
    /// Sends these calls. An error of a single call is returned in the place of its answer.
    pub(super) async fn send(&self, calls: Calls) -> Result<Answers, ChainError> {
        if !self.refuses_batches.load(Ordering::Relaxed)
            && let Some(answers) = self.send_batch(&calls).await?
        {
            return Ok(answers);
        }
        let single = calls.0.into_iter().map(|(method, params)| async move {
            self.provider.raw_request::<_, Value>(method.into(), params).await
        });
        let answers = Answers(join_all(single).await);
        // An outage refuses everything, and says nothing about batches.
        if answers.0.iter().all(|answer| !matches!(answer, Err(RpcError::Transport(_)))) {
            self.refuses_batches.store(true, Ordering::Relaxed);
        }
        Ok(answers)
    }

    /// `None` if the endpoint refuses the batch as such.
    async fn send_batch(&self, calls: &Calls) -> Result<Option<Answers>, ChainError> {
        let mut batch = BatchRequest::new(self.provider.client());
        let mut waiting = Vec::with_capacity(calls.0.len());
        for (method, params) in &calls.0 {
            waiting.push(self.record_outcome(batch.add_call::<_, Value>(*method, params))?);
        }
        match batch.send().await {
            Err(RpcError::Transport(kind)) if is_refusal(&kind) => return Ok(None),
            sent => self.record_outcome(sent)?,
        }
        let answers = Answers(join_all(waiting).await);
        Ok(Some(answers).filter(|answers| !answers.are_missing()))
    }
}

/// Whether an HTTP status refuses a request for what it is, rather than for the moment.
fn is_refusal(kind: &TransportErrorKind) -> bool {
    let status = kind.as_http_error().map(|error| error.status);
    status.is_some_and(|status| matches!(status, 400 | 405 | 413 | 415 | 422 | 501))
}
