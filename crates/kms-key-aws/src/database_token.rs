//! Passwords of RDS roles: tokens of AWS IAM, valid for fifteen minutes.

use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;

use crate::http;

const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Makes tokens with the role of the task or machine.
#[derive(Clone, Debug)]
pub struct DatabaseTokens {
    credentials: SharedCredentialsProvider,
    region: String,
}

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

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseTokenError {
    /// AWS' tools find no region.
    #[error("no AWS region; set AWS_REGION")]
    Region,
    /// AWS' tools find no credentials.
    #[error("no AWS credentials")]
    Credentials(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The request cannot be signed.
    #[error("the token cannot be signed")]
    Signing(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl DatabaseTokens {
    /// Finds region and credentials as AWS' own tools do. Calls no service.
    ///
    /// # Errors
    /// When there are none.
    pub async fn from_environment() -> Result<Self, DatabaseTokenError> {
        let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http());
        Self::new(&loader.load().await)
    }

    /// Makes tokens with this region and these credentials.
    ///
    /// # Errors
    /// When the configuration has none.
    pub fn new(aws: &SdkConfig) -> Result<Self, DatabaseTokenError> {
        let region = aws.region().ok_or(DatabaseTokenError::Region)?.to_string();
        let missing = || DatabaseTokenError::Credentials("none is configured".into());
        Ok(Self { credentials: aws.credentials_provider().ok_or_else(missing)?, region })
    }

    /// Returns a token for this role, valid from `now` on.
    ///
    /// # Errors
    /// When the credentials cannot be fetched.
    pub async fn token(
        &self,
        role: &DatabaseRole,
        now: SystemTime,
    ) -> Result<String, DatabaseTokenError> {
        let credentials = self.credentials.provide_credentials().await;
        let credentials =
            credentials.map_err(|error| DatabaseTokenError::Credentials(error.into()))?;
        let signing =
            |error: Box<dyn std::error::Error + Send + Sync>| DatabaseTokenError::Signing(error);
        let mut settings = SigningSettings::default();
        settings.expires_in = Some(LIFETIME);
        settings.signature_location = SignatureLocation::QueryParams;
        let identity = credentials.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("rds-db")
            .time(now)
            .settings(settings)
            .build()
            .map_err(|error| signing(error.into()))?
            .into();
        let DatabaseRole { host, port, user } = role;
        let user = percent_encoded(user);
        let token = format!("{host}:{port}/?Action=connect&DBUser={user}");
        let url = format!("https://{token}");
        let request =
            SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(&[]))
                .map_err(|error| signing(error.into()))?;
        let (signed, _) =
            sign(request, &params).map_err(|error| signing(error.into()))?.into_parts();
        let added = signed.params().iter();
        Ok(added.fold(token, |token, (name, value)| {
            format!("{token}&{name}={}", percent_encoded(value))
        }))
    }
}

/// Encodes all but the unreserved characters of RFC 3986.
fn percent_encoded(text: &str) -> String {
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

    use aws_config::Region;
    use aws_credential_types::Credentials;

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
