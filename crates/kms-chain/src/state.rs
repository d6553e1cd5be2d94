//! The states of a transfer, and every change that it may go through. The store asks here before
//! it changes a row. Nothing that is signed may end before a transaction with its nonce is final.

use crate::transfer::TransferState;

/// What may happen to a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The sender gave the password.
    Sign,
    /// The sender gave it up.
    Cancel,
    /// Nobody confirmed it in time.
    Expire,
    /// A node took it.
    Broadcast,
    /// The next step of its ladder is sent.
    Raise,
    /// No step is left, and it still waits.
    Wait,
    /// A block has it.
    Mine,
    /// It reverted or moved nothing, in a block that stays.
    Revert,
    /// A transaction from elsewhere has its nonce, in a block that stays.
    LoseNonce,
    /// Its block is not in the chain any more.
    Reorg,
    /// Its block stays.
    Finish,
}

/// The state after the change, or `None` if a transfer in this state can not go through it.
#[must_use]
pub fn after(state: TransferState, change: Change) -> Option<TransferState> {
    use TransferState::{Broadcast, Cancelled, Expired, Failed, Final, Mined, Quoted, Signed};
    let (from, to): (&[TransferState], _) = match change {
        Change::Sign => (&[Quoted], Signed),
        Change::Cancel => (&[Quoted], Cancelled),
        Change::Expire => (&[Quoted], Expired),
        Change::Broadcast => (&[Signed], Broadcast),
        Change::Raise | Change::Wait => (&[Signed, Broadcast], state),
        Change::Mine => (&[Signed, Broadcast], Mined),
        Change::Revert | Change::LoseNonce => (&[Signed, Broadcast], Failed),
        Change::Reorg => (&[Mined], Broadcast),
        Change::Finish => (&[Mined], Final),
    };
    from.contains(&state).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGES: [Change; 11] = [
        Change::Sign,
        Change::Cancel,
        Change::Expire,
        Change::Broadcast,
        Change::Raise,
        Change::Wait,
        Change::Mine,
        Change::Revert,
        Change::LoseNonce,
        Change::Reorg,
        Change::Finish,
    ];

    fn reachable(state: TransferState) -> Vec<TransferState> {
        CHANGES.into_iter().filter_map(|change| after(state, change)).collect()
    }

    #[test]
    fn an_end_is_an_end() {
        use TransferState::{Cancelled, Expired, Failed, Final};
        for end in [Cancelled, Expired, Failed, Final] {
            assert!(reachable(end).is_empty(), "{end:?}");
        }
    }

    #[test]
    fn what_is_signed_is_neither_given_up_nor_signed_again() {
        use TransferState::{Broadcast, Mined, Signed};
        for state in [Signed, Broadcast, Mined] {
            for change in [Change::Sign, Change::Cancel, Change::Expire] {
                assert_eq!(after(state, change), None, "{state:?} {change:?}");
            }
        }
    }

    #[test]
    fn a_mined_transfer_is_final_or_goes_back() {
        use TransferState::{Broadcast, Final, Mined};
        assert_eq!(reachable(Mined), [Broadcast, Final]);
    }
}
