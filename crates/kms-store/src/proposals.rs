//! What one operator proposed and another has to approve.

use std::time::Duration;

use diesel::prelude::*;
use kms_core::ports::StoreError;
use kms_core::{RowMac, ServerKeys};
use kms_types::Timestamp;

use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure};
use crate::schema::proposals;
use crate::server_keys::{BATCH, StaleMac};

/// How long a proposal can be approved.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// An act that requires two operators, proposed by the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The act, for instance `rescue`.
    pub action: String,
    /// What it is done to, for instance the id of an account.
    pub subject: String,
    /// What exactly is done: another content has another digest.
    pub digest: [u8; 32],
    /// Who proposed it.
    pub person: String,
    /// Why.
    pub reason: String,
    /// When.
    pub proposed_at: Timestamp,
}

/// Why a proposal cannot be approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposalError {
    /// It was proposed by the same person.
    #[error("it was proposed by the same person; another one has to approve it")]
    SamePerson,
    /// It is too old.
    #[error("it was proposed more than 24 hours ago; propose it again")]
    Expired,
}

impl Proposal {
    /// Checks that this person may approve it at this time.
    ///
    /// # Errors
    /// When it has expired, or the person proposed it.
    pub fn check(&self, person: &str, now: Timestamp) -> Result<(), ProposalError> {
        if self.person.eq_ignore_ascii_case(person) {
            return Err(ProposalError::SamePerson);
        }
        if now < self.proposed_at.plus(LIFETIME) { Ok(()) } else { Err(ProposalError::Expired) }
    }

    fn with_mac_fields<T>(&self, work: impl FnOnce(&[&[u8]]) -> T) -> T {
        work(&[
            b"proposals",
            self.action.as_bytes(),
            self.subject.as_bytes(),
            &self.digest,
            self.person.as_bytes(),
            self.reason.as_bytes(),
            &self.proposed_at.0.to_be_bytes(),
        ])
    }

    fn mac(&self, keys: &ServerKeys) -> RowMac {
        self.with_mac_fields(|fields| keys.row.mac(fields))
    }
}

/// All columns, in the order of the table.
type Columns = (String, String, Vec<u8>, String, String, i64, i32, Vec<u8>);

fn parse(columns: Columns, keys: &ServerKeys) -> Result<Proposal, StoreError> {
    let (action, subject, digest, person, reason, proposed_at, mac_key, mac) = columns;
    let key = subject.clone();
    let row = RowRef { table: "proposals", key: &key };
    let (digest, proposed_at) = (row.array(&digest)?, Timestamp(proposed_at));
    let proposal = Proposal { action, subject, digest, person, reason, proposed_at };
    let mac = row.mac(mac_key, &mac)?;
    let verified = proposal.with_mac_fields(|fields| keys.row.verify(&mac, fields));
    verified.map_err(|error| row.not_verified(error))?;
    Ok(proposal)
}

/// Returns the next proposals whose MAC is under an older version of the row key.
pub(crate) fn stale_macs(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    after: &str,
) -> Result<Vec<StaleMac>, Failure> {
    let rows: Vec<Columns> = proposals::table
        .filter(proposals::mac_key.lt(i32::from(keys.row.current().as_u8())))
        .filter(proposals::subject.gt(after))
        .order(proposals::subject)
        .limit(BATCH)
        .load(connection)?;
    let stale = |row: Columns| {
        let (key, old) = (row.1.clone(), row.7.clone());
        let new = parse(row, keys).map(|proposal| proposal.mac(keys));
        StaleMac { cursor: key.clone(), key, old, new }
    };
    Ok(rows.into_iter().map(stale).collect())
}

impl Database {
    /// Stores a proposal, in place of an earlier one of the same act and subject.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn propose(&self, proposal: Proposal) -> Result<(), StoreError> {
        let mac = proposal.mac(&self.keys);
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                let Proposal { action, subject, digest, person, reason, proposed_at } = proposal;
                let earlier = proposals::table.find((&action, &subject));
                diesel::delete(earlier).execute(connection)?;
                diesel::insert_into(proposals::table)
                    .values((
                        proposals::action.eq(action),
                        proposals::subject.eq(subject),
                        proposals::digest.eq(digest.to_vec()),
                        proposals::person.eq(person),
                        proposals::reason.eq(reason),
                        proposals::proposed_at.eq(proposed_at.0),
                        proposals::mac_key.eq(i32::from(mac.key.as_u8())),
                        proposals::mac.eq(mac.tag.to_vec()),
                    ))
                    .execute(connection)?;
                Ok(())
            })
        })
        .await
    }

    /// Returns the proposal of an act on a subject.
    ///
    /// # Errors
    /// When the database does not answer, or the row fails its integrity check.
    pub async fn proposal(
        &self,
        action: &'static str,
        subject: String,
    ) -> Result<Option<Proposal>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            let row: Option<Columns> =
                proposals::table.find((action, subject)).first(connection).optional()?;
            Ok(row.map(|row| parse(row, &keys)).transpose()?)
        })
        .await
    }

    /// Deletes the proposal of an act on a subject, which was done.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_proposal(
        &self,
        action: &'static str,
        subject: String,
    ) -> Result<(), StoreError> {
        self.blocking(move |connection| {
            diesel::delete(proposals::table.find((action, subject))).execute(connection)?;
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_person_approves_within_a_day() {
        let proposal = Proposal {
            action: "rescue".to_owned(),
            subject: "1".to_owned(),
            digest: [1; 32],
            person: "ann".to_owned(),
            reason: "ticket".to_owned(),
            proposed_at: Timestamp(7),
        };
        let last = Timestamp(7).plus(LIFETIME).minus(Duration::from_millis(1));
        assert_eq!(proposal.check("bob", last), Ok(()));
        assert_eq!(proposal.check("ANN", last), Err(ProposalError::SamePerson));
        assert_eq!(proposal.check("bob", Timestamp(7).plus(LIFETIME)), Err(ProposalError::Expired));
    }
}
