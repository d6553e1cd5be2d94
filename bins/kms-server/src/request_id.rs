//! The id of the request that a task handles.

tokio::task_local! {
    pub(crate) static REQUEST_ID: String;
}

/// Returns the id; empty outside a request.
pub(crate) fn request_id() -> String {
    REQUEST_ID.try_with(Clone::clone).unwrap_or_default()
}
