//! Stretching a password hash: the slow part of deriving a key (`FORMAT.md`, "KDF").

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::{LazyLock, Mutex, PoisonError};

use argon2_rust::params::Memory;
use argon2_rust::{Algorithm, Argon2, Hasher, Params, Version};
use kms_types::PasswordHash;
use sha2::Sha256;
use zeroize::Zeroizing;

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
                argon2id(memory, passes, lanes)
                    .and_then(|argon2| {
                        with_kept_memory(argon2, |hasher| {
                            hasher.hash_into(password.expose(), &salt.0, out.as_mut_slice())
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

fn argon2id(memory: u32, passes: u32, lanes: u32) -> Result<Argon2, argon2_rust::Error> {
    let memory = Memory::kib(memory.into());
    let params = Params::builder().memory(memory).passes(passes).lanes(lanes).build()?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Runs `work` with memory that was used before, if any is free. The hasher wipes it before it
/// returns. It is kept for the next password: allocating megabytes for each fragments the
/// allocator's arenas, and every new page costs a page fault.
fn with_kept_memory<T>(argon2: Argon2, work: impl FnOnce(&mut Hasher) -> T) -> T {
    static KEPT: Mutex<Vec<Hasher>> = Mutex::new(Vec::new());
    // It reads files.
    static MOST: LazyLock<usize> =
        LazyLock::new(|| std::thread::available_parallelism().map_or(1, NonZeroUsize::get));
    let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    // Memory for other costs is freed, so that a change of costs does not keep both.
    let found = {
        let mut kept = kept();
        kept.retain(|hasher| hasher.argon2() == &argon2);
        kept.pop()
    };
    let mut hasher = found.unwrap_or_else(|| argon2.hasher());
    let done = work(&mut hasher);
    let mut kept = kept();
    if kept.len() < *MOST {
        kept.push(hasher);
    }
    done
}

/// Compares the implementation that this CPU selects with the Argon2id vector of RFC 9106. A CPU
/// that computes it wrongly would seal wallets that open on no other machine.
///
/// # Errors
/// When they differ.
pub(crate) fn self_test() -> io::Result<()> {
    const TAG: [u8; 32] = [
        0x0d, 0x64, 0x0d, 0xf5, 0x8d, 0x78, 0x76, 0x6c, 0x08, 0xc0, 0x37, 0xa3, 0x4a, 0x8b, 0x53,
        0xc9, 0xd0, 0x1e, 0xf0, 0x45, 0x2d, 0x75, 0xb6, 0x5e, 0xb5, 0x25, 0x20, 0xe9, 0x6b, 0x01,
        0xe6, 0x59,
    ];
    let mut tag = [0; 32];
    argon2id(32, 3, 4)
        .and_then(|argon2| {
            argon2.hash_into_with_ad(&[1; 32], &[2; 16], &[3; 8], &[4; 12], &mut tag)
        })
        .map_err(io::Error::other)?;
    if tag == TAG {
        return Ok(());
    }
    let backend = argon2_rust::detected_backend();
    Err(io::Error::other(format!("Argon2id by {backend:?} differs from RFC 9106 on this CPU")))
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_cpu_computes_the_vector_of_rfc_9106() {
        self_test().unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn agrees_with_a_second_implementation(
            (lanes, memory) in (1..=4_u32).prop_flat_map(|lanes| (Just(lanes), 8 * lanes..600)),
            passes in 1..=4_u32,
            password: [u8; 32],
            salt: [u8; 16],
        ) {
            let mut expected = [0; 32];
            let params = argon2::Params::new(memory, passes, lanes, Some(32)).unwrap();
            argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
                .hash_password_into(&password, &salt, &mut expected)
                .unwrap();
            // Twice, with new memory and with memory that was used before.
            let mut hasher = argon2id(memory, passes, lanes).unwrap().hasher();
            for _ in 0..2 {
                let mut found = [0; 32];
                hasher.hash_into(&password, &salt, &mut found).unwrap();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn keeps_the_memory_of_the_last_costs() {
        let argon2 = argon2id(8 * 1024, 1, 1).unwrap();
        let blocks = |hasher: &mut Hasher| {
            let before = hasher.reserved_blocks();
            hasher.hash_into(&[1; 32], &[2; 16], &mut [0; 32]).unwrap();
            before
        };
        // Other tests hash beside this one, with other costs.
        let is_kept = (0..1_000).any(|_| with_kept_memory(argon2, blocks) == 8 * 1024);
        assert!(is_kept);
    }

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
