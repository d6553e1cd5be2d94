//! Why a call failed.

use kms_types::{ErrorCode, Problem};

/// Why a call failed. It never holds the token, a URL or a body that was sent.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server refused the request.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// The response did not arrive. Whether the request was executed is unknown.
    #[error("the server is unreachable")]
    Unreachable(#[source] reqwest::Error),
    /// The response is not one of this API.
    #[error("unexpected response (HTTP {status})")]
    BadAnswer {
        /// The HTTP status.
        status: u16,
    },
    /// The URL, the certificates or the token are invalid.
    #[error("{0}")]
    Setup(&'static str),
}

impl ClientError {
    /// Returns the server's error code, if the server refused the request.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Problem(problem) => Some(problem.code),
            Self::Unreachable(_) | Self::BadAnswer { .. } | Self::Setup(_) => None,
        }
    }
}
