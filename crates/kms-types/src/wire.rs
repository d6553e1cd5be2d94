//! Requests and responses of `/v1`, as JSON.
//!
//! Requests refuse unknown fields, so that a mistyped optional field is an error and not a
//! silent default. Responses do not, so that a server may add to them.

mod account;
mod event;
mod limit;
mod recovery;
mod transfer;

pub use account::{
    Account, AccountState, Balance, ChangePassword, CreateAccount, ExportKey, ExportedKey,
    NameRecord, Network, SeenUsername, TokenBalance,
};
pub use event::{Event, EventKind, EventPage, ExternalDeposit, RecoveryStep};
pub use limit::{LaterLimit, LimitAmount, SetLimit, SpendingLimit, SpendingLimits};
pub use recovery::{
    ChangeEmail, ChangeMobile, CompleteRecovery, ConfirmCode, Recovery, RecoveryState,
    RequestRecovery,
};
pub use transfer::{
    ConfirmTransfer, Direction, HistoryEntry, HistoryPage, Party, QuoteTransfer, Transfer,
    TransferFailure, TransferState, Warning,
};
