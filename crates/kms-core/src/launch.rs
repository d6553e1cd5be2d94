//! Openings of the vault page: Telegram signs who opened it, when, and for what. Parsing and
//! verification; this module reads no clock and no store.
//!
//! The signature covers the bot, the user, the time and the start parameter, and not the origin of
//! the page: an attacker with a bot's token can collect openings under that bot. So the bots that
//! count are configured, and their tokens are stored nowhere.

mod init_data;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kms_types::{LaunchKey, Purpose, PurposeError, TelegramId, Timestamp, Username};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use self::init_data::Fields;
use crate::api_token::HashedToken;

/// How old an opening may be when the server first sees it.
const FRESH_FOR: Duration = Duration::from_secs(300);

/// How far ahead of this server's clock Telegram's may be.
const AHEAD: Duration = Duration::from_secs(60);

/// The public key that signs openings.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TelegramKey([u8; 32]);

/// The text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected production, test, or a public key as 64 hexadecimal digits")]
pub struct TelegramKeyError;

/// Why an opening is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// It does not have the form of Telegram's.
    #[error("this opening of the page is malformed: {0}")]
    Malformed(&'static str),
    /// Telegram did not sign it for one of the configured bots.
    #[error("this opening of the page is not signed by Telegram for this service")]
    Signature,
    /// It was signed too long ago.
    #[error("this opening of the page is too old; open the page again")]
    TooOld,
    /// It was signed in the future.
    #[error("this opening of the page is from the future; check the server's clock")]
    TooEarly,
    /// The start parameter names no purpose.
    #[error("the link has no known purpose; open the page from the chat")]
    NoPurpose(#[from] PurposeError),
}

/// SHA-256 of what Telegram signed: the identity of an opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaunchId([u8; 32]);

/// What Telegram signed and its signature, which show the opening to anyone with the public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchProof {
    /// The signed text.
    pub message: String,
    /// The signature.
    pub signature: [u8; 64],
}

/// An opening whose signature was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Its identity.
    pub id: LaunchId,
    /// The bot that the page belongs to.
    pub bot: TelegramId,
    /// Who opened the page.
    pub user: TelegramId,
    /// The username of that user at that time, the first of several.
    pub username: Option<Username>,
    /// What for.
    pub purpose: Purpose,
    /// When Telegram signed it.
    pub signed_at: Timestamp,
    /// What shows all this.
    pub proof: LaunchProof,
}

/// Verifies openings of the pages of these bots.
#[derive(Clone, Debug)]
pub struct LaunchVerifier {
    /// The key that signs them.
    pub key: TelegramKey,
    /// The bots whose Mini App is the vault page. Without any, every opening is refused.
    pub bots: Vec<TelegramId>,
}

/// The field `user`.
#[derive(Deserialize)]
struct User {
    id: TelegramId,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    is_bot: bool,
}

impl TelegramKey {
    /// Whether Telegram has published it.
    #[must_use]
    pub fn is_published(self) -> bool {
        [Self::PRODUCTION, Self::TEST].contains(&self)
    }

    /// The key of Telegram.
    pub const PRODUCTION: Self = Self([
        0xe7, 0xbf, 0x03, 0xa2, 0xfa, 0x46, 0x02, 0xaf, 0x45, 0x80, 0x70, 0x3d, 0x88, 0xdd, 0xa5,
        0xbb, 0x59, 0xf3, 0x2e, 0xd8, 0xb0, 0x2a, 0x56, 0xc1, 0x87, 0xfe, 0x7d, 0x34, 0xca, 0xed,
        0x24, 0x2d,
    ]);
    /// The key of Telegram's test environment.
    pub const TEST: Self = Self([
        0x40, 0x05, 0x50, 0x58, 0xa4, 0xee, 0x38, 0x15, 0x6a, 0x06, 0x56, 0x2e, 0x52, 0xee, 0xce,
        0x92, 0xa7, 0x71, 0xbc, 0xd8, 0x34, 0x6a, 0x8c, 0x46, 0x15, 0xcb, 0x73, 0x76, 0xed, 0xdf,
        0x72, 0xec,
    ]);
}

