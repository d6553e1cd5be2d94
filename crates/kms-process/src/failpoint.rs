//! Faults of a supervised task, for tests of whole processes.
//!
//! With the feature `failpoints`, `KMS_FAILPOINT` may be `worker-panics:NAME`, `worker-ends:NAME`
//! or `worker-hangs:NAME`. Without it, nothing is read and nothing happens.

#[cfg(not(feature = "failpoints"))]
pub(crate) async fn wrap<T>(_name: &str, task: impl Future<Output = T>) -> T {
    task.await
}

/// Lets the task of this name run for a moment and then panic or end, or lets it not end when the
/// process stops.
#[cfg(feature = "failpoints")]
pub(crate) async fn wrap(
    name: &str,
    task: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    use std::time::Duration;

    #[expect(clippy::disallowed_methods, reason = "tests arm a fault in a process of its own")]
    let armed = std::env::var("KMS_FAILPOINT").unwrap_or_default();
    let (fault, of) = armed.split_once(':').unwrap_or_default();
    if of != name {
        return task.await;
    }
    let a_moment = tokio::time::sleep(Duration::from_secs(1));
    match fault {
        "worker-panics" => {
            let _ = for_a_moment(task, a_moment).await;
            panic!("failpoint")
        }
        "worker-ends" => for_a_moment(task, a_moment).await,
        "worker-hangs" => {
            task.await?;
            std::future::pending().await
        }
        _ => task.await,
    }
}

/// The task's result, or success once the time is over.
#[cfg(feature = "failpoints")]
async fn for_a_moment(
    task: impl Future<Output = Result<(), String>>,
    moment: tokio::time::Sleep,
) -> Result<(), String> {
    tokio::select! {
        ended = task => ended,
        () = moment => Ok(()),
    }
}
