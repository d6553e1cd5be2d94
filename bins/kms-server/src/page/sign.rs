//! The sign by which an owner knows the page: three emoji, shown above every field for a password.
//!
//! A look-alike page does not have it: no bearer token can read it.

use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use kms_types::LaunchKey;
use kms_types::wire::OwnSign;

use super::launched::{Any, Launched};
use crate::error::ApiError;
use crate::routes::accounts;
use crate::state::State;

crate::openapi::resource!(read_sign);

/// How many emoji a sign has.
const LENGTH: usize = 3;

/// Emoji that are not taken for each other, also by their names. Their number divides 256.
const EMOJI: [&str; 64] = [
    "🦊", "🐢", "🐙", "🦉", "🐝", "🦋", "🐳", "🦔", "🐧", "🦒", "🐘", "🦀", "🐌", "🦩", "🐫", "🦖",
    "🌵", "🌻", "🍄", "🌲", "🍀", "🌈", "🌙", "⭐", "⚡", "🔥", "❄️", "🌊", "🏔️", "🌋", "🍎", "🍋",
    "🍇", "🍓", "🍍", "🥕", "🌽", "🍕", "🧀", "🥨", "🍩", "☕", "⛵", "🚲", "🚂", "🚀", "🎈", "⚓",
    "🏠", "⛺", "🔑", "🔔", "🎸", "🥁", "🎺", "🎨", "🎲", "🧩", "⚽", "🏀", "👑", "🎩", "☂️", "💎",
];

/// Returns the sign by which the owner knows the page.
#[utoipa::path(
    operation_id = "page_sign",
    tag = "page",
    security(("launch" = [])),
    responses(
        (status = 200, description = "The sign", body = OwnSign),
        (status = 404, description = "The user has no wallet"),
    )
)]
#[get("/sign")]
async fn read_sign(launched: Launched<Any>, state: Data<State>) -> Result<HttpResponse, ApiError> {
    let account = accounts::find(&state, launched.account()).await?;
    let sign = state.database.sign_of(account.id, random()).await?;
    Ok(HttpResponse::Ok().json(OwnSign { sign }))
}

fn random() -> String {
    let bytes = LaunchKey::random();
    let chosen = bytes.expose().iter().filter_map(|byte| EMOJI.get(usize::from(byte % 64)));
    chosen.take(LENGTH).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn signs_differ_and_have_three_emoji() {
        assert_eq!(EMOJI.iter().collect::<BTreeSet<_>>().len(), EMOJI.len());
        let signs: BTreeSet<_> = (0..100).map(|_| random()).collect();
        assert!(signs.len() > 90, "{signs:?}");
        for sign in signs {
            let shown = EMOJI.iter().map(|emoji| sign.matches(emoji).count()).sum::<usize>();
            assert_eq!(shown, LENGTH, "{sign}");
        }
    }
}
