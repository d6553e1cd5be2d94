//! What depends on each version of a server key, and how it moves to the newest one.
//!
//! A table whose rows carry a MAC is listed in `remac`, a column that the server seals in
//! `dependants`; a conformance test compares both lists with the schema.

mod checks;
mod dependants;
mod remac;
mod reseal;

pub use self::dependants::Dependants;
pub use self::reseal::Sealed;

use kms_core::RowMac;
use kms_core::ports::StoreError;

/// How many rows one call moves at most.
pub(crate) const BATCH: i64 = 100;

/// A row whose MAC is under an older version of the row key.
pub(crate) struct StaleMac {
    /// The value of the table's first key column.
    pub(crate) key: String,
    /// Where the next batch continues.
    pub(crate) cursor: String,
    pub(crate) old: Vec<u8>,
    /// The MAC under the newest version, or why the row does not verify.
    pub(crate) new: Result<RowMac, StoreError>,
}

/// What one batch did.
#[derive(Debug, Default)]
pub struct MovedBatch {
    /// The rows that were moved. One that a server changed meanwhile needs no move.
    pub moved: u64,
    /// The rows that failed their check, and were left as they are.
    pub failed: Vec<StoreError>,
    /// Where the next batch continues; `None` after the last one.
    pub next: Option<String>,
}
