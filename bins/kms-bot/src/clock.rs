//! The only place where the bot reads the clock.

use kms_types::Timestamp;

/// The current time of this machine.
#[expect(clippy::disallowed_methods, reason = "the only place")]
pub(crate) fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
