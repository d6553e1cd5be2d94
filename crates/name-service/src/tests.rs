use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Stores claims in a list, as a database would in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Book {
    claims: Vec<(Claim, Option<Timestamp>)>,
    seen: HashMap<TelegramId, Timestamp>,
    proved: HashMap<TelegramId, Timestamp>,
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

    fn last_claim(&self, name: &Username) -> Option<&Claim> {
        self.claims.iter().rev().map(|(claim, _)| claim).find(|claim| claim.username == *name)
    }

    fn known(&self, name: &Username, holder: TelegramId) -> KnownName {
        let mut claims = self.claims.iter();
        KnownName {
            claim: self.claim_on(name).cloned(),
            last: self.last_claim(name).cloned(),
            known_at: self.known_at(name),
            had_other_holder: claims
                .any(|(claim, _)| claim.username == *name && claim.holder != holder),
        }
    }

    fn observe(&mut self, observation: &Observation) {
        let Observation { holder, usernames, seen_at, origin, .. } = observation;
        let proved_at = (*origin == NameOrigin::Launch).then_some(*seen_at);
        let known = Known {
            last_seen: self.seen.get(holder).copied(),
            last_proved: self.proved.get(holder).copied(),
            own_claims: self.active().filter(|claim| claim.holder == *holder).cloned().collect(),
            observed: usernames.iter().map(|name| self.known(name, *holder)).collect(),
        };
        let decision = decide(observation, &known);
        for change in decision.changes {
            match change {
                Change::End { username, holder } => {
                    let (claim, ended) = self.row(&username, holder);
                    *ended = Some(claim.seen_at.max(*seen_at));
                }
                Change::Confirm { username, position } => {
                    let (claim, _) = self.row(&username, *holder);
                    let seen_at = claim.seen_at.max(*seen_at);
                    let proved_at = proved_at.or(claim.proved_at);
                    *claim = Claim { username, position, seen_at, proved_at, ..claim.clone() };
                }
                Change::Open(claim) => self.claims.push((claim, None)),
            }
        }
        if decision.remember {
            let last = self.seen.entry(*holder).or_insert(*seen_at);
            *last = (*last).max(*seen_at);
            if *origin == NameOrigin::Launch {
                self.proved.insert(*holder, *seen_at);
            }
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
        received_at: Timestamp(at),
        origin: NameOrigin::Token,
    }
}

/// Telegram signed that this user shows this name first.
fn proved(holder: i64, name: &str, at: i64) -> Observation {
    Observation { origin: NameOrigin::Launch, ..observation(holder, &[name], at) }
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

#[test]
fn a_token_never_moves_a_proved_name() {
    let mut book = Book::default();
    book.observe(&proved(1, "ann", 10));
    // It takes it from its holder, ends it first, and reports that the holder has it again.
    book.observe(&observation(2, &["ann"], 20));
    assert_eq!(book.holder("ann"), Some(1));
    book.observe(&observation(1, &[], 30));
    assert_eq!(book.holder("ann"), None);
    book.observe(&observation(2, &["ann"], 40));
    assert_eq!(book.holder("ann"), None);
    book.observe(&observation(1, &["ann"], 50));
    book.observe(&observation(2, &["ann"], 60));
    assert_eq!(book.holder("ann"), Some(1));
    // Telegram signed that it is the other one's since.
    book.observe(&proved(2, "ann", 70));
    assert_eq!(book.holder("ann"), Some(2));
    book.observe(&proved(1, "ann", 65));
    assert_eq!(book.holder("ann"), Some(2), "an older launch, opened late");
}

#[test]
fn reports_of_a_token_do_not_keep_a_user_from_proving_a_name() {
    let mut book = Book::default();
    book.observe(&observation(2, &["ann"], 90));
    book.observe(&observation(1, &[], 95));
    book.observe(&proved(1, "ann", 10));
    assert_eq!(book.holder("ann"), Some(1));
    // A launch shows the first of several names.
    book.observe(&observation(1, &["ann", "gold"], 100));
    book.observe(&proved(1, "ann", 110));
    assert_eq!(book.names(1), ["ann", "gold"]);
    book.observe(&Observation { usernames: [].into_iter().collect(), ..proved(1, "x", 120) });
    assert_eq!(book.names(1), [""; 0]);
}

#[test]
fn a_reassigned_name_waits_unless_it_is_proved() {
    let mut book = Book::default();
    book.observe(&observation(1, &["ann"], 10));
    assert_eq!(payable_from(book.active().next().unwrap(), Timestamp(11)), None);
    // The age that the token states is not what counts.
    let received_at = Timestamp(1_000);
    book.observe(&Observation { received_at, ..observation(2, &["ann"], 20) });
    let (claim, from) = (book.active().next().unwrap(), received_at.plus(UNPAYABLE_FOR));
    assert_eq!(payable_from(claim, Timestamp(from.0 - 1)), Some(from));
    assert_eq!(payable_from(claim, from), None);
    book.observe(&proved(2, "ann", 1_001));
    assert_eq!(payable_from(book.active().next().unwrap(), Timestamp(1_002)), None);
}

proptest! {
    #[test]
    fn no_sequence_of_unproved_observations_moves_a_proved_name(
        steps in prop::collection::vec(
            (1_i64..5, prop::collection::vec("[a-d]", 0..4), any::<bool>()),
            0..60,
        )
    ) {
        let mut book = Book::default();
        for (at, (holder, names, is_proved)) in (1..).zip(steps) {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let before = book.clone();
            match (is_proved, names.first()) {
                (true, Some(name)) => book.observe(&proved(holder, name, at)),
                _ => book.observe(&observation(holder, &names, at)),
            }
            for name in ["a", "b", "c", "d"] {
                let name = name.parse().unwrap();
                let owner = before.last_claim(&name).filter(|last| last.proved_at.is_some());
                let now = book.claim_on(&name);
                if let (false, Some(owner), Some(now)) = (is_proved, owner, now) {
                    prop_assert_eq!(now.holder, owner.holder);
                    prop_assert!(now.proved_at.is_some());
                }
            }
        }
    }

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
            last_proved: None,
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
