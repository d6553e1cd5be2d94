//! An impatient client.

use std::time::Duration;

use kms_client::{Client, ClientError};
use kms_server_testing::requests::confirm;
use kms_types::wire::{QuoteTransfer, TransferState};

use crate::random::Random;

pub(crate) const WORDS: &str = "a password";

/// The final answer to a sender.
pub(crate) enum Answer {
    Acknowledged,
    Refused,
    /// None that is certain.
    Unclear,
}

/// Quotes and confirms like an impatient client, which repeats each request through another server
/// until the answer is certain.
pub(crate) async fn send(
    clients: Vec<Client>,
    request: QuoteTransfer,
    mut random: Random,
) -> Answer {
    let mut quoted = None;
    for _ in 0..30 {
        let client =
            &clients[usize::try_from(random.below(u64::try_from(clients.len()).unwrap())).unwrap()];
        let answer = match &quoted {
            None => client.quote(&request).await,
            Some(quoted) => client.confirm(request.id, &confirm(quoted, WORDS)).await,
        };
        match answer {
            Ok(transfer) if transfer.state == TransferState::Quoted => quoted = Some(transfer),
            Ok(_) => return Answer::Acknowledged,
            Err(ClientError::Problem(problem)) if is_certain(problem.status) => {
                return Answer::Refused;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(30 + random.below(100))).await,
        }
    }
    Answer::Unclear
}

/// Whether nothing was done and a repeat would be refused too.
fn is_certain(status: u16) -> bool {
    (400..500).contains(&status) && status != 429
}
