//! The stream of events, by long polling.

use std::time::Duration;

use kms_types::EventCursor;
use kms_types::wire::EventPage;
use reqwest::Method;

use super::{Client, TIMEOUT, read};
use crate::error::ClientError;

impl Client {
    /// Returns the events after a position in the stream, and waits up to `wait` (at most 60 s) for
    /// the first one. `after` acknowledges all events up to it.
    ///
    /// `GET /v1/events`. Events are delivered at least once, in commit order.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn events(
        &self,
        after: Option<EventCursor>,
        wait: Duration,
    ) -> Result<EventPage, ClientError> {
        let mut query = vec![("wait", wait.as_secs().to_string())];
        query.extend(after.map(|after| ("after", after.to_string())));
        let request = self.request(Method::GET, &["events"], &query)?.timeout(TIMEOUT + wait);
        read(request).await
    }
}
