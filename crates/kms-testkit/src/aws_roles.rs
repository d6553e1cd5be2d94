//! Stand-ins for where a task of AWS gets the credentials of its role: the endpoint of a container
//! (ECS, EKS), and STS for web identities (EKS). Each answer has new credentials, and the stand-in
//! for AWS KMS accepts the newest ones alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::http::header::AUTHORIZATION;
use actix_web::web::{self, Data, Form};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::json;

use crate::aws;
use crate::aws_kms::AwsKms;

/// What a container or a web identity shows to get credentials.
pub const AWS_IDENTITY: &str = "eyJhbGciOiJub25lIn0.e30.";
/// The role that a web identity may assume.
pub const AWS_ROLE: &str = "arn:aws:iam::111122223333:role/kms";
const SECRET: &str = "only signs";

/// Both endpoints, on one address.
#[derive(Clone, Debug)]
pub struct AwsRoles {
    address: SocketAddr,
    issued: Arc<AtomicUsize>,
}

struct Issuer {
    kms: AwsKms,
    issued: Arc<AtomicUsize>,
    expiration: &'static str,
}

/// The parameters of `AssumeRoleWithWebIdentity`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Assume {
    action: String,
    role_arn: String,
    web_identity_token: String,
}

impl AwsRoles {
    /// Starts on a free port of 127.0.0.1, with credentials that expire at this time (RFC 3339).
    /// Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn start(kms: &AwsKms, expiration: &'static str) -> std::io::Result<Self> {
        let issued = Arc::<AtomicUsize>::default();
        let issuer =
            Data::new(Issuer { kms: kms.clone(), issued: Arc::clone(&issued), expiration });
        let (address, _) = aws::serve(move |app| {
            app.app_data(issuer.clone())
                .route("/credentials", web::get().to(container))
                .route("/", web::post().to(web_identity));
        })?;
        Ok(Self { address, issued })
    }

    /// The URL of the endpoints: that of a container is below it, at `/credentials`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many credentials it has issued.
    #[must_use]
    pub fn issued(&self) -> usize {
        self.issued.load(Ordering::SeqCst)
    }
}

impl Issuer {
    /// The id of the access key, and the session token.
    fn issue(&self) -> (String, String) {
        let number = self.issued.fetch_add(1, Ordering::SeqCst) + 1;
        let (id, session) = (format!("ASIASTANDIN{number}"), format!("session-{number}"));
        self.kms.accept(&id, Some(&session));
        (id, session)
    }
}

async fn container(request: HttpRequest, issuer: Data<Issuer>) -> HttpResponse {
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if shown != Some(AWS_IDENTITY) {
        return HttpResponse::Unauthorized().finish();
    }
    let (id, session) = issuer.issue();
    HttpResponse::Ok().json(json!({
        "AccessKeyId": id,
        "SecretAccessKey": SECRET,
        "Token": session,
        "Expiration": issuer.expiration,
    }))
}

async fn web_identity(assume: Form<Assume>, issuer: Data<Issuer>) -> HttpResponse {
    let Assume { action, role_arn, web_identity_token } = &*assume;
    let is_right = action == "AssumeRoleWithWebIdentity"
        && role_arn == AWS_ROLE
        && web_identity_token == AWS_IDENTITY;
    if !is_right {
        return HttpResponse::BadRequest().finish();
    }
    let (id, session) = issuer.issue();
    let expiration = issuer.expiration;
    HttpResponse::Ok().content_type("text/xml").body(format!(
        r#"<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{id}</AccessKeyId>
<SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>{session}</SessionToken>
<Expiration>{expiration}</Expiration></Credentials><AssumedRoleUser>
<AssumedRoleId>AROASTANDIN:kms</AssumedRoleId><Arn>{AWS_ROLE}</Arn></AssumedRoleUser>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"#
    ))
}
