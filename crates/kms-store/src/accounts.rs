//! Accounts and their wallets.

pub(crate) mod contacts;
mod due;
mod freezes;
mod listing;
mod mac;
mod rescue;
mod resolve;
pub(crate) mod rows;
pub(crate) mod searches;
mod store;

pub use self::listing::ListedAccount;
pub use self::resolve::Resolved;
