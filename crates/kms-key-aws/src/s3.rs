//! Calls of S3: signed, retried, and with their errors parsed.

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode,
};
use aws_smithy_xml::decode::{Document, ScopedDecoder, XmlDecodeError, try_data};
use reqwest::{Method, Url};

use crate::database_token::percent_encoded;
use crate::signing::{Signer, SigningError};
use crate::{ATTEMPT_TIMEOUT, ATTEMPTS, CONNECT_TIMEOUT};

/// The wait before the second attempt; each next one is four times as long.
const BACK_OFF: Duration = Duration::from_millis(200);

/// A client of one bucket.
#[derive(Clone, Debug)]
pub(crate) struct S3 {
    http: reqwest::Client,
    signer: Signer,
    /// The URL of the bucket.
    url: String,
}

/// A call.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// Its name in policies and in S3's documentation.
    pub(crate) name: &'static str,
    pub(crate) method: Method,
    /// The object's key; empty for the bucket itself.
    pub(crate) key: &'a str,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: &'a [u8],
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// It could not be signed.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// S3 cannot be reached.
    #[error("{call}: S3 did not answer")]
    Unreachable {
        /// The call.
        call: &'static str,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// S3 refused it.
    #[error("{call}: {code}: {message}")]
    Refused {
        /// The call.
        call: &'static str,
        /// The status of the response.
        status: u16,
        /// The code of the error.
        code: String,
        /// S3's words.
        message: String,
    },
    /// The response is not S3's.
    #[error("{call}: the answer is not S3's")]
    Answer {
        /// The call.
        call: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl S3 {
    /// Uses a bucket at the endpoint of the region, or at the one that AWS' own tools find.
    pub(crate) fn new(bucket: &str, aws: &SdkConfig) -> Result<Self, S3Error> {
        let signer = Signer::new(aws)?;
        let region = signer.region();
        let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
        let url = match aws.endpoint_url() {
            Some(endpoint) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
            None => format!("https://{bucket}.s3.{region}.amazonaws.com{suffix}"),
        };
        // Fails only if a provider is installed already, which is just as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ATTEMPT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|source| S3Error::Unreachable { call: "TLS", source })?;
        Ok(Self { http, signer, url })
    }

    /// Calls until S3 answers or refuses, at most [`ATTEMPTS`] times.
    pub(crate) async fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, S3Error> {
        let mut wait = BACK_OFF;
        for _ in 1..ATTEMPTS {
            match self.attempt(call).await {
                Err(error) if error.is_transient() => tokio::time::sleep(wait).await,
                result => return result,
            }
            wait *= 4;
        }
        self.attempt(call).await
    }

    async fn attempt(&self, call: &Call<'_>) -> Result<Vec<u8>, S3Error> {
        let name = call.name;
        let url = self.url_of(call)?;
        let headers = call.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let body = SignableBody::Bytes(call.body);
        let request = SignableRequest::new(call.method.as_str(), url.as_str(), headers, body)
            .map_err(|error| SigningError::Request(error.into()))?;
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        let signed = self.signer.sign("s3", settings, request, now()).await?;
        let mut request = self.http.request(call.method.clone(), url).body(call.body.to_vec());
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        for (name, value) in signed.headers() {
            request = request.header(name, value);
        }
        let unreachable = |source| S3Error::Unreachable { call: name, source };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(body.into());
        }
        let (code, message) = refusal(&String::from_utf8_lossy(&body)).unwrap_or_default();
        let code = if code.is_empty() { status.to_string() } else { code };
        Err(S3Error::Refused { call: name, status: status.as_u16(), code, message })
    }

    /// Both parts are encoded here, so that what is signed is what is sent.
    fn url_of(&self, call: &Call<'_>) -> Result<Url, S3Error> {
        let key: Vec<_> = call.key.split('/').map(percent_encoded).collect();
        let query =
            call.query.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value)));
        let query: Vec<_> = query.collect();
        let url = format!("{}/{}?{}", self.url, key.join("/"), query.join("&"));
        let parsed = Url::parse(url.trim_end_matches('?'));
        parsed.map_err(|error| SigningError::Request(error.into()).into())
    }
}

#[expect(clippy::disallowed_methods, reason = "a signature is of the moment that it is sent")]
fn now() -> SystemTime {
    SystemTime::now()
}

impl S3Error {
    /// The code of S3's refusal.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether another attempt can succeed. A conflict (409) is one with another writer.
    fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || matches!(status, 409 | 429),
            Self::Signing(_) | Self::Answer { .. } => false,
        }
    }
}

/// Parses an answer, whose root's children `take` is called with.
pub(crate) fn parse(
    call: &'static str,
    xml: &[u8],
    take: impl FnMut(&str, &mut ScopedDecoder<'_, '_>) -> Result<(), XmlDecodeError>,
) -> Result<(), S3Error> {
    let answer = |source| S3Error::Answer { call, source };
    let xml = std::str::from_utf8(xml).map_err(|error| answer(error.into()))?;
    let parsed = Document::new(xml).root_element().and_then(|mut root| children(&mut root, take));
    parsed.map_err(|error| answer(error.into()))
}

/// Calls `take` with the name and the content of each child.
pub(crate) fn children(
    parent: &mut ScopedDecoder<'_, '_>,
    mut take: impl FnMut(&str, &mut ScopedDecoder<'_, '_>) -> Result<(), XmlDecodeError>,
) -> Result<(), XmlDecodeError> {
    while let Some(mut child) = parent.next_tag() {
        let name = child.start_el().local().to_owned();
        take(&name, &mut child)?;
    }
    Ok(())
}

/// The text of an element without children.
pub(crate) fn text(element: &mut ScopedDecoder<'_, '_>) -> Result<String, XmlDecodeError> {
    Ok(try_data(element)?.into_owned())
}

/// The code and the message of an error.
fn refusal(xml: &str) -> Option<(String, String)> {
    let (mut code, mut message) = (String::new(), String::new());
    let parsed = parse("", xml.as_bytes(), |name, element| {
        match name {
            "Code" => code = text(element)?,
            "Message" => message = text(element)?,
            _ => {}
        }
        Ok(())
    });
    parsed.ok().map(|()| (code, message))
}
