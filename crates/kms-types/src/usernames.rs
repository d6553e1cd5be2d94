//! All usernames that a Telegram user has at one time.

use serde::{Deserialize, Serialize};

use crate::Username;

/// The usernames that a Telegram user has at one time, the one that Telegram shows first. All but
/// one of them are collectible.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Username>", into = "Vec<Username>")]
pub struct Usernames(Vec<Username>);

/// A list of more than [`Usernames::MAX`] usernames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a user has at most {} usernames", Usernames::MAX)]
pub struct TooManyUsernames;

impl Usernames {
    /// The most usernames that are accepted of one user: more than Telegram lets a user activate.
    pub const MAX: usize = 16;

    /// Returns the usernames, the one that Telegram shows first.
    pub fn iter(&self) -> std::slice::Iter<'_, Username> {
        self.0.iter()
    }

    /// Reports whether a username is one of them.
    #[must_use]
    pub fn contains(&self, name: &Username) -> bool {
        self.0.contains(name)
    }

    /// Reports whether the user has no username.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<Username>> for Usernames {
    type Error = TooManyUsernames;

    fn try_from(names: Vec<Username>) -> Result<Self, TooManyUsernames> {
        if names.len() > Self::MAX {
            return Err(TooManyUsernames);
        }
        Ok(names.into_iter().collect())
    }
}

impl From<Usernames> for Vec<Username> {
    fn from(names: Usernames) -> Self {
        names.0
    }
}

/// Leaves out repeated usernames, and what follows the first [`Usernames::MAX`].
impl FromIterator<Username> for Usernames {
    fn from_iter<I: IntoIterator<Item = Username>>(names: I) -> Self {
        let mut distinct = Self::default();
        for name in names {
            if distinct.0.len() < Self::MAX && !distinct.contains(&name) {
                distinct.0.push(name);
            }
        }
        distinct
    }
}

/// How the service learned which usernames a user has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameOrigin {
    /// A bearer token reported all of them: unproved.
    Token,
    /// Telegram signed the one that it shows first, or that there is none: proved.
    Launch,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<Username> {
        (0..count).map(|number| format!("name{number}").parse().unwrap()).collect()
    }

    #[test]
    fn holds_a_bounded_number_of_different_usernames() {
        for count in [0, 1, Usernames::MAX] {
            let list = names(count);
            assert_eq!(Vec::from(Usernames::try_from(list.clone()).unwrap()), list);
        }
        let many = names(Usernames::MAX + 1);
        assert_eq!(Usernames::try_from(many.clone()), Err(TooManyUsernames));
        assert_eq!(many.into_iter().collect::<Usernames>().0, names(Usernames::MAX));
        let twice = ["bob", "robert", "Bob"].map(|name| name.parse().unwrap());
        let distinct = Usernames::try_from(Vec::from(twice)).unwrap();
        assert_eq!(distinct.iter().map(Username::as_str).collect::<Vec<_>>(), ["bob", "robert"]);
    }
}
