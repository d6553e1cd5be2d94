//! `mail`: how e-mail is sent.

use kms_config::{Secret, ServiceUrl, UrlError, has_userinfo, is_loopback, parse_url};
use serde::Deserialize;

/// How e-mail is sent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailSettings {
    /// The SMTP server, with the user and password for it.
    pub url: SmtpUrl,
    /// The sender: `Wallet <wallet@example.org>`.
    pub from: String,
    /// Where the browsers of e-mail readers reach this server, for the link that cancels a
    /// recovery.
    pub public_url: PublicUrl,
}

/// `smtps://user:password@host`, or `smtp://user:password@host?tls=required` for STARTTLS.
/// Unencrypted only to a loopback address, without a password.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Secret")]
pub struct SmtpUrl(Secret);

/// `https://…` without a slash at its end, so that paths can be appended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicUrl(String);

/// Why a text cannot be used as one of these URLs. Never shows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailUrlError {
    /// It is not a URL with a host.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// E-mail would be sent unencrypted.
    #[error("expected smtps://, or smtp:// with ?tls=required at its end")]
    Plaintext,
    /// Links in e-mail would not be safe, or paths could not be appended.
    #[error("expected https:// and a host, without a slash at the end")]
    Public,
}

impl SmtpUrl {
    /// Returns the URL with its password.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl TryFrom<Secret> for SmtpUrl {
    type Error = MailUrlError;

    fn try_from(text: Secret) -> Result<Self, MailUrlError> {
        let url = parse_url(text.expose())?;
        let is_protected = match url.scheme() {
            "smtps" => true,
            "smtp" => {
                url.query() == Some("tls=required") || is_loopback(&url) && !has_userinfo(&url)
            }
            _ => false,
        };
        if is_protected { Ok(Self(text)) } else { Err(MailUrlError::Plaintext) }
    }
}

impl PublicUrl {
    /// The URL, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PublicUrl {
    type Error = MailUrlError;

    fn try_from(text: String) -> Result<Self, MailUrlError> {
        let url: ServiceUrl = text.parse()?;
        let is_bare = url.as_url().query().or(url.as_url().fragment()).is_none();
        if url.as_url().scheme() != "https" || text.ends_with('/') || !is_bare {
            return Err(MailUrlError::Public);
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}
