//! Rules for paying a Telegram `@username`.
//!
//! A Telegram username is chosen freely, changed at will, and can be reassigned to another user
//! minutes after it was dropped. Therefore a username is bound to a numeric Telegram id, only an
//! update authenticated by Telegram binds it, and a username that another user held before is
//! reported as reassigned for 30 days.
//!
//! A launch that Telegram signed proves a name. What a bearer token reports is unproved: it
//! refreshes or ends a claim and opens one on a name that was never proved, and it never gives a
//! proved name to another user. A name that is both reassigned and unproved cannot be paid for a
//! day.
//!
//! A person may have several usernames at a time, of which all but one are collectible. Each of
//! them is a claim of its own, and an observation always names all of them.
//!
//! This crate contains the rules only: no I/O and no clock. The caller stores the claims.
//!
//! 1. Receive an authenticated update: this Telegram id has these usernames. That is an
//!    [`Observation`].
//! 2. In one database transaction, read what is known of the id and of the usernames ([`Known`]).
//! 3. Call [`decide`], and apply the whole [`Decision`] in the same transaction.
//! 4. To pay a username, look up its active [`Claim`], refuse if [`payable_from`] returns a time,
//!    pay the holder's id, and warn the sender if [`reassigned_at`] returns a time.
//!
//! ```
//! use kms_types::{NameOrigin, Timestamp, Username};
//! use name_service::{Change, Claim, Known, KnownName, Observation, decide, reassigned_at};
//!
//! let observation = |id: i64, at| Observation {
//!     holder: id.try_into().unwrap(),
//!     usernames: ["ann".parse::<Username>().unwrap()].into_iter().collect(),
//!     seen_at: Timestamp(at),
//!     received_at: Timestamp(at),
//!     origin: NameOrigin::Token,
//! };
//! // The username is free: user 1 claims it.
//! let free = Known { observed: vec![KnownName::default()], ..Known::default() };
//! let changes = decide(&observation(1, 10), &free).changes;
//! let [Change::Open(first)] = &changes[..] else { panic!() };
//! assert_eq!(reassigned_at(first, Timestamp(11)), None);
//!
//! // Telegram reports it for user 2: the claim of user 1 ends, and the new one is marked.
//! let name = KnownName {
//!     known_at: Some(first.seen_at),
//!     claim: Some(first.clone()),
//!     last: Some(first.clone()),
//!     had_other_holder: true,
//! };
//! let known = Known { observed: vec![name], ..Known::default() };
//! let changes = decide(&observation(2, 20), &known).changes;
//! let [Change::End { holder, .. }, Change::Open(second)] = &changes[..] else { panic!() };
//! assert_eq!(*holder, first.holder);
//! assert_eq!(reassigned_at(second, Timestamp(21)), Some(Timestamp(20)));
//! ```

use std::time::Duration;

use kms_types::{NameOrigin, TelegramId, Timestamp, Username, Usernames};

/// How long a claim on a username that another user held before is reported as reassigned.
pub const REASSIGNED_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long a reassigned username cannot be paid while only a bearer token reports its holder.
pub const UNPAYABLE_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// A username and its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The username, as its holder spells it.
    pub username: Username,
    /// The holder's Telegram id.
    pub holder: TelegramId,
    /// Its place among the holder's usernames. The lowest is the one to show.
    pub position: u8,
    /// When the claim began, by the clock of the service.
    pub claimed_at: Timestamp,
    /// When an update confirmed it last.
    pub seen_at: Timestamp,
    /// When Telegram signed it last for this holder.
    pub proved_at: Option<Timestamp>,
    /// Whether another user held the username before.
    pub reassigned: bool,
}

/// An authenticated update. From a token: this Telegram id has these usernames and no other. From a
/// launch: it shows this one first, or has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The Telegram id that the update is about.
    pub holder: TelegramId,
    /// The usernames that the holder has; none if empty.
    pub usernames: Usernames,
    /// When Telegram made the update.
    pub seen_at: Timestamp,
    /// When the service received it.
    pub received_at: Timestamp,
    /// Whether it is proved.
    pub origin: NameOrigin,
}

/// What is stored before an observation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The time of the holder's last observation, with or without usernames.
    pub last_seen: Option<Timestamp>,
    /// The time of the holder's last proved one.
    pub last_proved: Option<Timestamp>,
    /// The active claims of the holder.
    pub own_claims: Vec<Claim>,
    /// What is known of each observed username, in the order of the observation.
    pub observed: Vec<KnownName>,
}

