//! Request bodies: JSON of a bounded size, within a bounded time, into a type; or an error that
//! names the field and quotes nothing of the body.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{Bytes, Path, Payload as Stream, Query};
use actix_web::{FromRequest, HttpRequest};
use kms_types::ErrorCode;
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// Every request of the API is far smaller.
const LIMIT: usize = 16 * 1024;

/// How long a body may take to arrive.
const DEADLINE: Duration = Duration::from_secs(10);

/// A request's JSON body.
pub(crate) struct Json<T>(pub(crate) T);

/// One path segment, parsed.
pub(crate) struct Segment<T>(pub(crate) T);

/// The query string, parsed.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest for Json<T> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let content_type = request.headers().get(CONTENT_TYPE).cloned();
        let stream = Stream::from_request(request, payload);
        Box::pin(async move {
            let is_json = content_type.is_some_and(|value| {
                value.to_str().is_ok_and(|text| {
                    text.split(';').next().is_some_and(|kind| kind.trim() == "application/json")
                })
            });
            if !is_json {
                let detail = "send the body with Content-Type: application/json";
                return Err(ApiError::refused(ErrorCode::MalformedRequest, detail));
            }
            let broken = || ApiError::refused(ErrorCode::MalformedRequest, "the body broke off");
            let stream = stream.await.map_err(|_cause| broken())?;
            let read = tokio::time::timeout(DEADLINE, stream.to_bytes_limited(LIMIT)).await;
            let late = |_elapsed| {
                ApiError::refused(ErrorCode::RequestTimeout, "the body took too long to arrive")
            };
            let large = |_limit| {
                let detail = format!("the body is larger than {LIMIT} bytes");
                ApiError::refused(ErrorCode::BodyTooLarge, detail)
            };
            let body = read.map_err(late)?.map_err(large)?.map_err(|_cause| broken())?;
            parse(&body).map(Self)
        })
    }
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner();
        let detail = without_quotes(&cause.to_string());
        if cause.is_data() {
            // The place in the text helps nobody who sees the field's name.
            let detail = detail.split(" at line ").next().unwrap_or_default().to_owned();
            let field = (path != "." && path != "?").then_some(path);
            ApiError::Refused { code: ErrorCode::InvalidField, detail, field }
        } else {
            ApiError::refused(ErrorCode::MalformedRequest, format!("not JSON: {detail}"))
        }
    })?;
    json.end().map_err(|_trailing| {
        ApiError::refused(ErrorCode::MalformedRequest, "not JSON: there is more after its end")
    })?;
    Ok(parsed)
}

/// What serde quotes of the input stands in double quotes; it may be a secret in a wrong field.
fn without_quotes(message: &str) -> String {
    let mut parts = message.split('"');
    match (parts.next(), parts.next_back()) {
        (Some(before), Some(after)) => format!("{before}…{after}"),
        _ => message.to_owned(),
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Segment<T> {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let name = request.match_info().iter().next().map_or("path", |(name, _)| name).to_owned();
        let parsed = Path::<T>::extract(request).into_inner();
        std::future::ready(
            parsed
                .map(|path| Self(path.into_inner()))
                .map_err(|error| ApiError::field(&name, without_quotes(&error.to_string()))),
        )
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Parameters<T> {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let parsed = Query::<T>::from_query(request.query_string());
        std::future::ready(parsed.map(|query| Self(query.into_inner())).map_err(|error| {
            let text = without_quotes(&error.to_string());
            let detail = text.rsplit("error: ").next().unwrap_or_default();
            ApiError::field("query", detail)
        }))
    }
}

#[cfg(test)]
mod tests {
    use kms_types::wire::CreateAccount;

    use super::*;

    fn refusal(body: &str) -> (ErrorCode, String, Option<String>) {
        match parse::<CreateAccount>(&Bytes::copy_from_slice(body.as_bytes())) {
            Err(ApiError::Refused { code, detail, field }) => (code, detail, field),
            _ => panic!("accepted: {body}"),
        }
    }

    #[test]
    fn names_the_field_and_quotes_nothing() {
        let hash = format!("v1.{}", "ab".repeat(32));
        for (body, code, field) in [
            ("".to_owned(), ErrorCode::MalformedRequest, None),
            ("{".to_owned(), ErrorCode::MalformedRequest, None),
            ("{}{}".to_owned(), ErrorCode::InvalidField, None),
            (
                format!(r#"{{"telegram_id":"{hash}"}}"#),
                ErrorCode::InvalidField,
                Some("telegram_id"),
            ),
            (
                format!(r#"{{"telegram_id":1,"password_hash":"x{hash}"}}"#),
                ErrorCode::InvalidField,
                Some("password_hash"),
            ),
            (format!(r#""{hash}""#), ErrorCode::InvalidField, None),
        ] {
            let (found, detail, named) = refusal(&body);
            assert_eq!((found, named.as_deref()), (code, field), "{body}");
            assert!(!detail.contains("abab"), "{detail}");
        }
        let whole = format!(r#"{{"telegram_id":1,"password_hash":"{hash}"}} x"#);
        assert_eq!(refusal(&whole).0, ErrorCode::MalformedRequest);
    }
}
