//! A typed client of `kms-server`, and the password hash that clients derive so that a password
//! never leaves them.
//!
//! It depends on `kms-types` and on no custody code. It never sends, logs or stores a password.
//!
//! [`Client`] has one method for each operation of the API, with the types of [`kms_types::wire`].
//! [`Vault`] is the same for the vault page's API.
//! Errors are [`ClientError`]; [`ClientError::code`] returns the server's stable error code.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use kms_client::{BearerToken, Client, Trust};
//! use kms_types::wire::CreateAccount;
//!
//! let token = BearerToken::from("kms_…".to_owned());
//! let client = Client::new("https://kms.example.org", token, Trust::System)?;
//! let telegram_id = 4711.try_into()?;
//! let password_hash = kms_client::hash_password(telegram_id, "correct horse battery").await;
//! let account = client
//!     .create_account(&CreateAccount {
//!         telegram_id,
//!         password_hash,
//!         usernames: vec!["@ann".parse()?].try_into()?,
//!         seen_at: None,
//!         mobile: None,
//!         email: None,
//!     })
//!     .await?;
//! println!("{}", account.address);
//! # Ok(())
//! # }
//! ```

mod client;
mod error;
mod fold;
mod new_password;
mod password;
mod vault;

pub use client::{BearerToken, Client, Page, Trust, traced};
pub use error::ClientError;
pub use fold::fold_password;
pub use new_password::{is_rewritten, names_with_parts};
pub use password::{hash_password, hash_password_blocking};
pub use vault::Vault;
