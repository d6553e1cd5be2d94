//! Accounts and their wallets.

pub(crate) mod contacts;
mod freezes;
mod listing;
mod mac;
mod rescue;
pub(crate) mod rows;
mod store;

pub use self::listing::ListedAccount;
