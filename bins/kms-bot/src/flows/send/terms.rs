//! What a sender agrees to, and how a transfer remembers its message.

use std::fmt;
use std::str::FromStr;

use kms_types::wire::Transfer;
use kms_types::{EthAddress, TelegramId, Token, Units, Wei};
use sha2::{Digest, Sha256};
use teloxide_core::types::MessageId;

/// The terms of a payment: what the confirm screen shows and the confirmation repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) chain_id: u64,
    pub(crate) to_address: EthAddress,
    pub(crate) token: Option<Token>,
    pub(crate) value: Units,
    pub(crate) max_fee: Wei,
}

impl Terms {
    pub(crate) fn of(transfer: &Transfer) -> Self {
        Self {
            chain_id: transfer.chain_id,
            to_address: transfer.to.address,
            token: transfer.token.clone(),
            value: transfer.value,
            max_fee: transfer.max_fee,
        }
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let Self { chain_id, to_address, token, value, max_fee } = self;
        let mut text = format!("{chain_id} {to_address} {value} {max_fee}");
        if let Some(Token { symbol, address, decimals }) = token {
            text.push_str(&format!(" {symbol} {address} {decimals}"));
        }
        let hash = Sha256::digest(text);
        let mut fingerprint = [0; 8];
        fingerprint.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Fingerprint(fingerprint)
    }
}

/// The first 64 bits of the SHA-256 of the terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 8]);

/// The text is not 16 lower-case hexadecimal digits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ParseFingerprintError;

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, ParseFingerprintError> {
        let bits = u64::from_str_radix(text, 16).map_err(|_cause| ParseFingerprintError)?;
        let parsed = Self(bits.to_be_bytes());
        if parsed.to_string() == text { Ok(parsed) } else { Err(ParseFingerprintError) }
    }
}

/// The reference that the bot stores with a transfer: the message that shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientRef {
    pub(crate) message: MessageId,
    /// Whether the sender asked to send everything, so that a new quote does the same.
    pub(crate) all: bool,
    /// The person who is paid, if the sender named one without a username.
    pub(crate) person: Option<TelegramId>,
}

impl ClientRef {
    /// Parses the reference of a transfer. Transfers of other clients have none of the bot's.
    pub(crate) fn of(transfer: &Transfer) -> Option<Self> {
        let text = transfer.client_ref.as_deref()?.strip_prefix("telegram:")?;
        let (message, rest) = text.split_once(':').unwrap_or((text, ""));
        let (all, person) = match rest.strip_prefix("all") {
            Some(person) => (true, person.trim_start_matches(':')),
            None => (false, rest),
        };
        Some(Self { message: MessageId(message.parse().ok()?), all, person: person.parse().ok() })
    }
}

impl fmt::Display for ClientRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "telegram:{}{}", self.message, if self.all { ":all" } else { "" })?;
        self.person.map_or(Ok(()), |person| write!(f, ":{person}"))
    }
}
