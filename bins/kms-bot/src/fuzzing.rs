//! What a fuzz target reaches of this crate's inside. In no other build.

use crate::buttons::Press;

/// What a button of ours would send that is read from this data, if it is not refused.
#[must_use]
pub fn read_back(data: &str) -> Option<String> {
    data.parse::<Press>().ok().map(|press| press.data())
}
