//! Parsing of request bodies, paths and queries. A body is JSON of bounded size that arrives in
//! bounded time. An error names the field at fault and never quotes input, which may be a secret.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{self, Bytes, Payload as Stream, Query};
use actix_web::{FromRequest, HttpRequest};
use kms_types::ErrorCode;
use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};
use serde_path_to_error::{Path, Segment as PathSegment};

use crate::error::ApiError;

/// The largest body in bytes; every request of the API is far smaller.
const LIMIT: usize = 8 * 1024;

/// The deadline for the arrival of a body.
const DEADLINE: Duration = Duration::from_secs(10);

/// A request's JSON body.
pub(crate) struct Json<T>(pub(crate) T);

/// The parsed parameters of a path.
pub(crate) struct Segment<T>(pub(crate) T);

/// The parsed query string.
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
            let broken = || {
                ApiError::refused(
                    ErrorCode::MalformedRequest,
                    "the body is incomplete; send it again",
                )
            };
            let stream = stream.await.map_err(|_cause| broken())?;
            let read = tokio::time::timeout(DEADLINE, stream.to_bytes_limited(LIMIT)).await;
            let late = |_elapsed| {
                ApiError::refused(
                    ErrorCode::RequestTimeout,
                    "the body did not arrive in time; send it again",
                )
            };
            let large = |_limit| {
                let detail =
                    format!("the body is larger than {LIMIT} bytes; no request of this API is");
                ApiError::refused(ErrorCode::BodyTooLarge, detail)
            };
            let body = read.map_err(late)?.map_err(large)?.map_err(|_cause| broken())?;
            parse(&body).map(Self)
        })
    }
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    // serde would accept an array as a struct, with its values in the order of the fields.
    if !matches!(body.trim_ascii_start().first(), None | Some(b'{')) {
        let detail = "the body is not a JSON object; send one";
        return Err(ApiError::refused(ErrorCode::MalformedRequest, detail));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().clone();
        let cause = error.into_inner();
        if cause.is_data() {
            data_error::<T>(&path, &cause)
        } else {
            ApiError::refused(ErrorCode::MalformedRequest, format!("not JSON: {cause}"))
        }
    })?;
    json.end().map_err(|_trailing| {
        ApiError::refused(ErrorCode::MalformedRequest, "not JSON: there is text after the object")
    })?;
    Ok(parsed)
}

/// The error of JSON that does not fit `T`. An unknown field is not named: its name is input, and
/// may be a secret in the wrong place.
fn data_error<T: DeserializeOwned>(path: &Path, cause: &serde_json::Error) -> ApiError {
    let fields = fields_of::<T>();
    let (code, named) = (ErrorCode::InvalidField, path.iter().next());
    let field = match named {
        Some(PathSegment::Map { key }) if fields.contains(&key.as_str()) => Some(key.clone()),
        Some(PathSegment::Map { .. }) => {
            let detail = format!("unknown field; expected only {}", fields.join(", "));
            return ApiError::Refused { code, detail, field: None };
        }
        _ => None,
    };
    let mut detail = without_input(&cause.to_string());
    // The field's name says where; the line and column do not help.
    if let Some(place) = detail.rfind(" at line ") {
        detail.truncate(place);
    }
    ApiError::Refused { code, detail, field }
}

/// Removes input from an error of serde. The text before the last "expected" may be input, or
/// shaped by it; the text after it comes from this program, as does a message without "expected".
fn without_input(message: &str) -> String {
    match message.rsplit_once(", expected ") {
        Some((_input, expected)) => format!("expected {expected}"),
        None => message.to_owned(),
    }
}

/// Returns the names of a struct's fields, as its `Deserialize` declares them; none for other
/// types.
fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Fields<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Fields<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("no value"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
            ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &[];
    // Always fails: only the names are of interest.
    let _ = T::deserialize(Fields(&mut fields));
    fields
}

impl<T: DeserializeOwned + 'static> FromRequest for Segment<T> {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let name = request.match_info().iter().next().map_or("path", |(name, _)| name).to_owned();
        let parsed = web::Path::<T>::extract(request).into_inner();
        std::future::ready(
            parsed
                .map(|path| Self(path.into_inner()))
                .map_err(|error| ApiError::field(&name, without_input(&error.to_string()))),
        )
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Parameters<T> {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let parsed = Query::<T>::from_query(request.query_string());
        std::future::ready(parsed.map(|query| Self(query.into_inner())).map_err(|error| {
            let text = without_input(&error.to_string());
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
        let (malformed, invalid) = (ErrorCode::MalformedRequest, ErrorCode::InvalidField);
        for (body, code, field) in [
            ("".to_owned(), malformed, None),
            ("{".to_owned(), malformed, None),
            ("{}{}".to_owned(), invalid, None),
            (format!(r#"{{"telegram_id":"{hash}"}}"#), invalid, Some("telegram_id")),
            (format!(r#"{{"telegram_id":["{hash}"]}}"#), invalid, Some("telegram_id")),
            (format!(r#"{{"telegram_id":{{"{hash}":1}}}}"#), invalid, Some("telegram_id")),
            (
                format!(r#"{{"telegram_id":1,"password_hash":"x{hash}"}}"#),
                invalid,
                Some("password_hash"),
            ),
            (r#"{"usernames":[424242424242]}"#.to_owned(), invalid, Some("usernames")),
            (r#"{"usernames":[-424242424242]}"#.to_owned(), invalid, Some("usernames")),
            (r#"{"usernames":[42424242.4242]}"#.to_owned(), invalid, Some("usernames")),
            (r#"{"usernames":["424242"]}"#.to_owned(), invalid, Some("usernames")),
            (r#"{"seen_at":"at line 4242, expected 4242\""}"#.to_owned(), invalid, Some("seen_at")),
            (format!(r#"{{"{hash}":1}}"#), invalid, None),
            (r#"{"4242`, expected `4242":1}"#.to_owned(), invalid, None),
            (format!(r#""{hash}""#), malformed, None),
            (format!(r#"[1,"{hash}",null,null,null,null]"#), malformed, None),
            (format!(r#"{{"telegram_id":1,"password_hash":"{hash}"}} x"#), malformed, None),
        ] {
            let (found, detail, named) = refusal(&body);
            assert_eq!((found, named.as_deref()), (code, field), "{body}");
            assert!(!detail.contains("abab") && !detail.contains("4242"), "{detail}");
        }
    }

    #[test]
    fn an_unknown_field_lists_the_known_ones() {
        let (_, detail, _) = refusal(r#"{"seed_phrase":"x"}"#);
        assert!(detail.ends_with("telegram_id, password_hash, usernames, seen_at, mobile, email"));
    }
}
