//! API tokens: their hashes, scopes and expiry.

use std::fmt;
use std::str::FromStr;

use diesel::dsl::exists;
use diesel::prelude::*;
use diesel::sql_types::Binary;
use kms_core::audit::Action;
use kms_core::ports::StoreError;
use kms_core::{HashedToken, RowMac, ServerKeys};
use kms_types::Timestamp;

use crate::convert::RowRef;
use crate::database::{AnyConnection, Database, Failure};
use crate::schema::{api_tokens, audit};
use crate::server_keys::{BATCH, StaleMac};

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything that the bot does on behalf of its users, passwords typed in the chat included.
    Bot,
    /// What the bot does on behalf of users whose passwords it never sees: reads, quotes, cancels,
    /// freezes, lower limits and observed names.
    Chat,
    /// Operations of the operator.
    Admin,
    /// Read access for an operator's programs: no contacts, no payments of an account.
    Read,
}

/// The text is not a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is bot, chat, admin or read")]
pub struct ScopeError;

/// An API token without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// A random id.
    pub id: String,
    /// The operator's name for it, unique.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// When it was issued.
    pub created_at: Timestamp,
    /// When it expires, if ever.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// A token of the list, which may be unreadable.
#[derive(Debug)]
pub struct ListedToken {
    /// Its name as stored.
    pub name: String,
    /// The token, or why its row cannot be read.
    pub token: Result<ApiToken, StoreError>,
    /// When it was used last, to the hour.
    pub last_used_at: Option<Timestamp>,
}

impl ApiToken {
    /// Whether the token is neither expired nor revoked.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expires| now < expires)
    }

    fn scopes_text(&self) -> String {
        let scopes: Vec<_> = self.scopes.iter().map(Scope::to_string).collect();
        scopes.join(",")
    }

    fn with_mac_fields<T>(&self, hash: &HashedToken, work: impl FnOnce(&[&[u8]]) -> T) -> T {
        let time = |time: Option<Timestamp>| time.map_or(-1, |time| time.0).to_be_bytes();
        work(&[
            b"api_tokens",
            self.id.as_bytes(),
            self.name.as_bytes(),
            hash.as_bytes(),
            self.scopes_text().as_bytes(),
            &time(self.expires_at),
            &time(self.revoked_at),
        ])
    }

    fn mac(&self, hash: &HashedToken, keys: &ServerKeys) -> RowMac {
        self.with_mac_fields(hash, |fields| keys.row.mac(fields))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bot => "bot",
            Self::Chat => "chat",
            Self::Admin => "admin",
            Self::Read => "read",
        })
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        match text {
            "bot" => Ok(Self::Bot),
            "chat" => Ok(Self::Chat),
            "admin" => Ok(Self::Admin),
            "read" => Ok(Self::Read),
            _ => Err(ScopeError),
        }
    }
}

impl Database {
    /// Stores a token with its hash.
    ///
    /// # Errors
    /// When the database does not answer, or the name is in use.
    pub async fn insert_api_token(
        &self,
        token: ApiToken,
        hash: HashedToken,
    ) -> Result<(), StoreError> {
        let mac = token.mac(&hash, &self.keys);
        self.blocking(move |connection| {
            diesel::insert_into(api_tokens::table)
                .values((
                    api_tokens::id.eq(&token.id),
                    api_tokens::name.eq(&token.name),
                    api_tokens::hash.eq(hash.as_bytes().to_vec()),
                    api_tokens::scopes.eq(token.scopes_text()),
                    api_tokens::created_at.eq(token.created_at.0),
                    api_tokens::expires_at.eq(token.expires_at.map(|time| time.0)),
                    api_tokens::revoked_at.eq(token.revoked_at.map(|time| time.0)),
                    api_tokens::mac_key.eq(i32::from(mac.key.as_u8())),
                    api_tokens::mac.eq(mac.tag.to_vec()),
                ))
                .execute(connection)?;
            Ok(())
        })
        .await
    }

