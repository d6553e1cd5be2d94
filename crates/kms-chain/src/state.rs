//! The states of a transfer and every allowed change between them.
//!
//! The store asks here before it changes a row. A signed transfer does not end before a transaction
//! with its nonce is final, and is reopened if the chain removes that block all the same.

use crate::transfer::TransferState;

/// A change of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The sender confirmed the quote with the password.
    Sign,
    /// The sender cancelled the quote.
    Cancel,
    /// Its cancellation is to be sent in its place: the sender asked, or the account is frozen.
    RequestCancellation,
    /// Its cancellation is in a finalized block.
    CancelMined,
    /// The quote was not confirmed in time.
    Expire,
    /// A node accepted the transaction.
    Broadcast,
    /// The next replacement, or its cancellation, is broadcast.
    Replace,
    /// It is still pending, for a known reason.
    Wait,
    /// A block contains it.
    Mine,
    /// A block contains a transaction with its nonce that does not pay.
    Settle,
    /// That transaction failed or is another one, and its block is final.
    Fail,
    /// The block that pays is final.
    Finish,
    /// The block was removed by a reorganisation.
    Reopen,
}

/// Returns the state after a change, or `None` if the change is not allowed in this state.
#[must_use]
pub fn after(state: TransferState, change: Change) -> Option<TransferState> {
    use TransferState::{Broadcast, Cancelled, Expired, Failed, Final, Mined, Quoted, Signed};
    let (from, to): (&[TransferState], _) = match change {
        Change::Sign => (&[Quoted], Signed),
        Change::Cancel => (&[Quoted], Cancelled),
        Change::Expire => (&[Quoted], Expired),
        Change::Broadcast => (&[Signed], Broadcast),
        Change::Replace | Change::Wait | Change::RequestCancellation => {
            (&[Signed, Broadcast], state)
        }
        Change::CancelMined => (&[Signed, Broadcast], Cancelled),
        Change::Mine => (&[Signed, Broadcast], Mined),
        Change::Settle => (&[Signed, Broadcast], state),
        Change::Fail => (&[Signed, Broadcast], Failed),
        Change::Finish => (&[Mined], Final),
        // Only what a block had settled.
        Change::Reopen => (&[Mined, Final, Failed, Cancelled], Broadcast),
    };
    from.contains(&state).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGES: [Change; 13] = [
        Change::Sign,
        Change::Cancel,
        Change::RequestCancellation,
        Change::CancelMined,
        Change::Expire,
        Change::Broadcast,
        Change::Replace,
        Change::Wait,
        Change::Mine,
        Change::Settle,
        Change::Fail,
        Change::Finish,
        Change::Reopen,
    ];

    fn reachable(state: TransferState) -> Vec<TransferState> {
        CHANGES.into_iter().filter_map(|change| after(state, change)).collect()
    }

    #[test]
    fn an_ended_transfer_changes_only_if_its_block_is_removed() {
        use TransferState::{Broadcast, Cancelled, Expired, Failed, Final};
        for end in [Cancelled, Failed, Final] {
            assert_eq!(reachable(end), [Broadcast], "{end:?}");
        }
        assert!(reachable(Expired).is_empty());
    }

    #[test]
    fn a_signed_transfer_is_cancelled_by_a_mined_transaction_alone() {
        use TransferState::{Broadcast, Mined, Signed};
        for state in [Signed, Broadcast, Mined] {
            for change in [Change::Sign, Change::Cancel, Change::Expire] {
                assert_eq!(after(state, change), None, "{state:?} {change:?}");
            }
        }
    }

    #[test]
    fn a_mined_transfer_becomes_final_or_pending_again() {
        use TransferState::{Broadcast, Final, Mined};
        assert_eq!(reachable(Mined), [Final, Broadcast]);
    }
}
