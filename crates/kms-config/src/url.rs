//! URLs that requests with secrets go to.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use url::{Host, Url};

/// The URL of an HTTP service: `https`, or `http` to a loopback address.
///
/// Holds the parsed URL. Its text is the normalized one, so that every client, whichever parser it
/// has, connects to the host that was checked. It cannot hold a user name or a password, and is
/// shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ServiceUrl(Url);

/// Why a text is not a [`ServiceUrl`]. Never shows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is not a URL with a host.
    #[error("expected a URL with a host, as https://host")]
    Syntax,
    /// It is another scheme, or `http` to another host.
    #[error("expected https://, or http:// to localhost, 127.0.0.1 or [::1]")]
    Plaintext,
    /// It has a user name or a password.
    #[error("expected a URL without a user name and password")]
    UserInfo,
}

impl ServiceUrl {
    /// The normalized URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The parsed URL.
    #[must_use]
    pub fn as_url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for ServiceUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let url = parse_url(text)?;
        if !is_https_or_loopback(&url) {
            return Err(UrlError::Plaintext);
        }
        if has_userinfo(&url) {
            return Err(UrlError::UserInfo);
        }
        Ok(Self(url))
    }
}

impl TryFrom<String> for ServiceUrl {
    type Error = UrlError;

    fn try_from(text: String) -> Result<Self, UrlError> {
        text.parse()
    }
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Parses a URL that has a host.
///
/// Refuses what URL parsers repair silently and differently: white space, control characters and
/// backslashes.
///
/// # Errors
/// [`UrlError::Syntax`].
pub fn parse_url(text: &str) -> Result<Url, UrlError> {
    let is_repaired = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
    if text.contains(is_repaired) {
        return Err(UrlError::Syntax);
    }
    let url = Url::parse(text).map_err(|_secret| UrlError::Syntax)?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(UrlError::Syntax);
    }
    Ok(url)
}

/// Whether traffic to this URL is encrypted or stays on this machine: `https`, or `http` to
/// [loopback](is_loopback).
#[must_use]
pub fn is_https_or_loopback(url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => is_loopback(url),
        _ => false,
    }
}

/// Whether the host is `localhost` or a loopback address (127.0.0.0/8, `::1`).
///
/// `localhost.`, names below `localhost` and IPv4-mapped addresses are not: resolvers may ask the
/// network for them.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        // For schemes that the URL standard does not know, as smtp, addresses are names too.
        Some(Host::Domain(name)) => {
            let address = name.parse::<std::net::Ipv4Addr>();
            name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
        }
        None => false,
    }
}

/// Whether the URL has a user name or a password.
#[must_use]
pub fn has_userinfo(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<String, UrlError> {
        text.parse::<ServiceUrl>().map(|url| url.to_string())
    }

    #[test]
    fn https_goes_anywhere_and_http_to_loopback_only() {
        for (good, normalized) in [
            ("https://api.telegram.org", "https://api.telegram.org/"),
            ("HTTPS://KMS.Example:8443/x", "https://kms.example:8443/x"),
            ("https://10.0.0.1:8443", "https://10.0.0.1:8443/"),
            ("http://127.0.0.1:4566", "http://127.0.0.1:4566/"),
            ("http://127.8.9.10", "http://127.8.9.10/"),
            ("http://127.1:80", "http://127.0.0.1/"),
            ("http://LocalHost:1", "http://localhost:1/"),
            ("http://[::1]:8081", "http://[::1]:8081/"),
            ("http://[0:0:0:0:0:0:0:1]/", "http://[::1]/"),
        ] {
            assert_eq!(parsed(good).as_deref(), Ok(normalized), "{good}");
        }
        for bad in [
            "http://telegram.example",
            "http://10.0.0.1",
            "http://0.0.0.0",
            "http://[::]",
            "http://[::ffff:127.0.0.1]",
            "http://localhost.",
            "http://127.0.0.1.",
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "http://evil.example/localhost",
            "http://evil.example#localhost",
            "http://evil.example?@localhost",
            "ftp://localhost",
            "smtp://localhost",
        ] {
            let expected = match bad {
                // The URL standard reads this one as the address.
                "http://127.0.0.1." => Ok("http://127.0.0.1/".to_owned()),
                _ => Err(UrlError::Plaintext),
            };
            assert_eq!(parsed(bad), expected, "{bad}");
        }
    }

    #[test]
    fn urls_that_parsers_disagree_on_are_refused() {
        for (bad, why) in [
            ("http://localhost:x@evil.example/", UrlError::Plaintext),
            ("http://localhost@evil.example/", UrlError::Plaintext),
            ("http://user@localhost/", UrlError::UserInfo),
            ("http://user:password@localhost/", UrlError::UserInfo),
            ("https://user:password@kms.example/", UrlError::UserInfo),
            ("https://:password@kms.example/", UrlError::UserInfo),
            ("http://localhost\\@evil.example/", UrlError::Syntax),
            ("http://local\thost/", UrlError::Syntax),
            ("http://localhost\n/", UrlError::Syntax),
            (" http://localhost/", UrlError::Syntax),
            ("http://", UrlError::Syntax),
            ("https:", UrlError::Syntax),
            ("localhost:8443", UrlError::Syntax),
            ("kms.example", UrlError::Syntax),
            ("unix:/run/kms", UrlError::Syntax),
            ("", UrlError::Syntax),
        ] {
            assert_eq!(parsed(bad), Err(why), "{bad}");
        }
    }

    proptest! {
        /// Whatever is put together of pieces that confuse parsers: what is accepted goes over TLS
        /// or to loopback, also for a second parser.
        #[test]
        fn two_url_parsers_agree_on_the_host(
            scheme in prop::sample::select(vec!["http://", "https://", "HTTP://", "http:", "//"]),
            pieces in prop::collection::vec(prop::sample::select(vec![
                "localhost", "127.0.0.1", "[::1]", "evil.example", "@", ":", "/", "//", "\\", "#",
                "?", "%40", "%2f", ".", "0", "80", "x", "-", "\u{2488}", "\u{ff20}", "\u{ad}",
            ]), 0..8),
        ) {
            let text = format!("{scheme}{}", pieces.concat());
            if let Ok(url) = text.parse::<ServiceUrl>() {
                prop_assert_eq!(url.as_str().parse::<ServiceUrl>().unwrap(), url.clone());
                // Fragments are not sent.
                let sent = url.as_str().split('#').next().unwrap_or_default();
                let other: http::Uri = sent.parse().unwrap();
                prop_assert_eq!(other.host(), url.as_url().host_str());
                let authority = other.authority().unwrap().as_str();
                prop_assert!(!authority.contains('@'));
                let loopback = ["localhost", "[::1]"];
                prop_assert!(
                    other.scheme_str() == Some("https")
                        || loopback.contains(&other.host().unwrap())
                        || other.host().unwrap().starts_with("127.")
                );
            }
        }
    }
}
