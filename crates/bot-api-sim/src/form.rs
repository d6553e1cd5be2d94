//! The parameters of a call, from a JSON body or a multipart form with files.

use std::collections::HashMap;

use actix_multipart::Multipart;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::Payload;
use actix_web::{FromRequest, HttpRequest};
use futures::StreamExt;
use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// The largest body, in bytes.
const LIMIT: usize = 8 * 1024 * 1024;

/// The parameters and files of one call.
#[derive(Debug, Default)]
pub(crate) struct Form {
    values: Map<String, Value>,
    files: HashMap<String, Vec<u8>>,
}

impl Form {
    pub(crate) async fn read(request: &HttpRequest, payload: Payload) -> Result<Self, Refusal> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.starts_with("multipart/form-data")) {
            return Self::read_multipart(request, payload).await;
        }
        let wrong = || Refusal::bad_request("can't parse the request's body");
        let body = payload.to_bytes_limited(LIMIT).await.map_err(|_limit| wrong())?;
        let body = body.map_err(|_cause| wrong())?;
        if body.is_empty() {
            return Ok(Self::default());
        }
        match serde_json::from_slice(&body) {
            Ok(Value::Object(values)) => Ok(Self { values, files: HashMap::new() }),
            _ => Err(wrong()),
        }
    }

    async fn read_multipart(request: &HttpRequest, payload: Payload) -> Result<Self, Refusal> {
        let wrong = || Refusal::bad_request("can't parse the request's form");
        let mut payload = payload.into_inner();
        let mut parts =
            Multipart::from_request(request, &mut payload).await.map_err(|_cause| wrong())?;
        let mut form = Self::default();
        while let Some(part) = parts.next().await {
            let mut part = part.map_err(|_cause| wrong())?;
            let disposition = part.content_disposition().cloned().ok_or_else(wrong)?;
            let name = disposition.get_name().ok_or_else(wrong)?.to_owned();
            let is_file = disposition.get_filename().is_some();
            let bytes = part.bytes(LIMIT).await.map_err(|_limit| wrong())?;
            let bytes = bytes.map_err(|_cause| wrong())?.to_vec();
            if is_file {
                form.files.insert(name, bytes);
            } else {
                let text = String::from_utf8(bytes).map_err(|_cause| wrong())?;
                form.values.insert(name, Value::String(text));
            }
        }
        Ok(form)
    }

    /// Refuses any other parameter than these.
    pub(crate) fn accepts_only(&self, names: &[&str]) -> Result<(), Refusal> {
        match self.values.keys().find(|name| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(Refusal::bad_request(&format!("{name} is not simulated"))),
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(Value::as_str)
    }

    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        match self.values.get(name)? {
            Value::String(text) => text.parse().ok(),
            value => value.as_i64(),
        }
    }

    /// A structured parameter, which a multipart form carries as JSON text.
    pub(crate) fn json(&self, name: &str) -> Option<Value> {
        match self.values.get(name)? {
            Value::String(text) => serde_json::from_str(text).ok(),
            value => Some(value.clone()),
        }
    }

    /// An uploaded file.
    pub(crate) fn file(&self, name: &str) -> Option<Vec<u8>> {
        let part = self.text(name).and_then(|text| text.strip_prefix("attach://"));
        self.files.get(part.unwrap_or(name)).cloned()
    }
}
