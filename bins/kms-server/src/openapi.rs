//! The OpenAPI document of the API, served at `/openapi.json` and as a page at `/docs/`.
//!
//! Each route file describes its own operations and the refusals that are particular to them. What
//! all operations share is added here: the schemes of authentication, the refusals that follow from
//! them and from parameters and bodies, and `application/problem+json` (RFC 9457) as their content
//! type.

use actix_web::http::{Method, StatusCode};
use kms_types::{ErrorCode, EventStream, Problem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, Ref, RefOr, Response, path::Operation};
use utoipa::{OpenApi, ToSchema};
use utoipa_swagger_ui::SwaggerUi;

use crate::error;

/// Declares `configure` and `document` of a route file, from one list of its handlers.
macro_rules! resource {
    ($($handler:ident),+ $(,)?) => {
        #[derive(utoipa::OpenApi)]
        #[openapi(paths($($handler),+))]
        struct Api;

        /// Adds the routes.
        pub(crate) fn configure(config: &mut actix_web::web::ServiceConfig) {
            config$(.service($handler))+;
        }

        /// Returns the description of the routes.
        pub(crate) fn document() -> utoipa::openapi::OpenApi {
            <Api as utoipa::OpenApi>::openapi()
        }
    };
}
pub(crate) use resource;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Wallet KMS",
        description = "Ethereum wallets for Telegram users: custody, names and transfers. \
            Amounts are decimal strings, times are milliseconds since 1970. Errors are problem \
            details (RFC 9457) whose `code` is stable.",
    ),
    // Those that no body refers to: of errors, and of parameters.
    components(schemas(Problem, EventStream))
)]
struct Root;

/// The errors that any operation may return.
const ALWAYS: [ErrorCode; 4] = [
    ErrorCode::Unauthorized,
    ErrorCode::Forbidden,
    ErrorCode::Internal,
    ErrorCode::StoreUnavailable,
];

/// Returns the document of the parts below `/v1`.
pub(crate) fn document(v1: impl Iterator<Item = Document>) -> Document {
    let document = v1.fold(Root::openapi(), |document, part| document.nest("/v1", part));
    let description = "A token with the scope that the operation names. `bot` includes `chat`, and \
        every scope includes `read`";
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description));
    completed(document, "token", SecurityScheme::Http(bearer.build()))
}

/// Returns the document of the parts below `/app/v1`.
pub(crate) fn page_document(parts: impl Iterator<Item = Document>) -> Document {
    // Merged first: two parts may have operations of one path.
    let parts = parts.reduce(Document::merge_from).unwrap_or_default();
    let document = Root::openapi().nest("/app/v1", parts);
    let description = "`Launch` and the key that opened the page, for the purpose that the \
        operation names by its letter, or for any";
    let header = ApiKeyValue::with_description("Authorization", description);
    completed(document, "launch", SecurityScheme::ApiKey(ApiKey::Header(header)))
}

fn completed(mut document: Document, name: &str, scheme: SecurityScheme) -> Document {
    let components = document.components.get_or_insert_with(Default::default);
    components.add_security_scheme(name, scheme);
    for item in document.paths.paths.values_mut() {
        let operations = [(Method::GET, &mut item.get), (Method::PUT, &mut item.put)];
        let operations = operations
            .into_iter()
            .chain([(Method::POST, &mut item.post), (Method::DELETE, &mut item.delete)]);
        for (method, operation) in operations {
            if let Some(operation) = operation {
                complete(&method, operation);
            }
        }
    }
    document
}

/// Returns the services of the document and of its page.
pub(crate) fn page(document: Document) -> SwaggerUi {
    SwaggerUi::new("/docs/{_:.*}").url("/openapi.json", document)
}

/// Adds what follows from the shape of an operation. One without authentication is left alone.
fn complete(method: &Method, operation: &mut Operation) {
    if operation.security == Some(vec![SecurityRequirement::default()]) {
        return;
    }
    let mut codes = ALWAYS.to_vec();
    if operation.parameters.is_some() || operation.request_body.is_some() {
        codes.push(ErrorCode::InvalidField);
    }
    if operation.request_body.is_some() {
        codes.extend([ErrorCode::RequestTimeout, ErrorCode::BodyTooLarge]);
    }
    if *method == Method::GET {
        codes.push(ErrorCode::RateLimited);
    }
    let responses = &mut operation.responses.responses;
    for status in codes.into_iter().map(error::status) {
        let response = || RefOr::T(Response::new(reason(status)));
        responses.entry(status.as_str().to_owned()).or_insert_with(response);
    }
    for (status, response) in responses {
        let is_error = status.starts_with(['4', '5']);
        if let (true, RefOr::T(Response { description, content, .. })) = (is_error, response) {
            if description.is_empty() {
                *description =
                    status.parse::<StatusCode>().map(reason).unwrap_or_default().to_owned();
            }
            let schema = Ref::from_schema_name(Problem::name());
            let problem = ContentBuilder::new().schema(Some(schema));
            content.clear();
            content.insert("application/problem+json".to_owned(), problem.into());
        }
    }
}

/// Describes a status that the operation itself does not describe.
fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "The request is malformed, or a field is invalid; see `field`",
        StatusCode::UNAUTHORIZED => "The token is missing, unknown, expired or revoked",
        StatusCode::FORBIDDEN => "The token's scope does not allow this",
        StatusCode::NOT_FOUND => "The resource does not exist",
        StatusCode::REQUEST_TIMEOUT => "The body did not arrive in time",
        StatusCode::PAYLOAD_TOO_LARGE => "The body is too large",
        StatusCode::TOO_MANY_REQUESTS => "A rate limit is exceeded; see `retry_after`",
        StatusCode::SERVICE_UNAVAILABLE => "A dependency is unavailable; see `code`",
        other => other.canonical_reason().unwrap_or_default(),
    }
}
