//! A stand-in for S3 in this process: one bucket with versions and object lock, for the calls that
//! an archive of checkpoints needs. It refuses every other call, and every write that the
//! templates of `deploy/aws` refuse.

use std::collections::VecDeque;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::http::header::{AUTHORIZATION, IF_NONE_MATCH, RANGE};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::aws;
use crate::aws_kms::{AWS_ACCESS_KEY_ID, AWS_REGION};

/// The access key id of an auditor, who reads everything and writes nothing. A server has
/// [`AWS_ACCESS_KEY_ID`], and writes below [`S3_PREFIX`].
pub const AWS_AUDITOR_KEY_ID: &str = "AKIDAUDITOR";
/// The bucket.
pub const S3_BUCKET: &str = "kms-checkpoints";
/// What a server may write to.
pub const S3_PREFIX: &str = "checkpoints";
/// So few that each test reads several pages.
const PAGE: usize = 2;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum S3Fault {
    /// Too many requests.
    SlowDown,
    /// An internal error.
    Internal,
    /// The caller's policy does not allow it.
    AccessDenied,
    /// The call is carried out, and its answer is lost.
    AnswerLost,
}

/// A running stand-in.
#[derive(Clone, Debug)]
pub struct AwsS3 {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Oldest first. A version's id is its position.
    versions: Vec<Version>,
    faults: VecDeque<S3Fault>,
    calls: Vec<&'static str>,
    is_unlocked: bool,
    is_down: bool,
}

#[derive(Clone, Debug)]
struct Version {
    key: String,
    /// None for a delete marker.
    body: Option<Bytes>,
}

/// An error of the protocol: its status, its code and its message.
struct Refusal(StatusCode, &'static str, String);

impl AwsS3 {
    /// Starts on a free port of 127.0.0.1, with an empty bucket. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let data = Data::from(Arc::clone(&shared));
        let (address, _) = aws::serve(move |app| {
            app.app_data(data.clone()).default_service(web::to(answer));
        })?;
        Ok(Self { address, shared })
    }

    /// The URL of the endpoint.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The names and texts of all objects, also of those that a delete marker hides.
    #[must_use]
    pub fn objects(&self) -> Vec<(String, String)> {
        let state = self.shared.lock();
        let bodies = state.versions.iter().filter_map(|version| {
            let text = String::from_utf8_lossy(version.body.as_ref()?).into_owned();
            Some((version.key.clone(), text))
        });
        bodies.collect()
    }

    /// Adds an object as an attacker does who has a server's role.
    pub fn plant(&self, key: &str, text: &str) {
        let body = Some(Bytes::from(text.to_owned()));
        self.shared.lock().versions.push(Version { key: key.to_owned(), body });
    }

    /// Hides an object as an administrator can who changed the bucket's policy.
    pub fn hide(&self, key: &str) {
        self.shared.lock().versions.push(Version { key: key.to_owned(), body: None });
    }

    /// Removes object lock, as if the bucket had been made without it.
    pub fn unlock(&self) {
        self.shared.lock().is_unlocked = true;
    }

    /// Makes the next calls fail, one for each fault.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = S3Fault>) {
        self.shared.lock().faults.extend(faults);
    }

    /// Sets whether every call is answered with 503.
    pub fn set_down(&self, is_down: bool) {
        self.shared.lock().is_down = is_down;
    }

    /// The operations that were called, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<&'static str> {
        self.shared.lock().calls.clone()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(status: StatusCode, code: &'static str, message: &str) -> Refusal {
    Refusal(status, code, message.to_owned())
}

fn denied(message: &str) -> Refusal {
    refusal(StatusCode::FORBIDDEN, "AccessDenied", message)
}

