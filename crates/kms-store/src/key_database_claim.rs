//! The claim of this account database on its key database, so that no server of another account
//! database, nor of a copy of this one, writes or deletes wrapped SCKs.
//!
//! Both databases hold the same random claim, and it is renewed at each start and while a server
//! runs. A copy of the account database, such as a restored backup, has an older one.

use diesel::prelude::*;
use diesel::sql_types::{Integer, Text};
use kms_core::ports::StoreError;
use uuid::Uuid;

use crate::database::{AnyConnection, Database, Failure};
use crate::keys::{KeyDatabase, KeyDatabaseOwner};
use crate::schema::key_database_claim;

/// Attempts to renew the claim while other servers renew it, too.
const ATTEMPTS: u32 = 10;
/// The id of the only row.
const ID: i32 = 1;

/// Why a key database cannot be used with this account database.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// It belongs to another account database.
    #[error(
        "the key database belongs to account database {owner}, and this one is {own}; check \
         key_database.url and key_database.name"
    )]
    Foreign {
        /// The identity of its owner.
        owner: String,
        /// The identity of this account database.
        own: String,
    },
    /// It is new, but this account database has used another one.
    #[error(
        "the key database has no owner, but this account database has used another one; check \
         key_database.url and key_database.name, or run `kms-server keys adopt` if it was lost"
    )]
    New,
    /// Another copy of this account database has used it since.
    #[error(
        "another copy of this account database has used the key database since; run `kms-server \
         keys adopt` after a restore, with every other server stopped"
    )]
    Copy,
    /// A database does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The claim as this account database holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Claim {
    current: Option<String>,
    /// The one that replaces it. The key database may have it already.
    next: Option<String>,
}

#[derive(QueryableByName)]
struct Next {
    #[diesel(sql_type = Text)]
    next: String,
}

impl Claim {
    fn check(&self, own: Option<&str>, owner: Option<&KeyDatabaseOwner>) -> Result<(), ClaimError> {
        let Some(owner) = owner else {
            return if self.current.is_none() { Ok(()) } else { Err(ClaimError::New) };
        };
        if Some(owner.identity.as_str()) != own {
            let (owner, own) = (owner.identity.clone(), own.unwrap_or("new").to_owned());
            return Err(ClaimError::Foreign { owner, own });
        }
        let is_known = [&self.current, &self.next].contains(&&Some(owner.claim.clone()));
        if is_known { Ok(()) } else { Err(ClaimError::Copy) }
    }
}

impl Database {
    /// Checks that the key database belongs to this account database, without a change.
    ///
    /// # Errors
    /// [`ClaimError`]: it does not, or a database does not answer.
    pub async fn check_key_database(&self, keys: &dyn KeyDatabase) -> Result<(), ClaimError> {
        self.checked_owner(keys).await.map(drop)
    }

    /// Checks that the key database belongs to this account database, and renews the claim; the
    /// first account database that asks becomes the owner. Call this after
    /// [`Self::check_server_keys`].
    ///
    /// # Errors
    /// [`ClaimError`]: it does not, or a database does not answer.
    pub async fn claim_key_database(&self, keys: &dyn KeyDatabase) -> Result<(), ClaimError> {
        for _ in 0..ATTEMPTS {
            let owner = self.checked_owner(keys).await?;
            let next = self.begin_claim().await?;
            if self.write_claim(keys, owner.as_ref(), next).await? {
                return Ok(());
            }
        }
        // Other servers of this account database renew it all the time.
        Ok(())
    }

