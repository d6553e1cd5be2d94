//! What connects the lines that several processes log about one act of a user.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The digits of an id, between its hyphens.
const GROUP: usize = 4;
const GROUPS: usize = 3;

/// The name of one update of a chat, short enough to be read out: three groups of four hexadecimal
/// digits. Not a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceId(String);

/// The text is not a trace id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a trace id is three groups of four hexadecimal digits, with hyphens between them")]
pub struct TraceIdError;

impl TraceId {
    /// The header of HTTP that has it.
    pub const HEADER: &str = "x-trace-id";

    /// Makes a random id.
    #[must_use]
    pub fn random() -> Self {
        let digits = Uuid::new_v4().simple().to_string();
        let group = |index: usize| digits.get(index * GROUP..(index + 1) * GROUP);
        let groups: Vec<_> = (0..GROUPS).filter_map(group).collect();
        Self(groups.join("-"))
    }
}

impl FromStr for TraceId {
    type Err = TraceIdError;

    fn from_str(text: &str) -> Result<Self, TraceIdError> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_group = |group: &str| group.len() == GROUP && group.bytes().all(is_digit);
        let is_id = text.split('-').count() == GROUPS && text.split('-').all(is_group);
        if is_id { Ok(Self(text.to_owned())) } else { Err(TraceIdError) }
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_and_nothing_else_is_one() {
        let id = TraceId::random();
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        assert_ne!(TraceId::random(), id);
        for bad in ["", "0123-4567", "0123-4567-89ab-cdef", "0123-4567-89AB", "0123-4567-89a", "-"]
        {
            assert_eq!(bad.parse::<TraceId>(), Err(TraceIdError), "{bad}");
        }
    }
}