impl LaunchVerifier {
    /// Verifies the text that Telegram gave the page. Whether it is fresh is
    /// [another question](Launch::check_time).
    ///
    /// # Errors
    /// When it is malformed, names no purpose, or Telegram did not sign it for a configured bot.
    pub fn verify(&self, init_data: &str) -> Result<Launch, LaunchError> {
        let fields = Fields::parse(init_data)?;
        let encoded = fields.get("signature").ok_or(LaunchError::Malformed("no signature"))?;
        let signature: [u8; 64] = URL_SAFE_NO_PAD
            .decode(encoded)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(LaunchError::Malformed("the signature is not base64url of 64 bytes"))?;
        let text = fields.signed_text();
        let mut proofs = self.bots.iter().map(|bot| {
            let message = format!("{bot}:WebAppData\n{text}");
            (*bot, LaunchProof { message, signature })
        });
        let signed = proofs.find(|(_, proof)| proof.is_signed_by(self.key));
        let (bot, proof) = signed.ok_or(LaunchError::Signature)?;
        Launch::read(bot, &fields, proof)
    }

    /// Verifies a stored proof, of whatever age.
    ///
    /// # Errors
    /// As [`LaunchVerifier::verify`].
    pub fn verify_proof(&self, proof: &LaunchProof) -> Result<Launch, LaunchError> {
        let (head, text) = proof.message.split_once('\n').ok_or(LaunchError::Signature)?;
        let bot = head.strip_suffix(":WebAppData").and_then(|bot| bot.parse().ok());
        let bot = bot.filter(|bot| self.bots.contains(bot)).ok_or(LaunchError::Signature)?;
        if !proof.is_signed_by(self.key) {
            return Err(LaunchError::Signature);
        }
        Launch::read(bot, &Fields::of_signed_text(text)?, proof.clone())
    }
}

impl LaunchProof {
    fn is_signed_by(&self, TelegramKey(key): TelegramKey) -> bool {
        UnparsedPublicKey::new(&ED25519, key)
            .verify(self.message.as_bytes(), &self.signature)
            .is_ok()
    }

    /// The identity of the opening.
    #[must_use]
    pub fn id(&self) -> LaunchId {
        LaunchId(Sha256::digest(self.message.as_bytes()).into())
    }
}

impl Launch {
    fn read(bot: TelegramId, fields: &Fields, proof: LaunchProof) -> Result<Self, LaunchError> {
        let user = fields.get("user").ok_or(LaunchError::Malformed("no user"))?;
        let user: User =
            serde_json::from_str(user).map_err(|_json| LaunchError::Malformed("no such user"))?;
        if user.is_bot {
            return Err(LaunchError::Malformed("the user is a bot"));
        }
        let at = fields.get("auth_date").ok_or(LaunchError::Malformed("no auth_date"))?;
        let is_number = !at.starts_with('0') && at.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = at.parse::<u32>().ok().filter(|_| is_number);
        let seconds = seconds.ok_or(LaunchError::Malformed("auth_date is not a time"))?;
        Ok(Self {
            id: proof.id(),
            bot,
            user: user.id,
            username: user.username.and_then(|name| name.parse().ok()),
            purpose: fields.get("start_param").unwrap_or_default().parse()?,
            signed_at: Timestamp(i64::from(seconds) * 1_000),
            proof,
        })
    }

    /// Checks that it was signed a moment ago.
    ///
    /// # Errors
    /// When it is too old, or from the future.
    pub fn check_time(&self, now: Timestamp) -> Result<(), LaunchError> {
        if self.signed_at > now.plus(AHEAD) {
            return Err(LaunchError::TooEarly);
        }
        if self.signed_at.plus(FRESH_FOR) < now {
            return Err(LaunchError::TooOld);
        }
        Ok(())
    }
}

/// Returns what is stored of a page's key.
#[must_use]
pub fn hash_of(key: &LaunchKey) -> HashedToken {
    HashedToken::from(<[u8; 32]>::from(Sha256::digest(key.expose())))
}

impl LaunchId {
    /// The bytes of the hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// In lower-case hex, as it is stored and as the audit names it.
impl fmt::Display for LaunchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for TelegramKey {
    type Err = TelegramKeyError;

    fn from_str(text: &str) -> Result<Self, TelegramKeyError> {
        match text {
            "production" => Ok(Self::PRODUCTION),
            "test" => Ok(Self::TEST),
            digits => {
                let mut key = [0; 32];
                hex::decode_to_slice(digits, &mut key).map_err(|_digits| TelegramKeyError)?;
                Ok(Self(key))
            }
        }
    }
}

impl TryFrom<String> for TelegramKey {
    type Error = TelegramKeyError;

    fn try_from(text: String) -> Result<Self, TelegramKeyError> {
        text.parse()
    }
}

impl fmt::Debug for TelegramKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PRODUCTION => f.write_str("production"),
            Self::TEST => f.write_str("test"),
            Self(other) => f.write_str(&hex::encode(other)),
        }
    }
}

#[cfg(test)]
mod tests;
