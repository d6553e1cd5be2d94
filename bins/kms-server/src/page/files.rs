//! The page itself: one HTML document, modules, a style sheet and texts, embedded in the binary.
//!
//! The files are served below a path that has the SHA-256 of all of them, so that a browser may
//! keep them forever, and modules import each other by their plain names. The document names that
//! path and is never stored.

use std::sync::LazyLock;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpResponse, ResponseError, get};
use kms_types::ErrorCode;
use ring::digest::{Context, SHA256};

use crate::error::ApiError;
use crate::state::State;

const DOCUMENT: &str = include_str!("../../page/index.html");

/// A file of the page: its name, its content type and its content.
type File = (&'static str, &'static str, &'static str);

/// Names files of one content type.
macro_rules! files {
    ($($kind:literal: [$($name:literal),* $(,)?])*) => {
        &[$($(($name, $kind, include_str!(concat!("../../page/", $name))),)*)*]
    };
}

const FILES: &[File] = files! {
    "text/javascript; charset=utf-8": [
        "api.js",
        "app.js",
        "dom.js",
        "format.js",
        "parts.js",
        "password.js",
        "telegram.js",
        "texts.js",
        "theme.js",
        "screens/confirm.js",
        "screens/email.js",
        "screens/export.js",
        "screens/home.js",
        "screens/lift.js",
        "screens/onboard.js",
        "screens/password.js",
        "screens/recover.js",
        "vendor/zxcvbn.js",
    ]
    "text/css; charset=utf-8": ["app.css"]
    "application/json": ["texts/de.json", "texts/en.json", "vendor/words.json"]
};

/// The hash of all names and contents, in hex.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Context::new(&SHA256);
    for (name, _, content) in FILES {
        for part in [name, content] {
            // The length first: what belongs to one part cannot count as another's.
            hash.update(part.len().to_string().as_bytes());
            hash.update(b":");
            hash.update(part.as_bytes());
        }
    }
    hex::encode(hash.finish())
});

/// Adds the routes of the page's files.
pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(show_page).service(show_file);
}

/// The page. It shows nothing of any user.
#[get("/")]
async fn show_page(state: Data<State>) -> HttpResponse {
    // Neither text has a character that HTML gives a meaning to.
    let app = state.app.as_ref().map(ToString::to_string).unwrap_or_default();
    let page = DOCUMENT.replace("{version}", &VERSION).replace("{app}", &app);
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/html; charset=utf-8")).body(page)
}

/// A file of the page, as it is in this binary.
#[get("/page/{version}/{name:.*}")]
async fn show_file(path: Path<(String, String)>) -> HttpResponse {
    let (version, name) = path.into_inner();
    let found = FILES.iter().find(|(known, ..)| version == *VERSION && *known == name);
    let Some((_, kind, content)) = found else {
        return ApiError::refused(ErrorCode::NoSuchRoute, "no such path").error_response();
    };
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, *kind))
        .insert_header((CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .body(*content)
}