async fn answer(request: HttpRequest, body: Bytes, shared: Data<Shared>) -> HttpResponse {
    let fault = {
        let mut state = shared.lock();
        if state.is_down { Some(S3Fault::SlowDown) } else { state.faults.pop_front() }
    };
    let internal = || refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "");
    let result = match fault {
        None => call(&request, &body, &shared),
        Some(S3Fault::SlowDown) => {
            Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "Please reduce your rate"))
        }
        Some(S3Fault::Internal) => Err(internal()),
        Some(S3Fault::AccessDenied) => Err(denied("Access Denied")),
        Some(S3Fault::AnswerLost) => call(&request, &body, &shared).and(Err(internal())),
    };
    result.unwrap_or_else(|Refusal(status, code, message)| {
        HttpResponse::build(status).content_type("application/xml").body(format!(
            "<Error><Code>{code}</Code><Message>{message}</Message><RequestId>1</RequestId></Error>"
        ))
    })
}

fn header<'a>(request: &'a HttpRequest, name: &str) -> &'a str {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The parameters of a query, decoded.
type Query = std::collections::BTreeMap<String, String>;

fn call(request: &HttpRequest, body: &Bytes, shared: &Shared) -> Result<HttpResponse, Refusal> {
    let is_server = signed_by_server(request)?;
    if header(request, "x-amz-content-sha256") != hex(&Sha256::digest(body)) {
        let why = "The provided 'x-amz-content-sha256' header does not match what was computed.";
        return Err(refusal(StatusCode::BAD_REQUEST, "XAmzContentSHA256Mismatch", why));
    }
    let path = request.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    if bucket != S3_BUCKET {
        let why = "The specified bucket does not exist";
        return Err(refusal(StatusCode::NOT_FOUND, "NoSuchBucket", why));
    }
    let query = web::Query::<Query>::from_query(request.query_string());
    let query = query.map_or_else(|_error| Query::new(), web::Query::into_inner);
    let mut state = shared.lock();
    let operation = match (request.method(), key) {
        (&Method::PUT, key) if !key.is_empty() => "PutObject",
        (&Method::GET, "") if query.contains_key("object-lock") => "GetObjectLockConfiguration",
        (&Method::GET, "") if query.contains_key("versions") => "ListObjectVersions",
        (&Method::GET, key) if !key.is_empty() => "GetObject",
        _ => return Err(denied("Access Denied")),
    };
    state.calls.push(operation);
    let is_allowed = match operation {
        "PutObject" => is_server && key.starts_with(&format!("{S3_PREFIX}/")),
        "GetObjectLockConfiguration" => is_server,
        _ => !is_server,
    };
    if !is_allowed {
        return Err(denied(&format!("User is not authorized to perform: s3:{operation}")));
    }
    match operation {
        "PutObject" => put(&mut state, request, key, body),
        "GetObjectLockConfiguration" => lock_configuration(&state),
        "ListObjectVersions" => Ok(list(&state, &query)),
        _ => get(&state, request, key, &query),
    }
}

/// Whether it was a server, and not an auditor.
fn signed_by_server(request: &HttpRequest) -> Result<bool, Refusal> {
    let authorization = header(request, AUTHORIZATION.as_str());
    let credential = authorization.strip_prefix("AWS4-HMAC-SHA256 Credential=");
    let credential = credential.and_then(|rest| rest.split_once(',')).unwrap_or_default().0;
    let (id, scope) = credential.split_once('/').unwrap_or_default();
    let is_scope = scope.ends_with(&format!("/{AWS_REGION}/s3/aws4_request"));
    match id {
        AWS_ACCESS_KEY_ID if is_scope => Ok(true),
        AWS_AUDITOR_KEY_ID if is_scope => Ok(false),
        _ => {
            let why = "The AWS Access Key Id you provided does not exist in our records.";
            Err(refusal(StatusCode::FORBIDDEN, "InvalidAccessKeyId", why))
        }
    }
}

