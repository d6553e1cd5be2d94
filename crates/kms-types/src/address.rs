//! Ethereum addresses, with their EIP-55 checksum.

use std::fmt;
use std::str::FromStr;

use alloy_primitives::{Address, hex};
use serde::{Deserialize, Serialize};

/// A 20-byte Ethereum address. Text is `0x` and 40 hex digits with the checksum of EIP-55.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EthAddress([u8; 20]);

/// Why a text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `0x` and 40 hex digits.
    #[error("an address is 0x and 40 hexadecimal digits")]
    Format,
    /// Mixed case that does not match EIP-55: a digit was probably mistyped.
    #[error("the address's checksum (EIP-55) is wrong; copy it again from its source")]
    Checksum,
}

impl EthAddress {
    /// The zero address, which has no owner: payments to it are lost.
    pub const ZERO: Self = Self([0; 20]);

    /// Returns the address of a secp256k1 public key, given as its coordinates x and y.
    #[must_use]
    pub fn from_public_key(coordinates: &[u8; 64]) -> Self {
        Address::from_raw_public_key(coordinates).into()
    }

    /// Returns the 20 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// Returns `0x` and lower-case hex: the form that stores compare.
    #[must_use]
    pub fn to_lower_hex(self) -> String {
        hex::encode_prefixed(self.0)
    }
}

impl From<[u8; 20]> for EthAddress {
    fn from(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }
}

impl From<Address> for EthAddress {
    fn from(address: Address) -> Self {
        Self(address.into_array())
    }
}

impl From<EthAddress> for Address {
    fn from(address: EthAddress) -> Self {
        Self::from(address.0)
    }
}

impl FromStr for EthAddress {
    type Err = AddressError;

    /// Parses an address. Mixed case must match the checksum; a single case carries none.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let digits = text.strip_prefix("0x").ok_or(AddressError::Format)?;
        if digits.len() != 40 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(AddressError::Format);
        }
        let mut bytes = [0; 20];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_never| AddressError::Format)?;
        let address = Self(bytes);
        let mixed = digits.bytes().any(|b| b.is_ascii_lowercase())
            && digits.bytes().any(|b| b.is_ascii_uppercase());
        if mixed && address.to_string() != text {
            return Err(AddressError::Checksum);
        }
        Ok(address)
    }
}

impl TryFrom<String> for EthAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<EthAddress> for String {
    fn from(address: EthAddress) -> String {
        address.to_string()
    }
}

impl fmt::Display for EthAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Address::from(self.0).to_checksum(None))
    }
}

impl fmt::Debug for EthAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The examples of EIP-55.
    const EIP55: [&str; 8] = [
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
        "0xde709f2102306220921060314715629080e2fb77",
        "0x27b1fdb04752bbc536007a920d24acb045561c26",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ];

    #[test]
    fn formats_and_parses_the_examples_of_eip_55() {
        for text in EIP55 {
            assert_eq!(text.parse::<EthAddress>().unwrap().to_string(), text);
            assert_eq!(text.to_lowercase().parse::<EthAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_other_texts() {
        for (bad, why) in [
            ("", AddressError::Format),
            ("0x", AddressError::Format),
            ("52908400098527886E0F7030069857D2E4169EE7", AddressError::Format),
            ("0X52908400098527886E0F7030069857D2E4169EE7", AddressError::Format),
            ("0x52908400098527886E0F7030069857D2E4169EE", AddressError::Format),
            ("0x52908400098527886E0F7030069857D2E4169EE70", AddressError::Format),
            ("0xg2908400098527886E0F7030069857D2E4169EE7", AddressError::Format),
            ("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD", AddressError::Checksum),
            ("0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed", AddressError::Checksum),
        ] {
            assert_eq!(bad.parse::<EthAddress>(), Err(why), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(bytes: [u8; 20]) {
            let address = EthAddress::from(bytes);
            prop_assert_eq!(address.to_string().parse::<EthAddress>(), Ok(address));
            prop_assert_eq!(address.to_lower_hex().parse::<EthAddress>(), Ok(address));
        }

        #[test]
        fn never_panics(text in "\\PC{0,60}") {
            let _ = text.parse::<EthAddress>();
        }
    }
}
