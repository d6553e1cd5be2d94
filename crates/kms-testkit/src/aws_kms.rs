//! A stand-in for AWS KMS in this process: the AWS JSON 1.1 protocol and real RSAES-OAEP, for the
//! two operations that a KMS key needs. It refuses every other operation.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE};
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pkcs8::EncodePublicKey;
use rsa::PrivateKey;
use rsa::traits::PublicKeyParts;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::aws;

/// The access key id that it accepts at first.
pub const AWS_ACCESS_KEY_ID: &str = "AKIDSTANDIN";
/// The region in which it answers.
pub const AWS_REGION: &str = "eu-central-1";
const ACCOUNT: &str = "111122223333";

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwsFault {
    /// Too many requests.
    Throttling,
    /// The caller's policy does not allow it.
    AccessDenied,
    /// An internal error, with status 500.
    Internal,
    /// The call succeeds after this delay.
    Slow(Duration),
}

/// A running stand-in.
#[derive(Clone, Debug)]
pub struct AwsKms {
    address: SocketAddr,
    shared: Arc<Shared>,
    handle: ServerHandle,
}

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    keys: BTreeMap<String, Key>,
    aliases: BTreeMap<String, String>,
    faults: VecDeque<AwsFault>,
    calls: Vec<String>,
    stopped: bool,
    /// The access key id and the session token that it accepts in place of the first.
    accepted: Option<(String, Option<String>)>,
}

#[derive(Clone)]
struct Key {
    private: PrivateKey,
    enabled: bool,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

/// An error of the protocol: its type and its message.
struct Refusal(&'static str, String);

impl AwsKms {
    /// Starts on a free port of 127.0.0.1, without keys. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let data = Data::from(Arc::clone(&shared));
        let (address, handle) = aws::serve(move |app| {
            app.app_data(data.clone()).default_service(web::to(answer));
        })?;
        Ok(Self { address, shared, handle })
    }

    /// The URL of the endpoint.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Imports an RSA key for encryption and decryption, and returns its ARN.
    #[must_use]
    pub fn import(&self, private: PrivateKey) -> String {
        let mut state = self.shared.lock();
        let number = state.keys.len();
        let id = format!("00000000-0000-4000-8000-{number:012}");
        let arn = format!("arn:aws:kms:{AWS_REGION}:{ACCOUNT}:key/{id}");
        state.keys.insert(arn.clone(), Key { private, enabled: true });
        arn
    }

    /// Points an alias at a key.
    pub fn alias(&self, alias: &str, arn: &str) {
        self.shared.lock().aliases.insert(alias.to_owned(), arn.to_owned());
    }

    /// Enables or disables a key.
    pub fn set_enabled(&self, arn: &str, enabled: bool) {
        if let Some(key) = self.shared.lock().keys.get_mut(arn) {
            key.enabled = enabled;
        }
    }

    /// Accepts this access key with this session token from now on, and no other.
    pub fn accept(&self, id: &str, session: Option<&str>) {
        self.shared.lock().accepted = Some((id.to_owned(), session.map(ToOwned::to_owned)));
    }

    /// Makes the next calls fail, one for each fault.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = AwsFault>) {
        self.shared.lock().faults.extend(faults);
    }

