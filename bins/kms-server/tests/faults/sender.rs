//! An impatient client.

use std::time::{Duration, Instant};

use kms_client::{Client, ClientError};
use kms_server_testing::requests::confirm;
use kms_types::wire::{QuoteTransfer, TransferState};
use kms_types::{ErrorCode, Problem};

use crate::random::Random;

pub(crate) const WORDS: &str = "a password";

/// The final answer to a sender.
pub(crate) enum Answer {
    Acknowledged,
    Refused,
    /// None that is certain.
    Unclear,
}

/// How often a request is repeated, and how long a sender waits for earlier payments.
const TRIES: u32 = 200;
const PATIENCE: Duration = Duration::from_secs(180);

/// Quotes and confirms like an impatient client, which repeats each request through another server
/// until the answer is certain.
pub(crate) async fn send(
    clients: Vec<Client>,
    request: QuoteTransfer,
    mut random: Random,
) -> Answer {
    let (begun, mut tries, mut quoted) = (Instant::now(), 0, None);
    while tries < TRIES && begun.elapsed() < PATIENCE {
        tries += 1;
        let client =
            &clients[usize::try_from(random.below(u64::try_from(clients.len()).unwrap())).unwrap()];
        let answer = match &quoted {
            None => client.quote(&request).await,
            Some(quoted) => client.confirm(request.id, &confirm(quoted, WORDS)).await,
        };
        match answer {
            Ok(transfer) if transfer.state == TransferState::Quoted => quoted = Some(transfer),
            Ok(_) => return Answer::Acknowledged,
            Err(ClientError::Problem(problem)) if is_certain(&problem) => return Answer::Refused,
            Err(error) => {
                // Not a failure: an earlier payment has to be mined first.
                tries -= u32::from(error.code() == Some(ErrorCode::TooManyInFlight));
                tokio::time::sleep(Duration::from_millis(30 + random.below(100))).await;
            }
        }
    }
    Answer::Unclear
}

/// Whether nothing was done and a repeat would be refused too.
fn is_certain(problem: &Problem) -> bool {
    (400..500).contains(&problem.status)
        && problem.status != 429
        && problem.code != ErrorCode::TooManyInFlight
}