    /// Returns the token with this hash, valid or not.
    ///
    /// # Errors
    /// When the database does not answer, or the row fails its integrity check: also when the audit
    /// has its revocation and the row does not, because an older copy of it was put back.
    pub async fn api_token_by_hash(
        &self,
        hash: HashedToken,
    ) -> Result<Option<ApiToken>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            let revoke = Action::RevokeToken(hash);
            let revocation = audit::table
                .filter(audit::subject.eq(revoke.subject()))
                .filter(audit::action.eq(revoke.as_str()))
                .filter(audit::outcome.eq("ok"));
            let found: Option<(Columns, bool)> = api_tokens::table
                .filter(api_tokens::hash.eq(hash.as_bytes().to_vec()))
                .select((api_tokens::all_columns, exists(revocation)))
                .first(connection)
                .optional()?;
            let Some((row, is_revoked)) = found else { return Ok(None) };
            let (token, _hash) = parse(row, &keys)?;
            if is_revoked && token.revoked_at.is_none() {
                return Err(StoreError::Tampered { table: "api_tokens", key: token.id }.into());
            }
            Ok(Some(token))
        })
        .await
    }

    /// Returns the hash of the token with this name.
    ///
    /// # Errors
    /// When the database does not answer, or the row fails its integrity check.
    pub async fn api_token_hash(&self, name: &str) -> Result<Option<HashedToken>, StoreError> {
        let (name, keys) = (name.to_owned(), self.keys.clone());
        self.blocking(move |connection| {
            let row: Option<Columns> = api_tokens::table
                .filter(api_tokens::name.eq(&name))
                .first(connection)
                .optional()?;
            Ok(row.map(|row| parse(row, &keys)).transpose()?.map(|(_token, hash)| hash))
        })
        .await
    }

    /// Lists the hashes of all tokens, valid or not, whose rows are not verified.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn api_token_hashes(&self) -> Result<Vec<HashedToken>, StoreError> {
        self.blocking(move |connection| {
            let hashes: Vec<Vec<u8>> =
                api_tokens::table.select(api_tokens::hash).load(connection)?;
            // Of another length is no hash of a token.
            let hashes = hashes.into_iter().filter_map(|hash| <[u8; 32]>::try_from(hash).ok());
            Ok(hashes.map(HashedToken::from).collect())
        })
        .await
    }

    /// Lists all tokens, oldest first. An unreadable row does not fail the others.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn api_tokens(&self) -> Result<Vec<ListedToken>, StoreError> {
        let keys = self.keys.clone();
        self.blocking(move |connection| {
            let rows: Vec<Columns> =
                api_tokens::table.order(api_tokens::created_at).load(connection)?;
            let list = |row: Columns| ListedToken {
                name: row.1.clone(),
                last_used_at: row.7.map(Timestamp),
                token: parse(row, &keys).map(|(token, _hash)| token),
            };
            Ok(rows.into_iter().map(list).collect())
        })
        .await
    }

    /// Stores that the token with this hash was used, at most once an hour. Returns whether it did.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn record_token_use(&self, hash: HashedToken) -> Result<bool, StoreError> {
        let clock = self.dialect.clock();
        let update = format!(
            "update api_tokens set last_used_at = {clock} where hash = $1 \
             and coalesce(last_used_at, 0) < {clock} - 3600000"
        );
        self.blocking(move |connection| {
            let hash = hash.as_bytes().to_vec();
            Ok(diesel::sql_query(update).bind::<Binary, _>(hash).execute(connection)? > 0)
        })
        .await
    }

    /// Revokes a token by its name, also again: the first time may not have been recorded. Returns
    /// `false` if no token has that name.
    ///
    /// # Errors
    /// When the database does not answer, or the row fails its integrity check.
    pub async fn revoke_api_token(&self, name: &str, now: Timestamp) -> Result<bool, StoreError> {
        let (name, keys) = (name.to_owned(), self.keys.clone());
        self.blocking(move |connection| {
            connection.transaction(|connection| {
                let row: Option<Columns> = api_tokens::table
                    .filter(api_tokens::name.eq(&name))
                    .first(connection)
                    .optional()?;
                let Some(row) = row else { return Ok(false) };
                let (mut token, hash) = parse(row, &keys)?;
                if token.revoked_at.is_some() {
                    return Ok(true);
                }
                token.revoked_at = Some(now);
                let mac = token.mac(&hash, &keys);
                diesel::update(api_tokens::table.find(&token.id))
                    .set((
                        api_tokens::revoked_at.eq(Some(now.0)),
                        api_tokens::mac_key.eq(i32::from(mac.key.as_u8())),
                        api_tokens::mac.eq(mac.tag.to_vec()),
                    ))
                    .execute(connection)?;
                Ok(true)
            })
        })
        .await
    }
}

/// Returns the next tokens whose MAC is under an older version of the row key.
pub(crate) fn stale_macs(
    connection: &mut AnyConnection,
    keys: &ServerKeys,
    after: &str,
) -> Result<Vec<StaleMac>, Failure> {
    let rows: Vec<Columns> = api_tokens::table
        .filter(api_tokens::mac_key.lt(i32::from(keys.row.current().as_u8())))
        .filter(api_tokens::id.gt(after))
        .order(api_tokens::id)
        .limit(BATCH)
        .load(connection)?;
    let stale = |row: Columns| {
        let (key, old) = (row.0.clone(), row.9.clone());
        let new = parse(row, keys).map(|(token, hash)| token.mac(&hash, keys));
        StaleMac { cursor: key.clone(), key, old, new }
    };
    Ok(rows.into_iter().map(stale).collect())
}

/// All columns, in the order of the table.
type Columns =
    (String, String, Vec<u8>, String, i64, Option<i64>, Option<i64>, Option<i64>, i32, Vec<u8>);

fn parse(columns: Columns, keys: &ServerKeys) -> Result<(ApiToken, HashedToken), StoreError> {
    let (id, name, hash, scopes, created_at, expires_at, revoked_at, _used, mac_key, mac) = columns;
    let key = id.clone();
    let row = RowRef { table: "api_tokens", key: &key };
    let token = ApiToken {
        id,
        name,
        scopes: scopes.split(',').map(|scope| row.parse(scope)).collect::<Result<_, _>>()?,
        created_at: Timestamp(created_at),
        expires_at: expires_at.map(Timestamp),
        revoked_at: revoked_at.map(Timestamp),
    };
    let hash = HashedToken::from(row.array::<32>(&hash)?);
    let mac = row.mac(mac_key, &mac)?;
    let verified = token.with_mac_fields(&hash, |fields| keys.row.verify(&mac, fields));
    verified.map_err(|error| row.not_verified(error))?;
    Ok((token, hash))
}