fn put(
    state: &mut State,
    request: &HttpRequest,
    key: &str,
    body: &Bytes,
) -> Result<HttpResponse, Refusal> {
    if header(request, IF_NONE_MATCH.as_str()) != "*" {
        return Err(denied("with an explicit deny in a resource-based policy"));
    }
    if header(request, "x-amz-server-side-encryption") != "AES256" {
        return Err(denied("with an explicit deny in a resource-based policy"));
    }
    let checksum = STANDARD.encode(Sha256::digest(body));
    if header(request, "x-amz-checksum-sha256") != checksum
        || header(request, "x-amz-sdk-checksum-algorithm") != "SHA256"
    {
        let why = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests \
                   with Object Lock parameters";
        return Err(refusal(StatusCode::BAD_REQUEST, "InvalidRequest", why));
    }
    let newest = state.versions.iter().rfind(|version| version.key == key);
    if newest.is_some_and(|version| version.body.is_some()) {
        let why = "At least one of the pre-conditions you specified did not hold";
        return Err(refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", why));
    }
    state.versions.push(Version { key: key.to_owned(), body: Some(body.clone()) });
    Ok(HttpResponse::Ok().insert_header(("x-amz-server-side-encryption", "AES256")).finish())
}

fn lock_configuration(state: &State) -> Result<HttpResponse, Refusal> {
    if state.is_unlocked {
        let why = "Object Lock configuration does not exist for this bucket";
        let code = "ObjectLockConfigurationNotFoundError";
        return Err(refusal(StatusCode::NOT_FOUND, code, why));
    }
    Ok(HttpResponse::Ok().content_type("application/xml").body(
        "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>\
         <DefaultRetention><Mode>COMPLIANCE</Mode><Days>1095</Days></DefaultRetention></Rule>\
         </ObjectLockConfiguration>",
    ))
}

/// A page of versions, in the order of their names.
fn list(state: &State, query: &Query) -> HttpResponse {
    let parameter = |name: &str| query.get(name).cloned().unwrap_or_default();
    let after = (parameter("key-marker"), parameter("version-id-marker").parse().unwrap_or(0));
    let prefix = parameter("prefix");
    let mut found: Vec<_> = (1_usize..)
        .zip(&state.versions)
        .map(|(id, version)| (version.key.clone(), id, version.body.as_ref().map(Bytes::len)))
        .filter(|(key, id, _)| key.starts_with(&prefix) && (key, id) > (&after.0, &after.1))
        .collect();
    found.sort();
    let mut xml = "<ListVersionsResult>".to_owned();
    for (key, id, size) in found.iter().take(PAGE) {
        let kind = if size.is_some() { "Version" } else { "DeleteMarker" };
        let size = size.map_or_else(String::new, |size| format!("<Size>{size}</Size>"));
        let _ = write!(xml, "<{kind}><Key>{key}</Key><VersionId>{id}</VersionId>{size}</{kind}>");
    }
    if let (Some((key, id, _)), true) = (found.get(PAGE - 1), found.len() > PAGE) {
        let _ = write!(
            xml,
            "<IsTruncated>true</IsTruncated><NextKeyMarker>{key}</NextKeyMarker>\
             <NextVersionIdMarker>{id}</NextVersionIdMarker>"
        );
    }
    xml += "</ListVersionsResult>";
    HttpResponse::Ok().content_type("application/xml").body(xml)
}

fn get(
    state: &State,
    request: &HttpRequest,
    key: &str,
    query: &Query,
) -> Result<HttpResponse, Refusal> {
    let id: usize = query.get("versionId").and_then(|id| id.parse().ok()).unwrap_or_default();
    let version = id.checked_sub(1).and_then(|position| state.versions.get(position));
    let body = version.filter(|version| version.key == key);
    let body = body.and_then(|version| version.body.as_ref()).ok_or_else(|| {
        let why = "The specified version does not exist.";
        refusal(StatusCode::NOT_FOUND, "NoSuchVersion", why)
    })?;
    let range = header(request, RANGE.as_str()).strip_prefix("bytes=0-");
    let last: usize = range.and_then(|last| last.parse().ok()).unwrap_or(usize::MAX - 1);
    if body.is_empty() && range.is_some() {
        let why = "The requested range is not satisfiable";
        return Err(refusal(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", why));
    }
    Ok(HttpResponse::PartialContent().body(body.slice(..body.len().min(last + 1))))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
