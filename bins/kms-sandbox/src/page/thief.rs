//! What an attacker does who has stolen the chat bot: its token, and so its place in the chats.

use bot_api_sim::Person;
use kms_client::{ClientError, hash_password};
use kms_types::wire::{CreateAccount, ExportKey, RequestRecovery};
use kms_types::{ErrorCode, RecoveryId, TelegramId, Usernames};
use serde::Serialize;

use crate::stage::Stage;

/// A user who has never written to the bot.
const STRANGER: i64 = 4_713;
/// What Ann typed on a look-alike page.
const CAUGHT: &str = "orange ladder seldom sings";

/// Something that the attacker tried.
#[derive(Debug, Serialize)]
pub(super) struct Attempt {
    what: &'static str,
    /// What came of it.
    came: String,
    done: bool,
}

impl Attempt {
    fn new<T>(what: &'static str, result: &Result<T, ClientError>) -> Self {
        let came = match result {
            Ok(_) => "done".to_owned(),
            Err(error) => format!("refused: {}", reason(error)),
        };
        Self { what, came, done: result.is_ok() }
    }
}

fn reason(error: &ClientError) -> String {
    match error.code() {
        Some(ErrorCode::Forbidden) => "the bot's token may not do this".to_owned(),
        Some(ErrorCode::InvalidLaunch) => {
            "Telegram signed it for the chat bot, and the page is another bot's".to_owned()
        }
        Some(ErrorCode::NoSuchAccount) => "there is no wallet yet".to_owned(),
        _ => error.to_string(),
    }
}

/// Plays the attacker against Ann and Bob. Nothing of it changes an account.
///
/// # Errors
/// When Telegram cannot sign what the attacker's page receives.
pub(super) async fn play(
    stage: &Stage,
    ann: &Person,
    bob: &Person,
) -> anyhow::Result<Vec<Attempt>> {
    let client = &stage.client;
    let (anns, bobs) = (TelegramId::try_from(ann.id())?, TelegramId::try_from(bob.id())?);
    let stranger = TelegramId::try_from(STRANGER)?;
    let create = CreateAccount {
        telegram_id: stranger,
        password_hash: hash_password(stranger, CAUGHT).await,
        usernames: Usernames::default(),
        seen_at: None,
        mobile: None,
        email: None,
    };
    let export = ExportKey { password_hash: hash_password(anns, CAUGHT).await };
    let recovery = RequestRecovery { id: RecoveryId::random() };
    let mut attempts = vec![
        Attempt::new(
            "Make a wallet for Carol, whose password they know",
            &client.create_account(&create).await,
        ),
        Attempt::new(
            "Export Ann's key with her password, which a look-alike page caught",
            &client.export(anns.into(), &export).await,
        ),
        Attempt::new(
            "Recover Bob's wallet under a password of their own",
            &client.request_recovery(bobs.into(), &recovery).await,
        ),
    ];
    for (purpose, what) in [
        ("x", "Show Ann a page of their own under the chat bot; she opens it, Telegram signs"),
        ("f", "The same with Bob, to recover his wallet"),
    ] {
        let person = if purpose == "x" { ann } else { bob };
        let signed = person.opens_foreign_page(purpose)?;
        attempts.push(Attempt::new(what, &stage.open_signed(&signed).await));
    }
    attempts.push(Attempt::new("Read Ann's balance", &client.balances(anns.into()).await));
    Ok(attempts)
}
