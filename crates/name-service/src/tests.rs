use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Stores claims in a list, as a database would in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Book {
    claims: Vec<(Claim, Option<Timestamp>)>,
    seen: HashMap<TelegramId, Timestamp>,
}

impl Book {
    fn active(&self) -> impl Iterator<Item = &Claim> {
        self.claims.iter().filter(|(_, ended)| ended.is_none()).map(|(claim, _)| claim)
    }

    fn claim_on(&self, name: &Username) -> Option<&Claim> {
        let mut found = self.active().filter(|claim| claim.username == *name);
        let first = found.next();
        assert!(found.next().is_none(), "more than one active claim on {name}");
        first
    }

    fn known_at(&self, name: &Username) -> Option<Timestamp> {
        let named = self.claims.iter().filter(|(claim, _)| claim.username == *name);
        named.map(|(claim, ended)| ended.unwrap_or_default().max(claim.seen_at)).max()
    }

    fn known(&self, name: &Username, holder: TelegramId) -> KnownName {
        let mut claims = self.claims.iter();
        KnownName {
            claim: self.claim_on(name).cloned(),
            known_at: self.known_at(name),
            had_other_holder: claims
                .any(|(claim, _)| claim.username == *name && claim.holder != holder),
        }
    }

    fn observe(&mut self, observation: &Observation) {
        let Observation { holder, usernames, seen_at } = observation;
        let known = Known {
            last_seen: self.seen.get(holder).copied(),
            own_claims: self.active().filter(|claim| claim.holder == *holder).cloned().collect(),
            observed: usernames.iter().map(|name| self.known(name, *holder)).collect(),
        };
        let decision = decide(observation, &known);
        for change in decision.changes {
            match change {
                Change::End { username, holder } => {
                    self.row(&username, holder).1 = Some(*seen_at);
                }
                Change::Confirm { username, position } => {
                    let (claim, _) = self.row(&username, *holder);
                    *claim = Claim { username, position, seen_at: *seen_at, ..claim.clone() };
                }
                Change::Open(claim) => self.claims.push((claim, None)),
            }
        }
        if decision.remember {
            self.seen.insert(*holder, *seen_at);
        }
    }

    /// The row of an active claim, which must exist.
    fn row(&mut self, name: &Username, of: TelegramId) -> &mut (Claim, Option<Timestamp>) {
        let is_meant = |(claim, ended): &&mut (Claim, Option<Timestamp>)| {
            ended.is_none() && claim.username == *name && claim.holder == of
        };
        self.claims.iter_mut().find(is_meant).unwrap()
    }

    fn holder(&self, name: &str) -> Option<i64> {
        self.claim_on(&name.parse().unwrap()).map(|claim| claim.holder.as_i64())
    }

    /// The active usernames of a holder, the one to show first.
    fn names(&self, of: i64) -> Vec<&str> {
        let mut claims: Vec<_> =
            self.active().filter(|claim| claim.holder.as_i64() == of).collect();
        claims.sort_by_key(|claim| claim.position);
        claims.into_iter().map(|claim| claim.username.as_str()).collect()
    }
}

fn observation(holder: i64, names: &[&str], at: i64) -> Observation {
    Observation {
        holder: holder.try_into().unwrap(),
        usernames: names.iter().map(|name| name.parse().unwrap()).collect(),
        seen_at: Timestamp(at),
    }
}

#[test]
fn a_reassigned_name_belongs_to_its_new_holder_and_is_marked() {
    let mut book = Book::default();
    book.observe(&observation(1, &["ann"], 10));
    assert_eq!(book.holder("ann"), Some(1));
    book.observe(&observation(2, &["Ann"], 20));
    assert_eq!(book.holder("ann"), Some(2));
    let claim = book.active().next().unwrap();
    assert_eq!(reassigned_at(claim, Timestamp(21)), Some(Timestamp(20)));
    assert_eq!(reassigned_at(claim, Timestamp(20).plus(REASSIGNED_FOR)), None);
}

#[test]
fn a_name_that_was_free_for_a_while_still_counts_as_reassigned() {
    let mut book = Book::default();
    book.observe(&observation(1, &["ann"], 10));
    book.observe(&observation(1, &[], 20));
    assert_eq!(book.holder("ann"), None);
    book.observe(&observation(2, &["ann"], 30));
    assert!(book.active().next().unwrap().reassigned);
}

