//! The stream of events, by long polling.

use std::time::Duration;

use kms_types::wire::EventPage;
use kms_types::{EventCursor, EventStream};
use reqwest::Method;

use super::{Client, TIMEOUT, read};
use crate::error::ClientError;

impl Client {
    /// Returns the events after a position in a stream, by default after the last acknowledged one,
    /// and waits up to `wait` (at most 60 s) for the first. First acknowledges all events of the
    /// stream up to `acknowledge`.
    ///
    /// `GET /v1/events`. Events are delivered at least once, in commit order.
    ///
    /// # Errors
    /// [`ClientError`]: the server refused, or its response did not arrive.
    pub async fn events(
        &self,
        stream: EventStream,
        after: Option<EventCursor>,
        acknowledge: Option<EventCursor>,
        wait: Duration,
    ) -> Result<EventPage, ClientError> {
        let mut query =
            vec![("stream", stream.as_str().to_owned()), ("wait", wait.as_secs().to_string())];
        query.extend(after.map(|after| ("after", after.to_string())));
        query.extend(acknowledge.map(|cursor| ("acknowledge", cursor.to_string())));
        let request = self.request(Method::GET, &["events"], &query)?.timeout(TIMEOUT + wait);
        read(request).await
    }
}
