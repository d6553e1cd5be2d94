//! What two operators agree on.

use std::fmt;

/// What a rescue would write for an account, identified: two operators agree on this value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RescueDigest([u8; 32]);

impl RescueDigest {
    /// Returns its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for RescueDigest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for RescueDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
