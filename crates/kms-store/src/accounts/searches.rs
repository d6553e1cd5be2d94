//! Where the searches for accounts begin for which something is due.

use std::sync::Mutex;

/// Where a search begins: after the row of this time and id, in the order of falling times.
#[derive(Clone, Debug)]
pub(super) struct After {
    pub(super) time: i64,
    pub(super) id: String,
}

/// Where the next searches begin, if those before them ended at rows that cannot be changed.
#[derive(Debug, Default)]
pub(crate) struct Searches {
    pub(super) unfreezes: Mutex<Option<After>>,
    pub(super) page_leaves: Mutex<Option<After>>,
}
