//! Errors of a chain, and how a JSON-RPC error is classified: as a failure of the endpoint, or as
//! the chain's verdict on the request.
//!
//! Message text decides two things: whether an error means that the execution failed on the chain,
//! and whether the node lacks the block of the request, which costs it nothing but another try. No
//! error shows an endpoint's URL, which may contain an API key.

use alloy::rpc::json_rpc::ErrorPayload;
use alloy::transports::{RpcError, TransportError};

use super::family::Family;

/// JSON-RPC codes that mean a failed execution and nothing else: the code of the Ethereum execution
/// API for a revert, and the code that some clients use for errors of their virtual machine. Every
/// other code, -32000 among them, is also used for failures of the endpoint itself.
const EXECUTION_FAILED: [i64; 2] = [3, -32_015];

/// Lower-cased substrings of the messages that nodes return for reverts, out-of-gas and
/// invalid-jump errors under any code. None of them occurs in nodes' errors about themselves.
const FAILED: [&str; 10] = [
    "execution reverted",
    "vm execution error",
    "out of gas",
    "gas required exceeds",
    "invalid opcode",
    "invalid jump",
    "stack underflow",
    "stack limit",
    "return data out of bounds",
    "insufficient funds for",
];

/// The JSON-RPC code for a resource that does not exist, which EIP-1898 recommends for a block that
/// the node does not have.
const NOT_FOUND: i64 = -32_001;

/// Lower-cased substrings of the messages of nodes that do not have the block of a request, or have
/// another one in its place.
const NO_BLOCK: [&str; 11] = [
    "header not found",
    "header for hash not found",
    "unknown block",
    "block not found",
    "blocknotfound",
    "could not find block",
    "unable to find block",
    "not currently canonical",
    "beyond head block",
    "blockoutofrange",
    "block out of range",
];

/// The JSON-RPC code for parameters that a method does not take.
pub(super) const INVALID_PARAMETERS: i64 = -32_602;

/// How many characters of a node's or a contract's message are kept.
const MESSAGE_CHARACTERS: usize = 200;

/// Why a request to the chain failed.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The endpoint is unreachable, timed out, or did not answer in JSON-RPC.
    #[error("the chain endpoint is unavailable: {0}")]
    Unavailable(String),
    /// The endpoint allows no more requests for a while.
    #[error("the endpoint allows no more requests for {seconds} seconds")]
    RateLimited {
        /// How long, in seconds.
        seconds: u64,
    },
    /// The endpoint serves another chain.
    #[error("the endpoint serves chain {found}, not chain {expected}")]
    WrongChain {
        /// The configured chain id.
        expected: u64,
        /// The chain id that the endpoint reported.
        found: u64,
    },
    /// The chain is of a family that is not supported.
    #[error(
        "chain {chain_id} is of the family {family}, which is not supported: remove it from \
         `chains` (docs/operating/chains.md says why)"
    )]
    Unsupported {
        /// The chain id.
        chain_id: u64,
        /// Which family.
        family: Family,
    },
    /// The endpoint answers but no longer follows the chain.
    #[error("the newest block of the endpoint is {seconds} seconds old by the local clock")]
    Stalled {
        /// The age of its newest block.
        seconds: u64,
    },
    /// The node answered with an error.
    #[error("the node returned an error: {message} ({code})")]
    Refused {
        /// The JSON-RPC code.
        code: i64,
        /// The node's message: at most 200 characters, no control characters.
        message: String,
    },
    /// The recipient's or the token's contract would revert the payment.
    #[error("the payment would be reverted: {reason}")]
    Reverted {
        /// The reason, as the node and the contract give it: untrusted text, truncated and cleaned
        /// like the message of `Refused`.
        reason: String,
    },
    /// The receipts that an endpoint returned do not have the receipts root of their block.
    #[error("the receipts of block {block} do not have the receipts root of its header")]
    FalseReceipts {
        /// The block.
        block: u64,
    },
    /// The endpoint does not return the receipts of a block.
    #[error("the endpoint does not return the receipts of a block (eth_getBlockReceipts)")]
    NoReceipts,
    /// No second endpoint returns the same block or receipt.
    #[error("no second endpoint confirms block {block}")]
    Unconfirmed {
        /// The block.
        block: u64,
    },
    /// The chain does not count a nonce that was used in a finalized block.
    #[error("the chain does not have nonce {nonce}, which was final")]
    Contradicted {
        /// The nonce.
        nonce: u64,
    },
    /// The chain has no finalized block.
    #[error(
        "the chain has no finalized block: set chain.finality to the number of blocks after which \
         a block is final"
    )]
    NoFinality,
    /// Of several endpoints no two agree on what transactions cost.
    #[error("no two endpoints agree on the price of a transaction")]
    UnconfirmedPrices,
    /// The endpoint does not have the block, or not any more: behind one URL may be several nodes,
    /// of which one is behind.
    #[error("the endpoint does not have the block: {message} ({code})")]
    NoBlock {
        /// The JSON-RPC code.
        code: i64,
        /// The node's message, like that of `Refused`.
        message: String,
    },
    /// The token's contract does not implement ERC-20.
    #[error("the contract does not answer as an ERC-20 token")]
    NotAToken,
    /// No endpoint is configured.
    #[error("no endpoint of the chain is configured")]
    NoEndpoint,
    /// The URL of an endpoint is invalid.
    #[error("the endpoint is not an http:// or https:// URL")]
    InvalidUrl,
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    HttpClient,
}

