//! Rules for paying a Telegram `@username`.
//!
//! A Telegram username is chosen freely, changed at will, and can be reassigned to another user
//! minutes after it was dropped. Therefore a username is bound to a numeric Telegram id, only an
//! update authenticated by Telegram binds it, and a username that another user held before is
//! reported as reassigned for 30 days.
//!
//! This crate contains the rules only: no I/O and no clock. The caller stores the claims.
//!
//! 1. Receive an authenticated update: this Telegram id has this username, or none. That is an
//!    [`Observation`].
//! 2. In one database transaction, read what is known of the id and of the username ([`Known`]).
//! 3. Call [`decide`], and apply every field of the [`Decision`] in the same transaction.
//! 4. To pay a username, look up its active [`Claim`], pay the holder's id, and warn the sender if
//!    [`reassigned_at`] returns a time.
//!
//! ```
//! use kms_types::Timestamp;
//! use name_service::{Known, Observation, decide, reassigned_at};
//!
//! let observation = |id: i64, at| Observation {
//!     holder: id.try_into().unwrap(),
//!     username: Some("ann".parse().unwrap()),
//!     seen_at: Timestamp(at),
//! };
//! // The username is free: user 1 claims it.
//! let first = decide(&observation(1, 10), &Known::default()).open.unwrap();
//! assert_eq!(reassigned_at(&first, Timestamp(11)), None);
//!
//! // Telegram reports it for user 2: the claim of user 1 ends, and the new one is marked.
//! let known = Known {
//!     name_known_at: Some(first.seen_at),
//!     claim_on_name: Some(first),
//!     ..Known::default()
//! };
//! let decision = decide(&observation(2, 20), &known);
//! assert!(decision.end_other);
//! assert_eq!(reassigned_at(&decision.open.unwrap(), Timestamp(21)), Some(Timestamp(20)));
//! ```

use std::time::Duration;

use kms_types::{TelegramId, Timestamp, Username};

/// How long a claim on a username that another user held before is reported as reassigned.
pub const REASSIGNED_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A username and its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The username, as its holder spells it.
    pub username: Username,
    /// The holder's Telegram id.
    pub holder: TelegramId,
    /// When the claim began.
    pub claimed_at: Timestamp,
    /// When an update confirmed it last.
    pub seen_at: Timestamp,
    /// Whether another user held the username before.
    pub reassigned: bool,
}

/// An authenticated update: this Telegram id has this username, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The Telegram id that the update is about.
    pub holder: TelegramId,
    /// The username in the update.
    pub username: Option<Username>,
    /// When Telegram made the update.
    pub seen_at: Timestamp,
}

/// What is stored before an observation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The time of the holder's last observation, with or without a username.
    pub last_seen: Option<Timestamp>,
    /// The active claim of the holder.
    pub own_claim: Option<Claim>,
    /// The active claim on the observed username, of any holder.
    pub claim_on_name: Option<Claim>,
    /// The last time at which a claim on the observed username was seen or ended, of any holder.
    pub name_known_at: Option<Timestamp>,
    /// Whether another user ever held the observed username.
    pub had_other_holder: bool,
}

/// The changes that an observation causes. Apply all of them in one transaction, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Store `seen_at` as the time of the holder's last observation.
    pub remember: bool,
    /// End the active claim of the holder.
    pub end_own: bool,
    /// End the active claim of the other holder on the observed username.
    pub end_other: bool,
    /// Update the spelling and `seen_at` of the holder's claim.
    pub refresh: bool,
    /// Insert a new claim.
    pub open: Option<Claim>,
}

/// Decides what an observation changes.
///
/// An observation that is not newer than the holder's last one changes nothing. One that is not
/// newer than the last known fact about the username does not claim it, even if it is free.
#[must_use]
pub fn decide(observation: &Observation, known: &Known) -> Decision {
    if known.last_seen.is_some_and(|last| observation.seen_at <= last) {
        return Decision::default();
    }
    let remember = true;
    let Some(username) = &observation.username else {
        return Decision { remember, end_own: known.own_claim.is_some(), ..Decision::default() };
    };
    if known.own_claim.as_ref().is_some_and(|own| own.username == *username) {
        return Decision { remember, refresh: true, ..Decision::default() };
    }
    let end_own = known.own_claim.is_some();
    let end_other = known.claim_on_name.is_some();
    if known.name_known_at.is_some_and(|last| observation.seen_at <= last) {
        return Decision { remember, end_own, ..Decision::default() };
    }
    let open = Claim {
        username: username.clone(),
        holder: observation.holder,
        claimed_at: observation.seen_at,
        seen_at: observation.seen_at,
        reassigned: known.had_other_holder || end_other,
    };
    Decision { remember, end_own, end_other, refresh: false, open: Some(open) }
}

