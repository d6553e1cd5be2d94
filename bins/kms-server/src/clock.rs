//! The one place where the server reads the time; below it, time is a parameter.

use kms_types::Timestamp;

/// Returns the current time of the machine's clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
