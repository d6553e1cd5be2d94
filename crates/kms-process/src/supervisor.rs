//! One supervisor for all tasks of a process: it notices the first that ends, and stops all of
//! them within a deadline.

use std::collections::HashMap;
use std::fmt::Display;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::failpoint;
use crate::failure::Failure;
use crate::worker::{self, Worker};

tokio::task_local! {
    /// The name of the supervised task that runs on this thread, for the panic hook.
    static NAME: &'static str;
}

/// The name of the supervised task that is running, if one is.
pub(crate) fn current_worker() -> Option<&'static str> {
    NAME.try_with(|name| *name).ok()
}

/// Runs the workers and other long tasks of a process. Dropping it aborts them.
#[derive(Debug, Default)]
pub struct Supervisor {
    shutdown: CancellationToken,
    tasks: JoinSet<Result<(), String>>,
    names: HashMap<Id, &'static str>,
}

impl Supervisor {
    /// A supervisor without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Is cancelled when the process stops.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Starts a worker.
    pub fn run<W: Worker>(&mut self, worker: W) {
        let shutdown = self.shutdown();
        let rounds = async move {
            worker::run(worker, shutdown).await;
            Ok::<(), std::convert::Infallible>(())
        };
        self.watch(W::NAME, rounds);
    }

    /// Starts a task that must not end before the process stops.
    pub fn watch<E: Display>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let task = async { task.await.map_err(|error| error.to_string()) };
        let task = NAME.scope(name, failpoint::wrap(name, task));
        self.names.insert(self.tasks.spawn(task).id(), name);
    }

    /// Waits until a task ends or panics, which none should before [`Self::stop`].
    pub async fn failed(&mut self) -> Failure {
        loop {
            match self.tasks.join_next_with_id().await {
                None => std::future::pending().await,
                Some(ended) => {
                    let (worker, result) = self.ended(ended);
                    match result {
                        Ok(error) => return Failure::Ended { worker, error },
                        Err(error) if error.is_panic() => return Failure::Panicked { worker },
                        // Nothing aborts a task but the runtime's own end.
                        Err(_cancelled) => {}
                    }
                }
            }
        }
    }

    /// Cancels [`Self::shutdown`] and waits for all tasks.
    ///
    /// # Errors
    /// When a task failed or panicked meanwhile, or did not end before the deadline; it may still
    /// be running, so that the process has to be ended by [`exit`](crate::exit).
    pub async fn stop(mut self, deadline: Instant) -> Result<(), Failure> {
        self.shutdown.cancel();
        let mut stopped = Ok(());
        loop {
            let Ok(ended) = timeout_at(deadline, self.tasks.join_next_with_id()).await else {
                let mut workers: Vec<_> = self.names.into_values().collect();
                workers.sort_unstable();
                return Err(Failure::StopTimeout { workers });
            };
            let Some(ended) = ended else { return stopped };
            match self.ended(ended) {
                (_, Ok(None)) => {}
                (worker, Ok(error)) => stopped = Err(Failure::Ended { worker, error }),
                (worker, Err(_panic)) => stopped = Err(Failure::Panicked { worker }),
            }
        }
    }

    /// Which task it was, and with what error it ended or that it panicked.
    fn ended(
        &mut self,
        ended: Result<(Id, Result<(), String>), JoinError>,
    ) -> (&'static str, Result<Option<String>, JoinError>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, Ok(result.err())),
            Err(error) => (error.id(), Err(error)),
        };
        (self.names.remove(&id).unwrap_or("unknown"), result)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io;
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;
    use crate::Next;

    const DEADLINE: Duration = Duration::from_secs(25);

    fn deadline() -> Instant {
        Instant::now() + DEADLINE
    }

    /// Sends the number of each round, fails the second, panics in the fifth.
    struct Counting {
        round: u32,
        rounds: mpsc::UnboundedSender<(u32, Instant)>,
    }

    impl Worker for Counting {
        const NAME: &'static str = "counting";
        type Error = io::Error;

        fn interval(&self) -> Duration {
            Duration::from_secs(60)
        }

        fn retry_interval(&self) -> Duration {
            Duration::from_secs(5)
        }

        fn initial_delay(&self) -> Duration {
            Duration::from_secs(1)
        }

        async fn round(&mut self) -> Result<Next, io::Error> {
            self.round += 1;
            let _ = self.rounds.send((self.round, Instant::now()));
            match self.round {
                1 => Ok(Next::AfterInterval),
                2 => Err(io::Error::other("no connection")),
                3 => Ok(Next::After(Duration::from_secs(7))),
                4 => Ok(Next::AtOnce),
                _ => panic!("fifth round"),
            }
        }

        async fn stopped(&mut self) {
            let _ = self.rounds.send((0, Instant::now()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rounds_wait_as_the_worker_asks_and_a_panic_is_a_failure() {
        let (started, (rounds, mut seen)) = (Instant::now(), mpsc::unbounded_channel());
        let mut supervisor = Supervisor::new();
        supervisor.run(Counting { round: 0, rounds });
        let failure = supervisor.failed().await;
        assert!(matches!(failure, Failure::Panicked { worker: "counting" }), "{failure:?}");
        let mut seconds = Vec::new();
        while let Some((_, at)) = seen.recv().await {
            seconds.push(at.duration_since(started).as_secs());
        }
        assert_eq!(seconds, [1, 61, 66, 73, 73]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_the_wait_and_lets_the_worker_clean_up() {
        let (rounds, mut seen) = mpsc::unbounded_channel();
        let mut supervisor = Supervisor::new();
        supervisor.run(Counting { round: 0, rounds });
        assert_eq!(seen.recv().await.unwrap().0, 1);
        let stopping = Instant::now();
        supervisor.stop(deadline()).await.unwrap();
        assert!(stopping.elapsed() < Duration::from_secs(1));
        assert_eq!(seen.recv().await.unwrap().0, 0);
    }

    #[tokio::test]
    async fn a_task_that_ends_is_a_failure_with_its_error() {
        let mut supervisor = Supervisor::new();
        supervisor.watch("server", async { Err(io::Error::other("address lost")) });
        let failure = supervisor.failed().await;
        let Failure::Ended { worker: "server", error: Some(error) } = failure else {
            panic!("{failure:?}");
        };
        assert_eq!(error, "address lost");
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_do_not_stop_are_named_at_the_deadline() {
        let mut supervisor = Supervisor::new();
        let shutdown = supervisor.shutdown();
        supervisor.watch("stops", async move {
            shutdown.cancelled().await;
            Ok::<(), Infallible>(())
        });
        supervisor.watch("hangs", std::future::pending::<Result<(), Infallible>>());
        let stopping = Instant::now();
        let failure = supervisor.stop(deadline()).await.unwrap_err();
        assert!(matches!(&failure, Failure::StopTimeout { workers } if *workers == ["hangs"]));
        assert_eq!(stopping.elapsed(), DEADLINE);
    }
}
