//! The API, call by call.

use std::fmt;
use std::time::Duration;

use kms_types::wire::{
    Account, Balance, ChangeEmail, ChangeMobile, ChangePassword, CompleteRecovery, ConfirmCode,
    ConfirmTransfer, CreateAccount, EventPage, ExportKey, ExportedKey, HistoryPage, NameRecord,
    Network, QuoteTransfer, Recovery, RequestRecovery, SeenUsername, SetLimit, SpendingLimits,
    Transfer,
};
use kms_types::{AccountRef, EventCursor, Problem, RecoveryId, TransferId, Username};
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

/// A token of `kms-server token new`. Zeroized when dropped; `Debug` shows nothing.
pub struct BearerToken(Zeroizing<String>);

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The operating system's authorities.
    System,
    /// These alone: PEM, one or more.
    Pinned(String),
}

/// Which page of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn<'a> {
    /// The newest.
    Newest,
    /// What is older: `next` of a page.
    Older(&'a str),
    /// What is newer: `prev` of a page.
    Newer(&'a str),
}

/// A client of one server. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    authorization: reqwest::header::HeaderValue,
}

impl Client {
    /// A client that speaks TLS 1.3 to `https://host:port`.
    ///
    /// # Errors
    /// When the URL is not `https://`, or the certificates or the token can not be used.
    #[expect(clippy::needless_pass_by_value, reason = "the token is not needed any more")]
    pub fn new(url: &str, token: BearerToken, trust: Trust) -> Result<Self, ClientError> {
        let base: Url =
            url.parse().map_err(|_secret| ClientError::Setup("the server's URL is not a URL"))?;
        if base.scheme() != "https" {
            return Err(ClientError::Setup("the server's URL must begin with https://"));
        }
        // Fails only if one is installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        let builder = match trust {
            Trust::System => builder.tls_version_min(reqwest::tls::Version::TLS_1_3),
            Trust::Pinned(pem) => builder.tls_backend_preconfigured(pinned(&pem)?),
        };
        let http = builder.build().map_err(ClientError::Unreachable)?;
        let text = Zeroizing::new(format!("Bearer {}", *token.0));
        let mut authorization = reqwest::header::HeaderValue::from_str(&text)
            .map_err(|_secret| ClientError::Setup("the token has characters that no token has"))?;
        authorization.set_sensitive(true);
        Ok(Self { http, base, authorization })
    }

    /// Makes a wallet, or finds the one that the user has under this password.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn create_account(&self, body: &CreateAccount) -> Result<Account, ClientError> {
        self.send(Method::POST, &["accounts"], body).await
    }

    /// An account; `None` if there is none.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn account(&self, account: AccountRef) -> Result<Option<Account>, ClientError> {
        found(self.get(&["accounts", &account.to_string()], &[]).await)
    }

    /// Replaces the password.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn change_password(
        &self,
        account: AccountRef,
        body: &ChangePassword,
    ) -> Result<(), ClientError> {
        let path = ["accounts", &account.to_string(), "password"];
        self.send_without_answer(Method::PUT, &path, body).await
    }

    /// Reports what an update showed of its sender's name.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn seen_username(
        &self,
        account: AccountRef,
        body: &SeenUsername,
    ) -> Result<(), ClientError> {
        let path = ["accounts", &account.to_string(), "username"];
        self.send_without_answer(Method::PUT, &path, body).await
    }

    /// The wallet's key as a file for other wallets, under a new passphrase.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn export(
        &self,
        account: AccountRef,
        body: &ExportKey,
    ) -> Result<ExportedKey, ClientError> {
        self.send(Method::POST, &["accounts", &account.to_string(), "export"], body).await
    }

    /// Asks for a recovery of a forgotten password. May be repeated.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn request_recovery(
        &self,
        account: AccountRef,
        body: &RequestRecovery,
    ) -> Result<Recovery, ClientError> {
        self.send(Method::POST, &["accounts", &account.to_string(), "recoveries"], body).await
    }

    /// The account's recovery that has not ended; `None` if there is none, or no account.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn recovery(&self, account: AccountRef) -> Result<Option<Recovery>, ClientError> {
        found(self.get(&["accounts", &account.to_string(), "recovery"], &[]).await)
    }

    /// Confirms the code that was sent by e-mail.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn confirm_recovery(
        &self,
        account: AccountRef,
        id: RecoveryId,
        body: &ConfirmCode,
    ) -> Result<Recovery, ClientError> {
        self.send_to_recovery(account, id, "code", body).await
    }

    /// Cancels a recovery. May be repeated.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn cancel_recovery(
        &self,
        account: AccountRef,
        id: RecoveryId,
    ) -> Result<Recovery, ClientError> {
        self.send_to_recovery(account, id, "cancel", &()).await
    }

    /// Sets the new password of a recovery that is ready. May be repeated.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn complete_recovery(
        &self,
        account: AccountRef,
        id: RecoveryId,
        body: &CompleteRecovery,
    ) -> Result<Recovery, ClientError> {
        self.send_to_recovery(account, id, "complete", body).await
    }

    async fn send_to_recovery(
        &self,
        account: AccountRef,
        id: RecoveryId,
        what: &str,
        body: &impl Serialize,
    ) -> Result<Recovery, ClientError> {
        let (account, id) = (account.to_string(), id.to_string());
        self.send(Method::POST, &["accounts", &account, "recoveries", &id, what], body).await
    }

    /// Notes the mobile number that Telegram showed of the account's own user, or forgets it.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn change_mobile(
        &self,
        account: AccountRef,
        body: &ChangeMobile,
    ) -> Result<(), ClientError> {
        let path = ["accounts", &account.to_string(), "mobile"];
        self.send_without_answer(Method::PUT, &path, body).await
    }

    /// Has a code sent to an e-mail address, or forgets the one there is.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn change_email(
        &self,
        account: AccountRef,
        body: &ChangeEmail,
    ) -> Result<(), ClientError> {
        let path = ["accounts", &account.to_string(), "email"];
        self.send_without_answer(Method::PUT, &path, body).await
    }

    /// Confirms the code that was sent to a new e-mail address.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn confirm_email(
        &self,
        account: AccountRef,
        body: &ConfirmCode,
    ) -> Result<(), ClientError> {
        let path = ["accounts", &account.to_string(), "email", "code"];
        self.send_without_answer(Method::POST, &path, body).await
    }

    /// The wallet's balance.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn balance(&self, account: AccountRef) -> Result<Balance, ClientError> {
        self.get(&["accounts", &account.to_string(), "balance"], &[]).await
    }

    /// A page of what the account paid and received, newest first.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn transfers(
        &self,
        account: AccountRef,
        turn: Turn<'_>,
        limit: u32,
    ) -> Result<HistoryPage, ClientError> {
        let mut query = vec![("limit", limit.to_string())];
        match turn {
            Turn::Newest => {}
            Turn::Older(before) => query.push(("before", before.to_owned())),
            Turn::Newer(after) => query.push(("after", after.to_owned())),
        }
        self.get(&["accounts", &account.to_string(), "transfers"], &query).await
    }

    /// What the account may spend in 24 hours.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn limits(&self, account: AccountRef) -> Result<SpendingLimits, ClientError> {
        self.get(&["accounts", &account.to_string(), "limits"], &[]).await
    }

    /// Changes what the account's owner wants to spend at most.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn set_limit(
        &self,
        account: AccountRef,
        body: &SetLimit,
    ) -> Result<SpendingLimits, ClientError> {
        self.send(Method::PUT, &["accounts", &account.to_string(), "limits"], body).await
    }

    /// What a transfer would cost.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn quote(&self, body: &QuoteTransfer) -> Result<Transfer, ClientError> {
        self.send(Method::POST, &["transfers"], body).await
    }

    /// Signs and sends a transfer. May be repeated.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn confirm(
        &self,
        id: TransferId,
        body: &ConfirmTransfer,
    ) -> Result<Transfer, ClientError> {
        self.send(Method::POST, &["transfers", &id.to_string(), "confirm"], body).await
    }

    /// Gives up a quote.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn cancel(&self, id: TransferId) -> Result<Transfer, ClientError> {
        self.send(Method::POST, &["transfers", &id.to_string(), "cancel"], &()).await
    }

    /// A transfer as it stands; `None` if there is none.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn transfer(&self, id: TransferId) -> Result<Option<Transfer>, ClientError> {
        found(self.get(&["transfers", &id.to_string()], &[]).await)
    }

    /// Who holds a name; `None` if nobody here.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn name(&self, name: &Username) -> Result<Option<NameRecord>, ClientError> {
        found(self.get(&["names", name.as_str()], &[]).await)
    }

    /// The chain that money moves on.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn network(&self) -> Result<Network, ClientError> {
        self.get(&["network"], &[]).await
    }

    /// What happened after a place in the stream, waiting up to `wait` (60 s at most) for it.
    /// Giving `after` acknowledges everything up to it.
    ///
    /// # Errors
    /// As the server refuses, or when it does not answer.
    pub async fn events(
        &self,
        after: Option<EventCursor>,
        wait: Duration,
    ) -> Result<EventPage, ClientError> {
        let mut query = vec![("wait", wait.as_secs().to_string())];
        query.extend(after.map(|after| ("after", after.to_string())));
        let request = self.request(Method::GET, &["events"], &query)?.timeout(TIMEOUT + wait);
        read(request).await
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, ClientError> {
        read(self.request(Method::GET, path, query)?).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        read(self.request(method, path, &[])?.json(body)).await
    }

    async fn send_without_answer(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<(), ClientError> {
        answer(self.request(method, path, &[])?.json(body)).await.map(drop)
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
            .push("v1")
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url).timeout(TIMEOUT);
        Ok(request.header(reqwest::header::AUTHORIZATION, self.authorization.clone()))
    }
}

async fn answer(request: RequestBuilder) -> Result<Response, ClientError> {
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
    let response = answer(request).await?;
    let status = response.status().as_u16();
    response.json().await.map_err(|error| {
        if error.is_decode() { ClientError::BadAnswer { status } } else { unreachable(error) }
    })
}

/// The URL holds ids of people, which do not belong into logs.
fn unreachable(error: reqwest::Error) -> ClientError {
    ClientError::Unreachable(error.without_url())
}

fn found<T>(result: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
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
    fn refuses_what_would_not_be_safe() {
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
