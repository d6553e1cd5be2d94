//! The account that a username resolves to: its claims and its holder's account, in one query.

use diesel::prelude::*;
use kms_core::account::Account;
use kms_core::ports::StoreError;
use kms_types::{Timestamp, Username};
use name_service::Claim;

use super::rows::{AccountRow, Row, WalletRow, parse};
use crate::audit;
use crate::database::{AnyConnection, Database, Failure, on_own};
use crate::names::{self as claims, active, recorded, verify_history};
use crate::schema::{accounts, names, wallets};

/// The account that a username resolves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The username as its holder spells it.
    pub username: Username,
    /// The holder's account.
    pub account: Account,
    /// When the username was reassigned from another holder, if that still has to be shown.
    pub reassigned_at: Option<Timestamp>,
    /// When Telegram signed last that the holder has the username.
    pub proved_at: Option<Timestamp>,
    /// From when payments can name it, if not yet.
    pub payable_from: Option<Timestamp>,
}

impl Database {
    /// Resolves a username to the account of its current holder.
    ///
    /// # Errors
    /// When the database does not answer, or the username's claims or the account's row fail their
    /// integrity check.
    pub async fn resolve(
        &self,
        name: &Username,
        now: Timestamp,
    ) -> Result<Option<Resolved>, StoreError> {
        let (name, keys) = (name.clone(), self.keys.clone());
        self.blocking(move |connection| {
            let canonical = name.canonical();
            let (found, newest) = match with_claims(connection, &canonical)? {
                // No claim was there to read the audit with: it is asked, and then the claims.
                (found, _) if found.is_empty() => match recorded(connection, &canonical)? {
                    0 => return Ok(None),
                    newest => (with_claims(connection, &canonical)?.0, newest),
                },
                read => read,
            };
            let (history, accounts): (Vec<_>, Vec<_>) = found.into_iter().unzip();
            verify_history(&history, newest, &canonical, &keys)?;
            let Some(claim) = active(&history)? else { return Ok(None) };
            // `None`: the holder may have no wallet.
            let Some(account) = accounts.into_iter().flatten().next() else { return Ok(None) };
            let account = parse(account, &keys)?;
            let reassigned_at = name_service::reassigned_at(&claim, now);
            let payable_from = name_service::payable_from(&claim, now);
            let Claim { username, proved_at, .. } = claim;
            Ok(Some(Resolved { username, account, reassigned_at, proved_at, payable_from }))
        })
        .await
    }
}

/// A claim, and its holder's account if it is active.
type Held = (claims::Row, Option<Row>);

/// Reads all claims on a username, oldest first, the active one with its holder's account, and the
/// newest revision that the audit has of them.
fn with_claims(
    connection: &mut AnyConnection,
    canonical: &str,
) -> Result<(Vec<Held>, i64), Failure> {
    type Found =
        (claims::Row, Option<AccountRow>, Option<WalletRow>, Option<String>, Option<String>);
    let own = diesel::alias!(names as own_names);
    let shown = own
        .filter(own.field(names::telegram_id).eq(names::telegram_id))
        .filter(own.field(names::ended_at).is_null())
        .order(own.field(names::position))
        .select(own.field(names::shown))
        .single_value();
    let holder = accounts::telegram_id.eq(names::telegram_id).and(names::ended_at.is_null());
    macro_rules! claims_with_holder {
        () => {
            names::table
                .left_join(accounts::table.on(holder))
                .left_join(wallets::table.on(wallets::account_id.eq(accounts::id)))
                .filter(names::canonical.eq(canonical))
                .order(names::id)
                .select((
                    claims::Row::as_select(),
                    Option::<AccountRow>::as_select(),
                    Option::<WalletRow>::as_select(),
                    shown,
                    audit::newest_details(claims::action(canonical)),
                ))
        };
    }
    let found: Vec<Found> = on_own!(connection, claims_with_holder!().load(connection))?;
    let newest = found.first().and_then(|(.., newest)| newest.as_deref());
    let newest = audit::newest_revision_in(newest);
    let joined = |(claim, account, wallet, shown, _): Found| {
        (claim, account.zip(wallet).map(|(account, wallet)| (account, wallet, shown)))
    };
    Ok((found.into_iter().map(joined).collect(), newest))
}
