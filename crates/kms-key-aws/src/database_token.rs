//! Passwords of RDS roles: tokens of AWS IAM, valid for fifteen minutes.

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings};

use crate::from_environment;
use crate::signing::{Signer, SigningError};

const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Makes tokens with the role of the task or machine.
#[derive(Clone, Debug)]
pub struct DatabaseTokens(Signer);

/// A role of a database in RDS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRole {
    /// The host that RDS names; an alias of it does not work.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The role of PostgreSQL, which was granted `rds_iam`.
    pub user: String,
}

impl DatabaseTokens {
    /// Finds region and credentials as AWS' own tools do. Calls no service.
    ///
    /// # Errors
    /// When there are none.
    pub async fn from_environment() -> Result<Self, SigningError> {
        Self::new(&from_environment(None).await)
    }

    /// Makes tokens with this region and these credentials.
    ///
    /// # Errors
    /// When the configuration has none.
    pub fn new(aws: &SdkConfig) -> Result<Self, SigningError> {
        Ok(Self(Signer::new(aws)?))
    }

    /// Returns a token for this role, valid from `now` on.
    ///
    /// # Errors
    /// When the credentials cannot be fetched.
    pub async fn token(
        &self,
        role: &DatabaseRole,
        now: SystemTime,
    ) -> Result<String, SigningError> {
        let mut settings = SigningSettings::default();
        settings.expires_in = Some(LIFETIME);
        settings.signature_location = SignatureLocation::QueryParams;
        let DatabaseRole { host, port, user } = role;
        let user = percent_encoded(user);
        let token = format!("{host}:{port}/?Action=connect&DBUser={user}");
        let url = format!("https://{token}");
        let request =
            SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(&[]))
                .map_err(|error| SigningError::Request(error.into()))?;
        let signed = self.0.sign("rds-db", settings, request, now).await?;
        let added = signed.params().iter();
        Ok(added.fold(token, |token, (name, value)| {
            format!("{token}&{name}={}", percent_encoded(value))
        }))
    }
}

/// Encodes all but the unreserved characters of RFC 3986.
pub(crate) fn percent_encoded(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

    use aws_config::Region;
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::future::ProvideCredentials as Provided;
    use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};

    use super::*;

    /// What botocore's `generate_db_auth_token` returns at this time, with and without a session
    /// token.
    const TOKENS: [(Option<&str>, &str); 2] = [
        (
            None,
            "kms.abc.eu-central-1.rds.amazonaws.com:5432/?Action=connect&DBUser=kms\
             &X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261130%2F\
             eu-central-1%2Frds-db%2Faws4_request&X-Amz-Date=20261130T120000Z&X-Amz-Expires=900\
             &X-Amz-SignedHeaders=host&X-Amz-Signature=\
             c261ca92939caf1d2c29324d1af6509e2573b783bb04ea139fc7ada7d49a2e38",
        ),
        (
            Some("session/token+with=signs"),
            "kms.abc.eu-central-1.rds.amazonaws.com:5432/?Action=connect&DBUser=kms\
             &X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261130%2F\
             eu-central-1%2Frds-db%2Faws4_request&X-Amz-Date=20261130T120000Z&X-Amz-Expires=900\
             &X-Amz-SignedHeaders=host&X-Amz-Security-Token=session%2Ftoken%2Bwith%3Dsigns\
             &X-Amz-Signature=5f6bcf112586e41a7b56660a86fd5f87448da7d40dcf65d5303c4b546266a093",
        ),
    ];

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    /// The role of a task, whose credentials expire at this second. None while it is zero.
    #[derive(Clone, Debug, Default)]
    struct Role {
        expiry: Arc<AtomicU64>,
        fetched: Arc<AtomicU32>,
    }

    impl ProvideCredentials for Role {
        fn provide_credentials<'a>(&'a self) -> Provided<'a>
        where
            Self: 'a,
        {
            self.fetched.fetch_add(1, SeqCst);
            let expiry = self.expiry.load(SeqCst);
            Provided::ready(if expiry == 0 {
                Err(CredentialsError::provider_error("down"))
            } else {
                let expiry = NOW + Duration::from_secs(expiry);
                Ok(Credentials::new("AKIDEXAMPLE", "only signs", None, Some(expiry), "test"))
            })
        }
    }

    #[tokio::test]
    async fn credentials_of_a_role_are_fetched_once_and_again_before_they_expire() {
        let role = Role::default();
        let aws = SdkConfig::builder()
            .region(Region::new("eu-central-1"))
            .credentials_provider(SharedCredentialsProvider::new(role.clone()))
            .build();
        let tokens = DatabaseTokens::new(&aws).unwrap();
        let place =
            DatabaseRole { host: "db.example".to_owned(), port: 5432, user: "kms".to_owned() };
        let token =
            async |second: u64| tokens.token(&place, NOW + Duration::from_secs(second)).await;
        assert!(token(0).await.is_err());
        role.expiry.store(3_600, SeqCst);
        let connections = futures::future::join_all((0..20).map(token)).await;
        assert!(connections.iter().all(Result::is_ok));
        assert_eq!(role.fetched.load(SeqCst), 2);
        role.expiry.store(0, SeqCst);
        assert!(token(3_299).await.is_ok());
        assert_eq!(role.fetched.load(SeqCst), 2);
        // What is left of them is used while the endpoint is down, and not a second longer.
        assert!(token(3_599).await.is_ok());
        assert_eq!(role.fetched.load(SeqCst), 3);
        assert!(token(3_600).await.is_err());
        role.expiry.store(7_200, SeqCst);
        assert!(token(3_601).await.is_ok());
    }

    #[tokio::test]
    async fn tokens_are_those_of_botocore() {
        let role = DatabaseRole {
            host: "kms.abc.eu-central-1.rds.amazonaws.com".to_owned(),
            port: 5432,
            user: "kms".to_owned(),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_040_000);
        for (session, expected) in TOKENS {
            let credentials = Credentials::new(
                "AKIDEXAMPLE",
                "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                session.map(ToOwned::to_owned),
                None,
                "test",
            );
            let aws = SdkConfig::builder()
                .region(Region::new("eu-central-1"))
                .credentials_provider(SharedCredentialsProvider::new(credentials))
                .build();
            let token = DatabaseTokens::new(&aws).unwrap().token(&role, now).await.unwrap();
            let parts = |token: &str| -> BTreeSet<String> {
                token.split(['?', '&']).map(ToOwned::to_owned).collect()
            };
            assert_eq!(parts(&token), parts(expected));
        }
    }
}