/// What is stored of an observed username.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownName {
    /// The active claim on it, of any holder.
    pub claim: Option<Claim>,
    /// The last claim on it, active or not.
    pub last: Option<Claim>,
    /// The last time at which a claim on it was seen or ended, of any holder.
    pub known_at: Option<Timestamp>,
    /// Whether another user than the observed one ever held it.
    pub had_other_holder: bool,
}

/// The changes that an observation causes. Apply all of them in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Store `seen_at` as the time of the holder's last observation.
    pub remember: bool,
    /// The changes of claims, by username: transactions that apply them in this order do not
    /// deadlock.
    pub changes: Vec<Change>,
}

/// A change of one claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// End the active claim of this holder on the username.
    End {
        /// The username.
        username: Username,
        /// The observed holder, or another one.
        holder: TelegramId,
    },
    /// Update the spelling, the position and `seen_at` of the observed holder's claim, and
    /// `proved_at` if the observation is proved.
    Confirm {
        /// The username, as Telegram spells it.
        username: Username,
        /// Its position.
        position: u8,
    },
    /// Insert a new claim.
    Open(Claim),
}

impl Change {
    /// The username whose claim is changed.
    #[must_use]
    pub fn username(&self) -> &Username {
        match self {
            Self::End { username, .. } | Self::Confirm { username, .. } => username,
            Self::Open(claim) => &claim.username,
        }
    }
}

/// Decides what an observation changes.
///
/// An observation that is not newer than the holder's last one changes nothing. One that is not
/// newer than the last known fact about a username does not claim that username, even if it is
/// free. Of a proved observation only proved ones count as the last, so that a bearer token cannot
/// keep a user from proving a name.
#[must_use]
pub fn decide(observation: &Observation, known: &Known) -> Decision {
    let Observation { holder, usernames, seen_at, received_at, origin } = observation;
    let last = match origin {
        NameOrigin::Token => known.last_seen,
        NameOrigin::Launch => known.last_proved,
    };
    if last.is_some_and(|last| *seen_at <= last) {
        return Decision::default();
    }
    // A launch shows one username of several.
    let is_whole = *origin == NameOrigin::Token || usernames.is_empty();
    let ended =
        known.own_claims.iter().filter(|own| is_whole && !usernames.contains(&own.username));
    let mut changes: Vec<_> =
        ended.map(|own| Change::End { username: own.username.clone(), holder: *holder }).collect();
    for ((position, username), name) in (0..).zip(usernames.iter()).zip(&known.observed) {
        if known.own_claims.iter().any(|own| own.username == *username) {
            changes.push(Change::Confirm { username: username.clone(), position });
            continue;
        }
        if !name.admits(observation) {
            continue;
        }
        if let Some(Claim { username, holder, .. }) = name.claim.clone() {
            changes.push(Change::End { username, holder });
        }
        changes.push(Change::Open(Claim {
            username: username.clone(),
            holder: *holder,
            position,
            claimed_at: *received_at,
            seen_at: *seen_at,
            proved_at: match origin {
                NameOrigin::Launch => Some(*seen_at),
                // It was this holder's before.
                NameOrigin::Token => name.last.as_ref().and_then(|last| last.proved_at),
            },
            reassigned: name.had_other_holder,
        }));
    }
    // Stable: a claim ends before another one on its username begins.
    changes.sort_by_key(|change| change.username().canonical());
    Decision { remember: true, changes }
}

impl KnownName {
    /// Whether an observation claims the username, which is not the observed user's.
    fn admits(&self, observation: &Observation) -> bool {
        let Observation { holder, seen_at, origin, .. } = observation;
        let proved = self.last.as_ref().and_then(|last| Some((last.holder, last.proved_at?)));
        match origin {
            NameOrigin::Launch => proved.is_none_or(|(_, at)| at < *seen_at),
            NameOrigin::Token => {
                self.known_at.is_none_or(|last| last < *seen_at)
                    && proved.is_none_or(|(proved, _)| proved == *holder)
            }
        }
    }
}

/// Returns from when the username can be paid, if it cannot yet: it was reassigned, and Telegram
/// did not sign that its holder has it.
#[must_use]
pub fn payable_from(claim: &Claim, now: Timestamp) -> Option<Timestamp> {
    let from = claim.claimed_at.plus(UNPAYABLE_FOR);
    (claim.reassigned && claim.proved_at.is_none() && now < from).then_some(from)
}

/// Returns when the username was reassigned from another user, for the first 30 days.
#[must_use]
pub fn reassigned_at(claim: &Claim, now: Timestamp) -> Option<Timestamp> {
    let is_recent = now.since(claim.claimed_at) < REASSIGNED_FOR;
    (claim.reassigned && is_recent).then_some(claim.claimed_at)
}

#[cfg(test)]
mod tests;