impl ChainError {
    /// The error that a node answered with, whatever it means.
    pub(super) fn refused(payload: &ErrorPayload) -> Self {
        Self::Refused { code: payload.code, message: cleaned_message(&payload.message) }
    }

    /// Whether another endpoint may answer. If not, the error is the chain's verdict on the
    /// request.
    pub(super) fn may_pass_elsewhere(&self) -> bool {
        self.is_endpoint_failure() || matches!(self, Self::NoBlock { .. } | Self::Refused { .. })
    }

    /// Whether the endpoint is at fault (down, of another chain, over its quota), so that others
    /// are asked first for a while. One that does not have a block is only behind, and one that
    /// does not take the parameters of a request is asked in another way.
    pub(super) fn is_endpoint_failure(&self) -> bool {
        match self {
            Self::Refused { code, .. } => *code != INVALID_PARAMETERS,
            error => matches!(
                error,
                Self::Unavailable(_)
                    | Self::RateLimited { .. }
                    | Self::WrongChain { .. }
                    | Self::Unsupported { .. }
                    | Self::Stalled { .. }
                    | Self::NotAToken
                    | Self::FalseReceipts { .. }
            ),
        }
    }
}

impl From<TransportError> for ChainError {
    fn from(error: TransportError) -> Self {
        match error {
            RpcError::ErrorResp(payload) if execution_failed(&payload) => {
                Self::Reverted { reason: cleaned_message(&payload.message) }
            }
            RpcError::ErrorResp(payload) if lacks_block(&payload) => {
                Self::NoBlock { code: payload.code, message: cleaned_message(&payload.message) }
            }
            RpcError::ErrorResp(payload) => Self::refused(&payload),
            RpcError::Transport(kind) => Self::Unavailable(match kind.as_http_error() {
                Some(http) => format!("HTTP status {}", http.status),
                None => "no connection, or no answer in time".to_owned(),
            }),
            _ => Self::Unavailable("the answer is not JSON-RPC".to_owned()),
        }
    }
}

/// Whether the error means that the request fails when it is executed on the chain. The data of a
/// revert is hex in `data`; some nodes prefix it with a word.
fn execution_failed(payload: &ErrorPayload) -> bool {
    let data: Option<String> = payload.try_data_as().and_then(Result::ok);
    let is_revert = |data: &str| data.trim_start_matches("Reverted ").starts_with("0x");
    let message = payload.message.to_lowercase();
    EXECUTION_FAILED.contains(&payload.code)
        || data.as_deref().is_some_and(is_revert)
        || FAILED.iter().any(|words| message.contains(words))
}

/// Whether the error means that the node does not have the block of the request.
fn lacks_block(payload: &ErrorPayload) -> bool {
    let message = payload.message.to_lowercase();
    payload.code == NOT_FOUND || NO_BLOCK.iter().any(|words| message.contains(words))
}

fn cleaned_message(text: &str) -> String {
    cleaned(text, MESSAGE_CHARACTERS)
}

/// Truncates untrusted text and removes control characters, for log lines and screens.
pub(super) fn cleaned(text: &str, characters: usize) -> String {
    text.chars().filter(|character| !character.is_control()).take(characters).collect()
}