#[test]
fn every_username_of_a_person_is_a_claim_of_its_own() {
    let mut book = Book::default();
    book.observe(&observation(1, &["bob"], 10));
    book.observe(&observation(1, &["robert", "bob"], 20));
    assert_eq!(book.names(1), ["robert", "bob"]);
    // The collectible one is sold.
    book.observe(&observation(2, &["carl", "robert"], 30));
    assert_eq!((book.names(1), book.names(2)), (vec!["bob"], vec!["carl", "robert"]));
    let sold = book.claim_on(&"robert".parse().unwrap()).unwrap();
    assert!(sold.reassigned);
    book.observe(&observation(1, &["BOB"], 40));
    assert_eq!(book.names(1), ["BOB"]);
    assert!(!book.claim_on(&"bob".parse().unwrap()).unwrap().reassigned);
    assert_eq!(book.claims.len(), 4, "the history of bob, robert, carl and robert");
}

#[test]
fn older_updates_change_nothing() {
    let mut book = Book::default();
    book.observe(&observation(1, &["ann"], 10));
    book.observe(&observation(2, &["ann"], 30));
    book.observe(&observation(1, &["ann", "anna"], 20));
    assert_eq!((book.holder("ann"), book.holder("anna")), (Some(2), Some(1)));
    book.observe(&observation(2, &[], 25));
    assert_eq!(book.holder("ann"), Some(2));
    book.observe(&observation(2, &[], 40));
    book.observe(&observation(2, &["ann"], 35));
    assert_eq!(book.holder("ann"), None);
    // An update of a third user, from the time when the second held the name.
    book.observe(&observation(3, &["ann"], 35));
    assert_eq!(book.holder("ann"), None);
    book.observe(&observation(3, &["ann"], 41));
    assert_eq!(book.holder("ann"), Some(3));
}

proptest! {
    #[test]
    fn a_name_has_at_most_one_holder_and_the_newest_update_wins(
        steps in prop::collection::vec(
            (1_i64..5, prop::collection::vec("[a-d]", 0..4), 0_i64..30),
            0..40,
        )
    ) {
        let mut book = Book::default();
        for (holder, names, at) in steps {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let observation = observation(holder, &names, at);
            let before = book.clone();
            book.observe(&observation);
            for name in ["a", "b", "c", "d"] {
                // Asserts that there is at most one.
                book.holder(name);
            }
            if before.seen.get(&observation.holder).is_some_and(|last| last.0 >= at) {
                prop_assert_eq!(&book, &before);
                continue;
            }
            let mut kept = Vec::new();
            for name in observation.usernames.iter() {
                let holds = book.claim_on(name).is_some_and(|now| now.holder.as_i64() == holder);
                let held = before.claim_on(name).is_some_and(|was| was.holder.as_i64() == holder);
                let is_newer = before.known_at(name).is_none_or(|last| last.0 < at);
                prop_assert_eq!(holds, held || is_newer);
                if holds {
                    kept.push(name.as_str());
                } else {
                    prop_assert_eq!(book.claim_on(name), before.claim_on(name));
                }
            }
            // In Telegram's order, and nothing else.
            prop_assert_eq!(book.names(holder), kept);
            prop_assert!(book.claims.len() >= before.claims.len(), "the history only grows");
        }
    }

    #[test]
    fn changes_come_in_one_order_of_usernames(
        own in prop::collection::hash_set("[a-f]", 0..5),
        seen in prop::collection::vec("[a-f]", 0..5),
    ) {
        let mut book = Book::default();
        let own: Vec<_> = own.iter().map(String::as_str).collect();
        book.observe(&observation(1, &own, 1));
        book.observe(&observation(2, &["a", "b", "c"], 2));
        let seen: Vec<_> = seen.iter().map(String::as_str).collect();
        let observation = observation(1, &seen, 3);
        let known = Known {
            last_seen: Some(Timestamp(1)),
            own_claims: book.active().filter(|claim| claim.holder.as_i64() == 1).cloned().collect(),
            observed: observation
                .usernames
                .iter()
                .map(|name| book.known(name, observation.holder))
                .collect(),
        };
        let changes = decide(&observation, &known).changes;
        let names: Vec<_> = changes.iter().map(|change| change.username().canonical()).collect();
        prop_assert!(names.is_sorted());
    }
}
