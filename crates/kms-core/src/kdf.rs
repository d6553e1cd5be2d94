//! Stretching a password hash: the slow part of deriving a key (`FORMAT.md`, "KDF").

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use kms_types::PasswordHash;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::random;

/// A wallet's KDF and its costs, stored with the wallet as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KdfParams {
    /// Argon2id (RFC 9106), version 0x13.
    Argon2id {
        /// Memory in KiB.
        memory: u32,
        /// Passes over the memory.
        passes: u32,
        /// Degree of parallelism.
        lanes: u32,
    },
    /// PBKDF2 (RFC 8018) with HMAC-SHA256.
    Pbkdf2 {
        /// Iterations.
        rounds: u32,
    },
}

/// The text is not a supported KDF with costs within its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected argon2id:m=19456,t=2,p=1 (m 8192 to 1048576, t 1 to 16, p 1 to 4) or \
     pbkdf2-sha256:i=600000 (i 100000 to 10000000)"
)]
pub struct KdfParamsError;

/// 16 random bytes that every sealing of a wallet chooses anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt(pub [u8; 16]);

impl Salt {
    pub(crate) fn random() -> Self {
        let mut bytes = [0; 16];
        random::fill(&mut bytes);
        Self(bytes)
    }
}

impl KdfParams {
    /// Argon2id with 19 MiB, two passes, one lane: OWASP's recommendation.
    pub const ARGON2ID: Self = Self::Argon2id { memory: 19 * 1024, passes: 2, lanes: 1 };

    /// PBKDF2-HMAC-SHA256 with 600,000 rounds: OWASP's recommendation.
    pub const PBKDF2: Self = Self::Pbkdf2 { rounds: 600_000 };

    /// Stretches the password hash. Uses one core for tens of milliseconds.
    pub(crate) fn stretch(self, password: &PasswordHash, salt: &Salt) -> Zeroizing<[u8; 32]> {
        let mut out = Zeroizing::new([0; 32]);
        match self {
            Self::Argon2id { memory, passes, lanes } => {
                #[expect(
                    clippy::expect_used,
                    reason = "the bounds of FromStr are within Argon2's"
                )]
                Params::new(memory, passes, lanes, Some(32))
                    .and_then(|params| {
                        let blocks = params.block_count();
                        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                        with_memory(blocks, |memory| {
                            argon2.hash_password_into_with_memory(
                                password.expose(),
                                &salt.0,
                                out.as_mut_slice(),
                                memory,
                            )
                        })
                    })
                    .expect("costs within bounds are valid");
            }
            Self::Pbkdf2 { rounds } => {
                pbkdf2::pbkdf2_hmac::<Sha256>(
                    password.expose(),
                    &salt.0,
                    rounds,
                    out.as_mut_slice(),
                );
            }
        }
        out
    }
}

/// Runs `work` with zeroed memory of this many blocks, and wipes it afterwards. The memory is
/// reused for the next password: allocating megabytes per password on many threads fragments the
/// allocator's arenas, and every new page costs a page fault.
fn with_memory<T>(blocks: usize, work: impl FnOnce(&mut [Block]) -> T) -> T {
    static KEPT: Mutex<Vec<Vec<Block>>> = Mutex::new(Vec::new());
    let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let most = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    // Memory for other costs is freed, so that a change of costs does not keep both.
    let found = {
        let mut kept = kept();
        kept.retain(|memory| memory.len() == blocks);
        kept.pop()
    };
    let mut memory = found.unwrap_or_else(|| vec![Block::default(); blocks]);
    let done = work(&mut memory);
    memory.iter_mut().for_each(Block::zeroize);
    let mut kept = kept();
    if kept.len() < most {
        kept.push(memory);
    }
    done
}

impl Default for KdfParams {
    fn default() -> Self {
        Self::ARGON2ID
    }
}

impl FromStr for KdfParams {
    type Err = KdfParamsError;

    /// Parses within bounds: a modified row can neither occupy the server for hours nor weaken a
    /// KDF.
    fn from_str(text: &str) -> Result<Self, KdfParamsError> {
        let (name, costs) = text.split_once(':').ok_or(KdfParamsError)?;
        let cost = |field: Option<&str>, key: &str, low: u32, high: u32| {
            field
                .and_then(|field| field.strip_prefix(key)?.parse::<u32>().ok())
                .filter(|cost| (low..=high).contains(cost))
                .ok_or(KdfParamsError)
        };
        let mut fields = costs.split(',');
        let params = match name {
            "argon2id" => Self::Argon2id {
                memory: cost(fields.next(), "m=", 8 * 1024, 1024 * 1024)?,
                passes: cost(fields.next(), "t=", 1, 16)?,
                lanes: cost(fields.next(), "p=", 1, 4)?,
            },
            "pbkdf2-sha256" => {
                Self::Pbkdf2 { rounds: cost(fields.next(), "i=", 100_000, 10_000_000)? }
            }
            _ => return Err(KdfParamsError),
        };
        if params.to_string() == text { Ok(params) } else { Err(KdfParamsError) }
    }
}

impl fmt::Display for KdfParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argon2id { memory, passes, lanes } => {
                write!(f, "argon2id:m={memory},t={passes},p={lanes}")
            }
            Self::Pbkdf2 { rounds } => write!(f, "pbkdf2-sha256:i={rounds}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_is_bounded() {
        for params in [KdfParams::ARGON2ID, KdfParams::PBKDF2] {
            assert_eq!(params.to_string().parse(), Ok(params));
        }
        for bad in [
            "",
            "argon2id",
            "argon2id:m=19456,t=2",
            "argon2id:m=19456,t=2,p=1,x=1",
            "argon2id:m=8,t=2,p=1",
            "argon2id:m=4294967295,t=2,p=1",
            "argon2id:m=019456,t=2,p=1",
            "argon2i:m=19456,t=2,p=1",
            "pbkdf2-sha256:i=1",
            "pbkdf2-sha256:i=4294967295",
            "scrypt:n=2",
        ] {
            assert_eq!(bad.parse::<KdfParams>(), Err(KdfParamsError), "{bad}");
        }
    }
}
