//! Where an endpoint is, and the header that it is asked with.

use std::fmt;
use std::str::FromStr;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// The URL of an endpoint, and the header of its provider.
#[derive(Clone)]
pub struct EndpointAddress<'a> {
    /// The URL. It may hold the provider's key.
    pub url: &'a str,
    /// A header that every request carries.
    pub header: Option<HttpHeader>,
}

/// An HTTP header, such as `Authorization: Bearer KEY`. Its value is a secret.
#[derive(Clone)]
pub struct HttpHeader(HeaderName, HeaderValue);

/// The text is not an HTTP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a header, as \"Authorization: Bearer KEY\"")]
pub struct HttpHeaderError;

impl HttpHeader {
    pub(super) fn into_map(self) -> HeaderMap {
        HeaderMap::from_iter([(self.0, self.1)])
    }
}

impl FromStr for HttpHeader {
    type Err = HttpHeaderError;

    fn from_str(text: &str) -> Result<Self, HttpHeaderError> {
        let (name, value) = text.split_once(':').ok_or(HttpHeaderError)?;
        let name = name.parse().map_err(|_error| HttpHeaderError)?;
        let mut value: HeaderValue = value.trim().parse().map_err(|_secret| HttpHeaderError)?;
        if value.is_empty() {
            return Err(HttpHeaderError);
        }
        value.set_sensitive(true);
        Ok(Self(name, value))
    }
}

impl<'a> From<&'a str> for EndpointAddress<'a> {
    fn from(url: &'a str) -> Self {
        Self { url, header: None }
    }
}

/// Written by hand: the URL may hold a secret.
impl fmt::Debug for EndpointAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointAddress").field("header", &self.header).finish_non_exhaustive()
    }
}

/// Written by hand: the value is a secret.
impl fmt::Debug for HttpHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpHeader({}: ..)", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_name_and_a_secret_value() {
        let header: HttpHeader = "X-Api-Key:  hunter2 ".parse().unwrap();
        assert_eq!(format!("{header:?}"), "HttpHeader(x-api-key: ..)");
        let map = header.into_map();
        assert_eq!(map.get("x-api-key").unwrap(), "hunter2");
        assert!(map.get("x-api-key").unwrap().is_sensitive());
        for bad in ["", "hunter2", "X-Key:", ": hunter2", "X Key: a", "X-Key: a\r\nHost: b"] {
            assert_eq!(bad.parse::<HttpHeader>().unwrap_err(), HttpHeaderError, "{bad:?}");
        }
    }
}
