//! The pages of links in e-mails. A GET changes nothing, because e-mail scanners follow links; a
//! button acts.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
};
use kms_core::audit::Caller;

use crate::request_id::request_id;

/// Loads nothing, runs no script, and cannot be framed.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";

/// The content of a page.
pub(super) struct LinkPage {
    pub(super) status: StatusCode,
    pub(super) title: &'static str,
    pub(super) text: &'static str,
    pub(super) button: Option<LinkButton>,
}

/// A button that acts.
pub(super) struct LinkButton {
    pub(super) label: &'static str,
    /// The path that it posts to; empty for the page's own. No untrusted text.
    pub(super) path: String,
}

/// A person who follows a link, as the caller in the audit.
pub(super) fn caller() -> Caller {
    Caller::new("link in an e-mail", request_id())
}

impl LinkPage {
    pub(super) fn new(title: &'static str, text: &'static str, button: Option<LinkButton>) -> Self {
        Self { status: StatusCode::OK, title, text, button }
    }

    pub(super) fn unknown() -> Self {
        let text = "This link is not valid. Copy the whole link from the e-mail and try again.";
        Self { status: StatusCode::NOT_FOUND, ..Self::new("Unknown link", text, None) }
    }

    pub(super) fn failed(text: &'static str) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { status, ..Self::new("Something went wrong", text, None) }
    }

    pub(super) fn into_response(self) -> HttpResponse {
        let button = self.button.map(|LinkButton { label, path }| {
            // A form without an action posts to the page's own URL.
            let action = match path.as_str() {
                "" => String::new(),
                path => format!(" action=\"{path}\""),
            };
            format!("<form method=\"post\"{action}><button>{label}</button></form>")
        });
        let page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n\
             <main><h1>{title}</h1><p>{text}</p>{button}</main>\n</html>\n",
            title = self.title,
            text = self.text,
            button = button.unwrap_or_default(),
        );
        HttpResponse::build(self.status)
            .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
            .insert_header((CONTENT_SECURITY_POLICY, POLICY))
            // The URL is a secret.
            .insert_header((REFERRER_POLICY, "no-referrer"))
            .insert_header((CACHE_CONTROL, "no-store"))
            .body(page)
    }
}

const STYLE: &str = "
:root { color-scheme: light dark; font: 1.1rem/1.5 system-ui, sans-serif }
body { margin: 0; display: grid; place-items: center; min-height: 100vh }
main { max-width: 30rem; padding: 1.5rem }
h1 { line-height: 1.2 }
button { font: inherit; padding: .6rem 1.2rem; border: 0; border-radius: .5rem;
  background: #b3261e; color: #fff; cursor: pointer }
";
