//! The API described by itself: `/openapi.json`, and a page for people at `/docs/`.

use actix_web::web::ServiceConfig;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::SwaggerUi;

use crate::routes::{
    accounts, contacts, events, export, health, limits, names, recoveries, transfers,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Wallet KMS",
        description = "Ethereum wallets for Telegram users: custody, names and transfers.",
    ),
    paths(
        accounts::create,
        accounts::read,
        accounts::change_password,
        export::export,
        accounts::balance,
        accounts::seen_username,
        contacts::change_mobile,
        contacts::change_email,
        contacts::confirm_email,
        recoveries::request,
        recoveries::read,
        recoveries::confirm,
        recoveries::cancel,
        recoveries::complete,
        limits::read,
        limits::set,
        transfers::quote,
        transfers::confirm,
        transfers::cancel,
        transfers::read,
        transfers::list,
        names::resolve,
        names::network,
        events::read,
        health::alive,
        health::ready,
        health::metrics,
    ),
    security(("token" = [])),
    modifiers(&Finish)
)]
struct Api;

struct Finish;

impl Modify for Finish {
    /// The routes know their paths below `/v1`; those of `health` stand beside it.
    fn modify(&self, document: &mut Document) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        let paths = std::mem::take(&mut document.paths.paths);
        document.paths.paths = paths
            .into_iter()
            .map(|(path, item)| match path.as_str() {
                "/healthz" | "/readyz" | "/metrics" => (path, item),
                _ => (format!("/v1{path}"), item),
            })
            .collect();
    }
}

/// Adds the document and its page.
pub(crate) fn configure(config: &mut ServiceConfig) {
    config.service(SwaggerUi::new("/docs/{_:.*}").url("/openapi.json", Api::openapi()));
}
