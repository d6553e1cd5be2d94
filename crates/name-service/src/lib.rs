//! The rules of @usernames as names that money is sent to.
//!
//! A Telegram username is chosen freely, changed at will, and given to others minutes after it
//! was dropped. So a name is bound to a numeric Telegram id, only an authenticated update binds
//! it, and a name that came from somebody else is marked for 30 days.
//!
//! Pure rules: no I/O, no clock. Whoever keeps the claims (`kms-store`) asks [`decide`] inside
//! the transaction that read them, and does what it says. It must never bind a name on the word
//! of anybody but Telegram.

use std::time::Duration;

use kms_types::{TelegramId, Timestamp, Username};

/// How long a name that came from somebody else is shown as moved.
pub const MOVED_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A name and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The name, as its holder writes it.
    pub username: Username,
    /// Who holds it.
    pub holder: TelegramId,
    /// Since when.
    pub claimed_at: Timestamp,
    /// The last time that Telegram said so.
    pub seen_at: Timestamp,
    /// Whether somebody else held it before.
    pub moved: bool,
}

/// What an authenticated update says: this id has this name, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Whose update it was.
    pub holder: TelegramId,
    /// The name it carried.
    pub username: Option<Username>,
    /// When Telegram made it.
    pub seen_at: Timestamp,
}

/// What is known before the observation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The last observation of this holder, whatever it said.
    pub last_seen: Option<Timestamp>,
    /// The holder's active claim.
    pub own: Option<Claim>,
    /// The active claim on the observed name, whoever holds it.
    pub of_name: Option<Claim>,
    /// The last time that anything was known of the observed name: when a claim on it was seen
    /// or ended, whoever held it.
    pub name_known_at: Option<Timestamp>,
    /// Whether anybody else ever held the observed name.
    pub had_other_holder: bool,
}

/// What to do, all of it in one transaction, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Remember `seen_at` as the holder's last observation.
    pub remember: bool,
    /// End the holder's active claim.
    pub end_own: bool,
    /// End the other holder's claim on the observed name.
    pub end_other: bool,
    /// Update spelling and `seen_at` of the holder's claim.
    pub refresh: bool,
    /// Open a new claim.
    pub open: Option<Claim>,
}

/// Decides what an observation changes.
///
/// An observation that is not newer than the holder's last one changes nothing; one that is not
/// newer than the last thing known of the name does not take the name, also if it is free.
#[must_use]
pub fn decide(observation: &Observation, known: &Known) -> Decision {
    if known.last_seen.is_some_and(|last| observation.seen_at <= last) {
        return Decision::default();
    }
    let remember = true;
    let Some(username) = &observation.username else {
        return Decision { remember, end_own: known.own.is_some(), ..Decision::default() };
    };
    if known.own.as_ref().is_some_and(|own| own.username == *username) {
        return Decision { remember, refresh: true, ..Decision::default() };
    }
    let end_own = known.own.is_some();
    let other = known.of_name.as_ref();
    if known.name_known_at.is_some_and(|last| observation.seen_at <= last) {
        return Decision { remember, end_own, ..Decision::default() };
    }
    let open = Claim {
        username: username.clone(),
        holder: observation.holder,
        claimed_at: observation.seen_at,
        seen_at: observation.seen_at,
        moved: known.had_other_holder || other.is_some(),
    };
    Decision { remember, end_own, end_other: other.is_some(), refresh: false, open: Some(open) }
}

/// When the name came from somebody else, if that still has to be shown.
#[must_use]
pub fn moved_at(claim: &Claim, now: Timestamp) -> Option<Timestamp> {
    (claim.moved && now.since(claim.claimed_at) < MOVED_FOR).then_some(claim.claimed_at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Claims kept in a list, as a store would keep them in a table.
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
                own: self.active(|claim| claim.holder == observation.holder),
                of_name: self.active(|claim| Some(&claim.username) == name.as_ref()),
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

    fn saw(holder: i64, name: Option<&str>, at: i64) -> Observation {
        Observation {
            holder: holder.try_into().unwrap(),
            username: name.map(|name| name.parse().unwrap()),
            seen_at: Timestamp(at),
        }
    }

    #[test]
    fn a_name_moves_to_whom_telegram_gives_it_and_is_marked() {
        let mut book = Book::default();
        book.observe(&saw(1, Some("ann"), 10));
        assert_eq!(book.holder("ann"), Some(1));
        book.observe(&saw(2, Some("Ann"), 20));
        assert_eq!(book.holder("ann"), Some(2));
        let claim = book.active(|_| true).unwrap();
        assert_eq!(moved_at(&claim, Timestamp(21)), Some(Timestamp(20)));
        assert_eq!(moved_at(&claim, Timestamp(20).plus(MOVED_FOR)), None);
    }

    #[test]
    fn a_name_that_was_free_for_a_while_still_counts_as_moved() {
        let mut book = Book::default();
        book.observe(&saw(1, Some("ann"), 10));
        book.observe(&saw(1, None, 20));
        assert_eq!(book.holder("ann"), None);
        book.observe(&saw(2, Some("ann"), 30));
        assert!(book.active(|_| true).unwrap().moved);
    }

    #[test]
    fn older_updates_take_nothing_back() {
        let mut book = Book::default();
        book.observe(&saw(1, Some("ann"), 10));
        book.observe(&saw(2, Some("ann"), 30));
        book.observe(&saw(1, Some("ann"), 20));
        assert_eq!(book.holder("ann"), Some(2));
        book.observe(&saw(2, None, 25));
        assert_eq!(book.holder("ann"), Some(2));
        book.observe(&saw(2, None, 40));
        book.observe(&saw(2, Some("ann"), 35));
        assert_eq!(book.holder("ann"), None);
        // A third one's update from the time when the second held it.
        book.observe(&saw(3, Some("ann"), 35));
        assert_eq!(book.holder("ann"), None);
        book.observe(&saw(3, Some("ann"), 41));
        assert_eq!(book.holder("ann"), Some(3));
    }

    proptest! {
        #[test]
        fn at_most_one_holder_and_the_newest_word_counts(
            steps in prop::collection::vec((1_i64..5, prop::option::of("[a-c]"), 0_i64..30), 0..40)
        ) {
            let mut book = Book::default();
            for (holder, name, at) in steps {
                let observation = saw(holder, name.as_deref(), at);
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
