//! Why a call failed.

use kms_types::{ErrorCode, Problem};

/// Why a call failed. Never shows the token, a URL's credentials or a body that was sent.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server refused, and says why.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// The server does not answer. Whether it did what it was asked is unknown.
    #[error("the server does not answer")]
    Unreachable(#[source] reqwest::Error),
    /// The answer is not one of this API.
    #[error("the answer is not one of this API (HTTP status {status})")]
    BadAnswer {
        /// The HTTP status.
        status: u16,
    },
    /// The URL, the certificate or the token can not be used.
    #[error("{0}")]
    Setup(&'static str),
}

impl ClientError {
    /// The server's code for it, if it was the server that refused.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Problem(problem) => Some(problem.code),
            _ => None,
        }
    }
}