    /// Removes the faults that have not happened yet.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// The operations that were called, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.shared.lock().calls.clone()
    }

    /// Stops it: new connections are refused, and a request on a connection that is still open is
    /// answered 503.
    pub async fn stop(&self) {
        self.shared.lock().stopped = true;
        self.handle.stop(false).await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(request: HttpRequest, body: Bytes, shared: Data<Shared>) -> HttpResponse {
    if shared.lock().stopped {
        return HttpResponse::ServiceUnavailable().finish();
    }
    let fault = shared.lock().faults.pop_front();
    let result = match fault {
        None => call(&request, &body, &shared),
        Some(AwsFault::Slow(time)) => {
            tokio::time::sleep(time).await;
            call(&request, &body, &shared)
        }
        Some(AwsFault::Throttling) => {
            Err(Refusal("ThrottlingException", "Rate exceeded".to_owned()))
        }
        Some(AwsFault::AccessDenied) => Err(Refusal(
            "AccessDeniedException",
            "User is not authorized to perform this operation".to_owned(),
        )),
        Some(AwsFault::Internal) => Err(Refusal("KMSInternalException", String::new())),
    };
    let (status, body) = match result {
        Ok(body) => (StatusCode::OK, body),
        Err(Refusal(kind, message)) => {
            let internal = kind == "KMSInternalException";
            let status =
                if internal { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::BAD_REQUEST };
            (status, json!({ "__type": kind, "message": message }))
        }
    };
    let body = body.to_string();
    HttpResponse::build(status).content_type("application/x-amz-json-1.1").body(body)
}

fn call(request: &HttpRequest, body: &[u8], shared: &Shared) -> Result<Value, Refusal> {
    let header = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    if header(CONTENT_TYPE.as_str()) != "application/x-amz-json-1.1" {
        return Err(Refusal("UnknownOperationException", String::new()));
    }
    let scope = format!("/{AWS_REGION}/kms/aws4_request");
    let authorization = header(AUTHORIZATION.as_str());
    let accepted = shared.lock().accepted.clone();
    let (id, session) = accepted.unwrap_or_else(|| (AWS_ACCESS_KEY_ID.to_owned(), None));
    let credential = authorization
        .strip_prefix(&format!("AWS4-HMAC-SHA256 Credential={id}/"))
        .and_then(|rest| rest.split_once(','));
    let is_session = header("x-amz-security-token") == session.unwrap_or_default();
    if !is_session || !credential.is_some_and(|(day, _)| day.ends_with(&scope)) {
        let why = "The security token included in the request is invalid.".to_owned();
        return Err(Refusal("UnrecognizedClientException", why));
    }
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal("SerializationException", error.to_string()))?;
    let target = header("x-amz-target");
    shared.lock().calls.push(target.trim_start_matches("TrentService.").to_owned());
    match target.as_str() {
        "TrentService.GetPublicKey" => get_public_key(shared, &body),
        "TrentService.Decrypt" => decrypt(shared, &body),
        _ => Err(Refusal("UnknownOperationException", String::new())),
    }
}

fn validation(what: &str) -> Refusal {
    Refusal("ValidationException", what.to_owned())
}

/// Finds an enabled key by its id, ARN or alias.
fn find(shared: &Shared, body: &Value) -> Result<(String, Key), Refusal> {
    let name = body.get("KeyId").and_then(Value::as_str);
    let name = name.ok_or_else(|| validation("KeyId is required for an asymmetric key"))?;
    let state = shared.lock();
    let arn = state.aliases.get(name).map_or(name, String::as_str);
    let found = state.keys.iter().find(|(key, _)| {
        key.as_str() == arn || key.rsplit_once('/').is_some_and(|(_, id)| id == arn)
    });
    let (arn, key) = found
        .ok_or_else(|| Refusal("NotFoundException", format!("Key '{name}' does not exist")))?;
    if !key.enabled {
        return Err(Refusal("DisabledException", format!("{arn} is disabled.")));
    }
    Ok((arn.clone(), key.clone()))
}

fn get_public_key(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let (arn, key) = find(shared, body)?;
    let public = key.private.to_public_key();
    let der = public.to_public_key_der().map_err(|error| validation(&error.to_string()))?;
    Ok(json!({
        "KeyId": arn,
        "PublicKey": STANDARD.encode(der.as_bytes()),
        "KeySpec": format!("RSA_{}", public.n().bit_width()),
        "KeyUsage": "ENCRYPT_DECRYPT",
        "EncryptionAlgorithms": ["RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"],
    }))
}

fn decrypt(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let (arn, key) = find(shared, body)?;
    if body.get("EncryptionContext").is_some_and(|context| !context.is_null()) {
        return Err(validation("EncryptionContext is not supported with asymmetric keys"));
    }
    if body.get("EncryptionAlgorithm").and_then(Value::as_str) != Some("RSAES_OAEP_SHA_256") {
        return Err(Refusal("InvalidKeyUsageException", "Algorithm is incompatible".to_owned()));
    }
    let blob = body.get("CiphertextBlob").and_then(Value::as_str).unwrap_or_default();
    let blob = STANDARD.decode(blob).map_err(|error| validation(&error.to_string()))?;
    if blob.is_empty() || blob.len() > 6_144 {
        return Err(validation("CiphertextBlob has 1 to 6144 bytes"));
    }
    let plain = key.private.oaep_decrypt::<Sha256>(&blob);
    let plain = plain.map_err(|_secret| Refusal("InvalidCiphertextException", String::new()))?;
    Ok(json!({
        "KeyId": arn,
        "Plaintext": STANDARD.encode(plain),
        "EncryptionAlgorithm": "RSAES_OAEP_SHA_256",
    }))
}
