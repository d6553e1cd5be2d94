//! Accounts and their wallets.

mod contacts;
mod listing;
mod mac;
pub(crate) mod rows;
mod store;

pub use self::listing::ListedAccount;
