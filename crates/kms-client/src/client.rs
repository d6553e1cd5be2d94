//! The HTTPS client: connection, authentication, requests and responses. The calls of each resource
//! are in a file of their own.

mod accounts;
mod contacts;
mod events;
mod limits;
mod names;
mod recoveries;
mod transfers;

pub use transfers::Page;

use std::fmt;
use std::time::Duration;

use kms_types::{Problem, TraceId};
use reqwest::{Method, RequestBuilder, Response, Url};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::error::ClientError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(30);
/// No request uses a connection that was idle for longer: the server ends those that are idle for
/// 75 seconds, and before a stop it ends each at the next answer (`ops.drain` should be longer).
const MOST_IDLE: Duration = Duration::from_secs(5);

tokio::task_local! {
    static TRACE: TraceId;
}

/// Sends this id with each request of a future, so that the server's log has it, too.
pub async fn traced<T>(id: TraceId, work: impl Future<Output = T>) -> T {
    TRACE.scope(id, work).await
}

/// An API token, as `kms-server token new` prints it. Zeroized on drop; `Debug` shows nothing.
pub struct BearerToken(Zeroizing<String>);

/// Which certificate authorities the client trusts.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Those of the operating system.
    System,
    /// Only these: one or more certificates in PEM.
    Pinned(String),
}

/// A client of one server. Clones share its connections.
///
/// After [`ClientError::Unreachable`] the outcome of a call is unknown. Reads and the calls whose
/// documentation says so may be repeated.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    /// The path of the API.
    prefix: &'static [&'static str],
    authorization: reqwest::header::HeaderValue,
}

impl Client {
    /// Creates a client that connects to `https://host:port` with TLS 1.3. It follows no redirects.
    ///
    /// # Errors
    /// [`ClientError::Setup`] when the URL is not `https://`, or the certificates or the token are
    /// invalid.
    #[expect(clippy::needless_pass_by_value, reason = "the token is moved, so that it is zeroized")]
    pub fn new(url: &str, token: BearerToken, trust: Trust) -> Result<Self, ClientError> {
        let text = Zeroizing::new(format!("Bearer {}", *token.0));
        Self::with(url, &["v1"], &text, trust)
    }

    pub(crate) fn with(
        url: &str,
        prefix: &'static [&'static str],
        authorization: &str,
        trust: Trust,
    ) -> Result<Self, ClientError> {
        let base: Url =
            url.parse().map_err(|_secret| ClientError::Setup("the server's URL is invalid"))?;
        if base.scheme() != "https" {
            return Err(ClientError::Setup("the server's URL must begin with https://"));
        }
        // Fails only if a provider is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(MOST_IDLE)
            .redirect(reqwest::redirect::Policy::none());
        let builder = match trust {
            Trust::System => builder.tls_version_min(reqwest::tls::Version::TLS_1_3),
            Trust::Pinned(pem) => builder.tls_backend_preconfigured(pinned(&pem)?),
        };
        let http = builder.build().map_err(ClientError::Unreachable)?;
        let mut authorization =
            reqwest::header::HeaderValue::from_str(authorization).map_err(|_secret| {
                ClientError::Setup(
                    "the token is invalid; pass the text that `kms-server token new` printed",
                )
            })?;
        authorization.set_sensitive(true);
        Ok(Self { http, base, prefix, authorization })
    }

    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, ClientError> {
        read(self.request(Method::GET, path, query)?).await
    }

    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        read(self.request(method, path, &[])?.json(body)).await
    }

    pub(crate) async fn send_without_response(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<(), ClientError> {
        response(self.request(method, path, &[])?.json(body)).await.map(drop)
    }

    fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<RequestBuilder, ClientError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| ClientError::Setup("the server's URL has no path"))?
            .pop_if_empty()
            .extend(self.prefix)
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url).timeout(TIMEOUT);
        if let Ok(id) = TRACE.try_with(TraceId::to_string) {
            request = request.header(TraceId::HEADER, id);
        }
        Ok(request.header(reqwest::header::AUTHORIZATION, self.authorization.clone()))
    }
}

async fn response(request: RequestBuilder) -> Result<Response, ClientError> {
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let problem = response.json::<Problem>().await;
    Err(match problem {
        Ok(problem) => ClientError::Problem(Box::new(problem)),
        Err(_other) => ClientError::BadAnswer { status: status.as_u16() },
    })
}

async fn read<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, ClientError> {
    json(response(request).await?).await
}

async fn json<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    let status = response.status().as_u16();
    response.json().await.map_err(|error| {
        if error.is_decode() { ClientError::BadAnswer { status } } else { unreachable(error) }
    })
}

/// Removes the URL, which holds ids of users, so that it is not logged.
fn unreachable(error: reqwest::Error) -> ClientError {
    ClientError::Unreachable(error.without_url())
}

pub(crate) fn found<T>(result: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    use kms_types::ErrorCode::{NoSuchAccount, NoSuchRecovery, NoSuchTransfer, UnknownName};
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error.code() {
            Some(NoSuchAccount | NoSuchRecovery | NoSuchTransfer | UnknownName) => Ok(None),
            _ => Err(error),
        },
    }
}

fn pinned(pem: &str) -> Result<ClientConfig, ClientError> {
    let unusable = || ClientError::Setup("the pinned certificates are not PEM certificates");
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_cause| unusable())?;
        roots.add(certificate).map_err(|_cause| unusable())?;
    }
    if roots.is_empty() {
        return Err(unusable());
    }
    Ok(ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(roots)
        .with_no_client_auth())
}

impl From<String> for BearerToken {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(..)")
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("host", &self.base.host_str()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_unsafe_settings() {
        let token = || BearerToken::from("kms_secret".to_owned());
        assert!(Client::new("http://kms", token(), Trust::System).is_err());
        assert!(Client::new("kms", token(), Trust::System).is_err());
        let not_pem = Trust::Pinned("no certificate".to_owned());
        assert!(Client::new("https://kms", token(), not_pem).is_err());
        assert!(
            Client::new("https://kms", BearerToken::from("a\nb".to_owned()), Trust::System)
                .is_err()
        );
    }

    #[test]
    fn debug_shows_no_token() {
        let token = || BearerToken::from("kms_secret".to_owned());
        assert_eq!(format!("{:?}", token()), "BearerToken(..)");
        let client = Client::new("https://kms:8443", token(), Trust::System).unwrap();
        assert!(!format!("{client:?}").contains("secret"));
    }
}
