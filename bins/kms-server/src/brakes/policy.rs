//! Asks the operator's program whether a payment may be signed. Each request is signed, the answer
//! may take two seconds, and only `{"allow": true}` allows the payment.

use std::time::Duration;

use kms_chain::transfer::{Party, Transfer};
use kms_types::{AccountId, EthAddress, Timestamp, TransferId, Units};
use reqwest::header::CONTENT_TYPE;
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::config::PaymentPolicySettings;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The most bytes of an answer that are read.
const MAX_ANSWER: usize = 1_024;

/// The header with the time and the signature of a request.
const SIGNATURE: &str = "kms-signature";

/// The operator's program.
pub(crate) struct PolicyClient {
    client: reqwest::Client,
    url: String,
    key: hmac::Key,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PolicyError {
    #[error("no answer in time")]
    NoAnswer(#[source] reqwest::Error),
    #[error("HTTP status {0}")]
    Status(u16),
    #[error("the answer is not {{\"allow\": true}} or {{\"allow\": false}}")]
    Answer,
}

/// What is asked.
#[derive(Serialize)]
struct Question<'a> {
    transfer: TransferId,
    chain_id: u64,
    /// The token's contract, or `native`.
    asset: String,
    /// In the asset's smallest unit.
    value: Units,
    from: Side<'a>,
    to: Side<'a>,
    at: Timestamp,
}

#[derive(Serialize)]
struct Side<'a> {
    address: EthAddress,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<AccountId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answer {
    allow: bool,
}

impl<'a> From<&'a Party> for Side<'a> {
    fn from(party: &'a Party) -> Self {
        let Party { account, username, address, .. } = party;
        let username = username.as_ref().map(|name| name.as_str());
        Self { address: *address, account: *account, username }
    }
}

impl PolicyClient {
    pub(crate) fn new(settings: &PaymentPolicySettings) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, settings.key.expose().as_bytes());
        Ok(Self { client, url: settings.url.as_str().to_owned(), key })
    }

    /// Whether the payment may be signed.
    pub(super) async fn ask(&self, transfer: &Transfer) -> Result<bool, PolicyError> {
        let at = clock::now();
        let asset = transfer.token.as_ref().map(|token| token.address.to_string());
        let question = Question {
            transfer: transfer.id,
            chain_id: transfer.chain_id,
            asset: asset.unwrap_or_else(|| "native".to_owned()),
            value: transfer.value,
            from: (&transfer.from).into(),
            to: (&transfer.to).into(),
            at,
        };
        let body = serde_json::to_string(&question).map_err(|_error| PolicyError::Answer)?;
        let signature = self.signature(at, &body);
        let request = self.client.post(&self.url).header(SIGNATURE, signature);
        let request = request.header(CONTENT_TYPE, "application/json").body(body);
        let mut response = request.send().await.map_err(unanswered)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(PolicyError::Status(response.status().as_u16()));
        }
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unanswered)? {
            text.extend_from_slice(&chunk);
            if text.len() > MAX_ANSWER {
                return Err(PolicyError::Answer);
            }
        }
        let answer: Answer = serde_json::from_slice(&text).map_err(|_error| PolicyError::Answer)?;
        Ok(answer.allow)
    }

    /// `t=TIME,v1=HEX`: the HMAC-SHA256 of the time in milliseconds, a dot and the body.
    fn signature(&self, at: Timestamp, body: &str) -> String {
        let tag = hmac::sign(&self.key, format!("{}.{body}", at.0).as_bytes());
        format!("t={},v1={}", at.0, hex::encode(tag))
    }
}

/// Without the URL, which may hold a secret.
fn unanswered(error: reqwest::Error) -> PolicyError {
    PolicyError::NoAnswer(error.without_url())
}