    /// Claims a key database that was restored, or that another copy of this account database has
    /// used; never that of another account database.
    ///
    /// # Errors
    /// [`ClaimError::Foreign`], or a database does not answer.
    pub async fn adopt_key_database(&self, keys: &dyn KeyDatabase) -> Result<(), ClaimError> {
        for _ in 0..ATTEMPTS {
            let owner = keys.owner().await?;
            let current = owner.as_ref().map(|owner| owner.claim.clone());
            let found = Claim { current: current.clone(), next: None };
            found.check(self.identity().await?.as_deref(), owner.as_ref())?;
            self.replace_claim(current).await?;
            let next = self.begin_claim().await?;
            if self.write_claim(keys, owner.as_ref(), next).await? {
                return Ok(());
            }
        }
        Err(ClaimError::Copy)
    }

    /// Returns the owner of the key database after checking it.
    async fn checked_owner(
        &self,
        keys: &dyn KeyDatabase,
    ) -> Result<Option<KeyDatabaseOwner>, ClaimError> {
        let own = self.identity().await?;
        let mut claim = self.read_claim().await?;
        loop {
            let owner = keys.owner().await?;
            let checked = claim.check(own.as_deref(), owner.as_ref());
            // Another server may have renewed the claim between the two reads.
            let again = self.read_claim().await?;
            match checked {
                Ok(()) => return Ok(owner),
                Err(error) if again == claim => return Err(error),
                Err(_renewed) => claim = again,
            }
        }
    }

    /// Writes the next claim into the key database, then here; returns `false` if its owner has
    /// changed meanwhile.
    async fn write_claim(
        &self,
        keys: &dyn KeyDatabase,
        owner: Option<&KeyDatabaseOwner>,
        next: String,
    ) -> Result<bool, ClaimError> {
        if owner.is_none_or(|owner| owner.claim != next) {
            let identity = self.identity().await?.ok_or_else(never_used)?;
            let new = KeyDatabaseOwner { identity, claim: next.clone() };
            if !keys.replace_owner(owner, &new).await? {
                return Ok(false);
            }
        }
        self.end_claim(next).await?;
        Ok(true)
    }

    async fn read_claim(&self) -> Result<Claim, StoreError> {
        self.blocking(|connection| Ok(find(connection)?.unwrap_or_default())).await
    }

    /// Returns the claim that replaces the current one, a new one unless one is being written.
    async fn begin_claim(&self) -> Result<String, StoreError> {
        self.blocking(|connection| {
            let row: Next = diesel::sql_query(
                "insert into key_database_claim (id, next) values ($1, $2) \
                 on conflict (id) do update set next = coalesce(key_database_claim.next, \
                 excluded.next) returning next",
            )
            .bind::<Integer, _>(ID)
            .bind::<Text, _>(Uuid::new_v4().to_string())
            .get_result(connection)?;
            Ok(row.next)
        })
        .await
    }

    async fn end_claim(&self, next: String) -> Result<(), StoreError> {
        self.blocking(move |connection| {
            diesel::update(key_database_claim::table.find(ID))
                .filter(key_database_claim::next.eq(&next))
                .set((
                    key_database_claim::current.eq(&next),
                    key_database_claim::next.eq(None::<String>),
                ))
                .execute(connection)?;
            Ok(())
        })
        .await
    }

    async fn replace_claim(&self, current: Option<String>) -> Result<(), StoreError> {
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                diesel::delete(key_database_claim::table).execute(connection)?;
                diesel::insert_into(key_database_claim::table)
                    .values((
                        key_database_claim::id.eq(ID),
                        key_database_claim::current.eq(&current),
                    ))
                    .execute(connection)?;
                Ok(())
            })
        })
        .await
    }
}

fn never_used() -> StoreError {
    let reason = "no check value; no server has used this database".to_owned();
    StoreError::Corrupt { table: "server_key_checks", key: "row".to_owned(), reason }
}

fn find(connection: &mut AnyConnection) -> Result<Option<Claim>, Failure> {
    let row: Option<(Option<String>, Option<String>)> = key_database_claim::table
        .find(ID)
        .select((key_database_claim::current, key_database_claim::next))
        .first(connection)
        .optional()?;
    Ok(row.map(|(current, next)| Claim { current, next }))
}
