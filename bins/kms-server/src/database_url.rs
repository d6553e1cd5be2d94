//! The URL of each new connection to the account database.

use std::sync::Arc;

use kms_store::UrlSource;

use crate::config::DatabaseUrl;

/// Returns where the pool gets its URLs from: from the URL's file, read each time.
pub(crate) fn source(url: DatabaseUrl) -> UrlSource {
    Arc::new(move || Ok(url.reread()?.expose().to_owned()))
}
