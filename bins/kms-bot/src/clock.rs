//! The one place where the bot reads the time.

use kms_types::Timestamp;

/// Now, by the machine's clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
