//! Requests and responses of `/v1`, as JSON (RFC 8259).
//!
//! Amounts are decimal strings of the asset's smallest unit, times are milliseconds since 1970.
//! Requests refuse unknown fields, so that a mistyped optional field is an error and not silently
//! ignored. Responses accept unknown fields and unknown values of enums (`Unknown`), so that a
//! client
//! works with a newer server.

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
