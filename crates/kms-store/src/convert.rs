//! Conversion of columns to parsed types. A value that this program never writes means that the row
//! is corrupt.

use std::fmt::Display;
use std::str::FromStr;

use kms_core::ports::StoreError;
use kms_core::{AlarmContext, RowMac, RowMacError, ServerKeyId, integrity_alarm};

/// The row that a value comes from, for errors.
#[derive(Clone, Copy)]
pub(crate) struct RowRef<'a> {
    pub(crate) table: &'static str,
    pub(crate) key: &'a str,
}

impl RowRef<'_> {
    pub(crate) fn corrupt(self, reason: impl Display) -> StoreError {
        let (table, key) = (self.table, self.key.to_owned());
        StoreError::Corrupt { table, key, reason: reason.to_string() }
    }

    /// Converts the failed verification of the row's MAC.
    pub(crate) fn not_verified(self, error: RowMacError) -> StoreError {
        let (table, key) = (self.table, self.key.to_owned());
        if let RowMacError::Retired(_) = error {
            let what = format_args!("{table} row: {error}");
            integrity_alarm(what, AlarmContext { record: Some(&key), ..AlarmContext::default() });
        }
        match error {
            RowMacError::NoKey(version) => StoreError::NoRowKey { table, key, version },
            RowMacError::Retired(version) => StoreError::RetiredRowKey { table, key, version },
            RowMacError::Mismatch => StoreError::Tampered { table, key },
        }
    }

    pub(crate) fn parse<T: FromStr<Err: Display>>(self, text: &str) -> Result<T, StoreError> {
        text.parse().map_err(|error: T::Err| self.corrupt(error))
    }

    pub(crate) fn parse_some<T: FromStr<Err: Display>>(
        self,
        text: Option<&String>,
    ) -> Result<Option<T>, StoreError> {
        text.map(|text| self.parse(text)).transpose()
    }

    pub(crate) fn convert<S, T: TryFrom<S, Error: Display>>(
        self,
        value: S,
    ) -> Result<T, StoreError> {
        T::try_from(value).map_err(|error| self.corrupt(error))
    }

    pub(crate) fn array<const N: usize>(self, bytes: &[u8]) -> Result<[u8; N], StoreError> {
        self.convert(bytes)
    }

    pub(crate) fn key_id(self, id: i32) -> Result<ServerKeyId, StoreError> {
        let id: u8 = self.convert(id)?;
        self.convert(id)
    }

    pub(crate) fn mac(self, key: i32, tag: &[u8]) -> Result<RowMac, StoreError> {
        Ok(RowMac { key: self.key_id(key)?, tag: self.array(tag)? })
    }
}
