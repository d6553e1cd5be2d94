//! The URL of each new connection to the account database.

use std::sync::Arc;

use kms_store::{UrlSource, UrlSourceError};

#[cfg(feature = "aws-kms")]
use crate::clock;
use crate::config::{DatabaseAuth, DatabaseUrl};
use crate::start_error::StartError;

/// Returns where the pool gets its URLs from: from the URL's file, read each time, and with
/// `database.auth = "iam"` with a new token of AWS IAM as the password.
pub(crate) async fn source(url: DatabaseUrl, auth: DatabaseAuth) -> Result<UrlSource, StartError> {
    let reread = move || Ok::<_, UrlSourceError>(url.reread()?);
    match auth {
        DatabaseAuth::Password => Ok(Arc::new(move || Ok(reread()?.expose().to_owned()))),
        #[cfg(feature = "aws-kms")]
        DatabaseAuth::Iam => {
            let tokens = kms_key_aws::DatabaseTokens::from_environment();
            let tokens = tokens.await.map_err(|error| StartError::DatabaseAuth(error.into()))?;
            let runtime = tokio::runtime::Handle::current();
            Ok(Arc::new(move || {
                let url = reread()?;
                let role = iam::role(url.expose())?;
                let token = runtime.block_on(tokens.token(&role, clock::system_time()))?;
                Ok(iam::with_password(url.expose(), &token)?)
            }))
        }
    }
}

#[cfg(feature = "aws-kms")]
mod iam {
    use kms_key_aws::DatabaseRole;
    use url::Url;

    /// Why a URL cannot be used with IAM. Does not show it.
    #[derive(Debug, PartialEq, Eq, thiserror::Error)]
    #[error(
        "database.auth = \"iam\" needs database.url as postgres://ROLE@HOST/NAME, with one host \
         and without a password"
    )]
    pub(super) struct NotForIam;

    /// The role that the URL names.
    pub(super) fn role(url: &str) -> Result<DatabaseRole, NotForIam> {
        let url = Url::parse(url).map_err(|_secret| NotForIam)?;
        let other = ["host", "hostaddr", "port", "user", "password"];
        let names_another = url.query_pairs().any(|(key, _)| other.contains(&&*key));
        if url.password().is_some() || names_another {
            return Err(NotForIam);
        }
        let plain = |text: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            let found = !text.is_empty() && text.chars().all(is_plain);
            found.then(|| text.to_owned()).ok_or(NotForIam)
        };
        let host = plain(url.host_str().unwrap_or_default())?;
        let user = plain(url.username())?;
        Ok(DatabaseRole { host, port: url.port().unwrap_or(5432), user })
    }

    /// The URL with this password.
    pub(super) fn with_password(url: &str, password: &str) -> Result<String, NotForIam> {
        let mut url = Url::parse(url).map_err(|_secret| NotForIam)?;
        url.query_pairs_mut().append_pair("password", password);
        Ok(url.into())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_url_for_iam_names_one_role_at_one_host() {
            let url = "postgres://kms@db.example/kms?sslmode=verify-full";
            let found = role(url).unwrap();
            assert_eq!((&*found.host, found.port, &*found.user), ("db.example", 5432, "kms"));
            assert_eq!(
                with_password(url, "db.example:5432/?a=b&c=%2F").unwrap(),
                format!("{url}&password=db.example%3A5432%2F%3Fa%3Db%26c%3D%252F"),
            );
            for bad in [
                "postgres://kms:password@db.example/kms",
                "postgres://kms@a.example,b.example/kms",
                "postgres://db.example/kms",
                "postgres://kms@/kms?host=db.example",
                "postgres://kms@db.example/kms?user=other",
                "postgres://kms@db.example/kms?hostaddr=10.0.0.1",
                "sqlite:kms.db",
            ] {
                assert_eq!(role(bad), Err(NotForIam), "{bad}");
            }
        }
    }
}
