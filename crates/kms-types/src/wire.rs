//! Requests and responses of `/v1` and of `/app/v1`, as JSON (RFC 8259).
//!
//! Amounts are decimal strings of the asset's smallest unit, times are milliseconds since 1970.
//! Requests refuse unknown fields, so that a mistyped optional field is an error and not silently
//! ignored. Responses accept unknown fields and unknown values of enums (`Unknown`), so that a
//! client works with a newer server.

mod account;
mod event;
mod limit;
mod page;
mod recovery;
mod transfer;

pub use account::*;
pub use event::*;
pub use limit::*;
pub use page::*;
pub use recovery::*;
pub use transfer::*;