/// Returns when the username was reassigned from another user, for the first 30 days.
#[must_use]
pub fn reassigned_at(claim: &Claim, now: Timestamp) -> Option<Timestamp> {
    let is_recent = now.since(claim.claimed_at) < REASSIGNED_FOR;
    (claim.reassigned && is_recent).then_some(claim.claimed_at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Stores claims in a list, as a database would in a table.
    #[derive(Default)]
    struct Book {
        claims: Vec<(Claim, Option<Timestamp>)>,
        seen: std::collections::HashMap<TelegramId, Timestamp>,
    }

    impl Book {
        fn active(&self, matches: impl Fn(&Claim) -> bool) -> Option<Claim> {
            let mut found =
                self.claims.iter().filter(|(claim, ended)| ended.is_none() && matches(claim));
            let first = found.next().map(|(claim, _)| claim.clone());
            assert!(found.next().is_none(), "more than one active claim");
            first
        }

        fn known_at(&self, name: Option<&Username>) -> Option<Timestamp> {
            let named = self.claims.iter().filter(|(claim, _)| Some(&claim.username) == name);
            named.map(|(claim, ended)| ended.unwrap_or_default().max(claim.seen_at)).max()
        }

        fn observe(&mut self, observation: &Observation) {
            let name = observation.username.clone();
            let known = Known {
                last_seen: self.seen.get(&observation.holder).copied(),
                own_claim: self.active(|claim| claim.holder == observation.holder),
                claim_on_name: self.active(|claim| Some(&claim.username) == name.as_ref()),
                name_known_at: self.known_at(name.as_ref()),
                had_other_holder: self.claims.iter().any(|(claim, _)| {
                    Some(&claim.username) == name.as_ref() && claim.holder != observation.holder
                }),
            };
            let decision = decide(observation, &known);
            for (claim, ended) in &mut self.claims {
                let own = claim.holder == observation.holder;
                let named = Some(&claim.username) == name.as_ref();
                let ends = (own && decision.end_own) || (!own && named && decision.end_other);
                if ended.is_none() && ends {
                    *ended = Some(observation.seen_at);
                }
                if ended.is_none() && own && decision.refresh {
                    claim.seen_at = observation.seen_at;
                }
            }
            self.claims.extend(decision.open.map(|claim| (claim, None)));
            if decision.remember {
                self.seen.insert(observation.holder, observation.seen_at);
            }
        }

        fn holder(&self, name: &str) -> Option<i64> {
            let name: Username = name.parse().unwrap();
            self.active(|claim| claim.username == name).map(|claim| claim.holder.as_i64())
        }
    }

    fn observation(holder: i64, name: Option<&str>, at: i64) -> Observation {
        Observation {
            holder: holder.try_into().unwrap(),
            username: name.map(|name| name.parse().unwrap()),
            seen_at: Timestamp(at),
        }
    }

    #[test]
    fn a_reassigned_name_belongs_to_its_new_holder_and_is_marked() {
        let mut book = Book::default();
        book.observe(&observation(1, Some("ann"), 10));
        assert_eq!(book.holder("ann"), Some(1));
        book.observe(&observation(2, Some("Ann"), 20));
        assert_eq!(book.holder("ann"), Some(2));
        let claim = book.active(|_| true).unwrap();
        assert_eq!(reassigned_at(&claim, Timestamp(21)), Some(Timestamp(20)));
        assert_eq!(reassigned_at(&claim, Timestamp(20).plus(REASSIGNED_FOR)), None);
    }

    #[test]
    fn a_name_that_was_free_for_a_while_still_counts_as_reassigned() {
        let mut book = Book::default();
        book.observe(&observation(1, Some("ann"), 10));
        book.observe(&observation(1, None, 20));
        assert_eq!(book.holder("ann"), None);
        book.observe(&observation(2, Some("ann"), 30));
        assert!(book.active(|_| true).unwrap().reassigned);
    }

    #[test]
    fn older_updates_change_nothing() {
        let mut book = Book::default();
        book.observe(&observation(1, Some("ann"), 10));
        book.observe(&observation(2, Some("ann"), 30));
        book.observe(&observation(1, Some("ann"), 20));
        assert_eq!(book.holder("ann"), Some(2));
        book.observe(&observation(2, None, 25));
        assert_eq!(book.holder("ann"), Some(2));
        book.observe(&observation(2, None, 40));
        book.observe(&observation(2, Some("ann"), 35));
        assert_eq!(book.holder("ann"), None);
        // An update of a third user, from the time when the second held the name.
        book.observe(&observation(3, Some("ann"), 35));
        assert_eq!(book.holder("ann"), None);
        book.observe(&observation(3, Some("ann"), 41));
        assert_eq!(book.holder("ann"), Some(3));
    }

    proptest! {
        #[test]
        fn a_name_has_at_most_one_holder_and_the_newest_update_wins(
            steps in prop::collection::vec((1_i64..5, prop::option::of("[a-c]"), 0_i64..30), 0..40)
        ) {
            let mut book = Book::default();
            for (holder, name, at) in steps {
                let observation = observation(holder, name.as_deref(), at);
                let holder_of = |book: &Book, name: &Username| {
                    book.active(|claim| claim.username == *name).map(|claim| claim.holder)
                };
                let before = observation.username.clone().map(|name| {
                    (holder_of(&book, &name), book.known_at(Some(&name)), name)
                });
                book.observe(&observation);
                for name in ["a", "b", "c"] {
                    book.holder(name);
                }
                for holder in 1..5 {
                    let holder: TelegramId = holder.try_into().unwrap();
                    book.active(|claim| claim.holder == holder);
                }
                if let Some((before, known_at, name)) = before
                    && known_at.is_some_and(|last| last >= observation.seen_at)
                {
                    prop_assert_eq!(holder_of(&book, &name), before);
                }
            }
        }
    }
}
