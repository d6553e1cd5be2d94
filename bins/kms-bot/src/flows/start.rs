//! `/start`: creates the wallet, or shows it.

use async_trait::async_trait;
use futures::FutureExt;
use kms_types::Usernames;
use kms_types::wire::{Account, CreateAccount, Network};
use teloxide_core::types::MessageId;

use super::{balance, contact, receive};
use crate::assets::Assets;
use crate::chat::incoming::User;
use crate::chat::keyboard::Keyboard;
use crate::clock;
use crate::context::{Answer, Context, HandlerResult, Secrecy, Step};
use crate::flow::{
    Action, Arguments, ArgumentsError, Button, Flow, ParseCallbackError, PressResult,
};
use crate::problems::problem;
use crate::requests;
use crate::texts::{Html, Text, html, text};

const WORD: &str = "start";

pub(crate) struct StartFlow;

impl Flow for StartFlow {
    fn word(&self) -> &'static str {
        WORD
    }

    fn description(&self) -> Text {
        text!("start-description")
    }

    /// A link to the bot, `t.me/bot?start=balance`, may name another command to run, or a command
    /// that the user wrote in a group. Any other link is a link to the bot and no more.
    fn parse(&self, mut arguments: Arguments<'_>) -> Result<Action, ArgumentsError> {
        let link = arguments.words.next().filter(|link| *link != WORD);
        let alone = arguments.clone();
        let alone = alone.expect_none(|context, user| start(context, user, None).boxed())?;
        let Some(link) = link else { return Ok(alone) };
        if requests::is_key(link) {
            let (key, flows) = (link.to_owned(), arguments.flows);
            return Ok(Action::new(move |context, user| {
                run_request(context, user, key, flows).boxed()
            }));
        }
        let Some(linked) = arguments.flows.iter().find(|flow| flow.word() == link) else {
            return Ok(alone);
        };
        let linked = linked.parse(arguments)?;
        if !linked.abandons_step {
            return Ok(linked);
        }
        Ok(Action::new(|context, user| start(context, user, Some(linked)).boxed()))
    }

    fn button(&self, data: &str) -> Result<Box<dyn Button>, ParseCallbackError> {
        if data == "recovery" { Ok(Box::new(HowRecoveryWorks)) } else { Err(ParseCallbackError) }
    }
}

/// Explains how a forgotten password is recovered.
struct HowRecoveryWorks;

#[async_trait]
impl Button for HowRecoveryWorks {
    fn data(&self) -> String {
        format!("{WORD}:recovery")
    }

    async fn press(&self, context: &Context, user: &User, _message: MessageId) -> PressResult {
        context.send(user.id, html!("start-recovery")).await?;
        Ok(None)
    }
}

async fn start(context: &Context, user: &User, linked: Option<Action>) -> HandlerResult {
    match (context.kms.account(user.id.into()).await?, linked) {
        (None, _) => ask_password(context, user).await,
        (Some(account), None) => show(context, user, &account).await,
        (Some(_), Some(linked)) => linked.run(context, user).await,
    }
}

/// Runs a command that the user wrote in a group.
async fn run_request(
    context: &Context,
    user: &User,
    key: String,
    flows: &'static [&'static dyn Flow],
) -> HandlerResult {
    if context.kms.account(user.id.into()).await?.is_none() {
        return ask_password(context, user).await;
    }
    let Some(command) = requests::find(&context.journal, user.id, &key, clock::now()) else {
        return context.send(user.id, html!("start-link-expired")).await;
    };
    let mut words = command.split_whitespace();
    let word = words.next().filter(|word| *word != WORD);
    let Some(flow) = flows.iter().find(|flow| Some(flow.word()) == word) else {
        return start(context, user, None).await;
    };
    // As recent as if the command were typed here: it may name a token that is new.
    let network = context.network.get_recent().await?;
    match flow.parse(Arguments { words, assets: Assets::of(Some(&network)), flows }) {
        Ok(action) => action.run(context, user).await,
        Err(ArgumentsError::Invalid(error)) => context.send(user.id, error.message()).await,
        Err(ArgumentsError::Unexpected | ArgumentsError::Password) => {
            context.send(user.id, html!("unknown-command")).await
        }
    }
}

async fn ask_password(context: &Context, user: &User) -> HandlerResult {
    context.expect(user.id, ChoosePassword);
    context.send(user.id, html!("start-welcome")).await
}

async fn show(context: &Context, user: &User, account: &Account) -> HandlerResult {
    let network = context.network.get().await?;
    let message = wallet(user, &html!("start-existing"), account, &network);
    context.telegram.send(user.id, &message, keyboard()).await?;
    Ok(())
}

/// Waits for the password of the new wallet.
struct ChoosePassword;

#[async_trait]
impl Step for ChoosePassword {
    fn secrecy(&self) -> Secrecy {
        Secrecy::Password
    }

    fn wanted(&self) -> Html {
        html!("wanted-new-password")
    }

    fn resume(&self) -> String {
        WORD.to_owned()
    }

    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let (user, password) = (answer.user, answer.password());
        if let Err(weak) = password.check(&user.names()) {
            return context.send(user.id, weak.message()).await;
        }
        let creating = html!("start-creating");
        let message = context.working(user.id, &creating, WORD.to_owned()).await?;
        let (password_hash, usernames) =
            tokio::join!(password.hash(user.id), usernames(context, user));
        let body = CreateAccount {
            telegram_id: user.id,
            password_hash,
            usernames,
            seen_at: Some(answer.at),
            mobile: None,
            email: None,
        };
        let created =
            async { Ok((context.kms.create_account(&body).await?, context.network.get().await?)) };
        let (text, keyboard) = match created.await {
            Ok((account, network)) => {
                context.end_step(user.id);
                (wallet(user, &html!("start-created"), &account, &network), keyboard())
            }
            Err(error) => {
                let text = problem(&error, None);
                return Ok(context
                    .telegram
                    .edit(user.id, message, &text, Keyboard::none())
                    .await?);
            }
        };
        context.telegram.edit(user.id, message, &text, keyboard).await?;
        contact::offer(context, user).await
    }
}

/// The user's usernames: at least the one that the message showed.
async fn usernames(context: &Context, user: &User) -> Usernames {
    match context.telegram.profile(user.id).await {
        Ok(profile) => profile.usernames,
        Err(_) => user.username.clone().into_iter().collect(),
    }
}

fn wallet(user: &User, title: &Html, account: &Account, network: &Network) -> Html {
    let hint = match (&account.username, &user.username) {
        (Some(name), _) => html!("start-has-username", username = name),
        // The server does not bind it to the wallet yet: a newer report decides.
        (None, Some(_)) => Html::default(),
        (None, None) => html!("start-no-username"),
    };
    html!(
        "start-wallet",
        title = title,
        address = account.address,
        network = &network.name,
        hint = hint
    )
}

fn keyboard() -> Keyboard {
    Keyboard::row([receive::open_button(), balance::open_button()])
        .and_row([(text!("start-recovery-button"), HowRecoveryWorks.data())])
}
