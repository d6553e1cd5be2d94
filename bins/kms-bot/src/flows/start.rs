//! `/start`: creates the wallet, or shows it.

use async_trait::async_trait;
use futures::FutureExt;
use kms_types::wire::{Account, CreateAccount, Network};
use kms_types::{Purpose, TelegramId};
use teloxide_core::types::MessageId;

use super::{balance, contact, receive};
use crate::assets::Assets;
use crate::chat::incoming::User;
use crate::chat::keyboard::Keyboard;
use crate::clock;
use crate::context::{Answer, Context, HandlerError, HandlerResult, Secrecy, Step};
use crate::flow::{
    Action, Arguments, ArgumentsError, Button, Flow, ParseCallbackError, PressResult,
};
use crate::format::date;
use crate::page::{self, OnPage, Question};
use crate::problems::problem;
use crate::requests;
use crate::texts::{Html, Text, html, text};

const WORD: &str = "start";
/// The command with a link.
const COMMAND: &str = "/start ";

type Flows = &'static [&'static dyn Flow];

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
        let flows = arguments.flows;
        let alone = arguments.clone();
        let alone = alone.expect_none(move |context, user| start(context, user, flows).boxed())?;
        let Some(link) = link else { return Ok(alone) };
        let linked = arguments.flows.iter().find(|flow| flow.word() == link);
        if linked.is_none() && !requests::is_key(link) {
            return Ok(alone);
        }
        if let Some(linked) = linked
            && !linked.parse(arguments)?.abandons_step
        {
            return linked.parse(no_arguments(flows));
        }
        let link = link.to_owned();
        Ok(Action::new(move |context, user| follow(context, user, link, flows).boxed()))
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

fn no_arguments(flows: Flows) -> Arguments<'static> {
    Arguments { words: "".split_whitespace(), assets: Assets::of(&[]), flows }
}

async fn start(context: &Context, user: &User, flows: Flows) -> HandlerResult {
    match context.kms.account(user.id.into()).await? {
        None => ask_password(context, user, ChoosePassword { then: None, flows }).await,
        Some(account) => {
            show(context, user, &account).await?;
            if context.journal.chat(user.id).owes_offer {
                contact::offer(context, user).await?;
            }
            Ok(())
        }
    }
}

/// Follows a link: to a command, or to what the user wrote in a group. A newcomer gets a wallet
/// first.
async fn follow(context: &Context, user: &User, link: String, flows: Flows) -> HandlerResult {
    if context.kms.account(user.id.into()).await?.is_none() {
        return ask_password(context, user, ChoosePassword { then: Some(link), flows }).await;
    }
    let Some(linked) = flows.iter().find(|flow| flow.word() == link) else {
        return run_request(context, user, link, flows).await;
    };
    match linked.parse(no_arguments(flows)) {
        Ok(action) => action.run(context, user).await,
        Err(_never) => Ok(()),
    }
}

/// Runs a command that the user wrote in a group.
async fn run_request(context: &Context, user: &User, key: String, flows: Flows) -> HandlerResult {
    let Some(command) = requests::find(&context.journal, user.id, &key, clock::now()) else {
        return context.send(user.id, html!("start-link-expired")).await;
    };
    let mut words = command.split_whitespace();
    let word = words.next().filter(|word| *word != WORD);
    let Some(flow) = flows.iter().find(|flow| Some(flow.word()) == word) else {
        return start(context, user, flows).await;
    };
    // As recent as if the command were typed here: it may name a token that is new.
    let networks = context.network.all_recent().await?;
    match flow.parse(Arguments { words, assets: Assets::of(&networks), flows }) {
        Ok(action) => action.run(context, user).await,
        Err(ArgumentsError::Invalid(error)) => context.send(user.id, error.message()).await,
        Err(ArgumentsError::Unexpected | ArgumentsError::Password) => {
            context.send(user.id, html!("unknown-command")).await
        }
    }
}

async fn ask_password(context: &Context, user: &User, step: ChoosePassword) -> HandlerResult {
    let question = Question {
        purpose: Purpose::NewWallet,
        on_page: html!("start-welcome-on-page"),
        in_chat: html!("start-welcome"),
        step,
    };
    page::ask(context, user, None, question, |_, _| Keyboard::none()).await
}

/// Reports whether the question to resume was for a new wallet that its owner has made on the page
/// since. Then the notice of the wallet answers it.
pub(crate) async fn is_answered(
    context: &Context,
    user: TelegramId,
    resume: &str,
) -> Result<bool, HandlerError> {
    if resume != WORD && !resume.starts_with(COMMAND) {
        return Ok(false);
    }
    let account = context.kms.account(user.into()).await?;
    let is_made = account.is_some_and(|account| account.created_by.is_none());
    if is_made {
        let (purpose, resume) = (Purpose::NewWallet, resume.to_owned());
        context.expect(user, OnPage { purpose, resume, message: None });
    }
    Ok(is_made)
}

/// The message about a wallet that its owner has made on the page.
pub(crate) async fn made_on_page(
    context: &Context,
    user: TelegramId,
) -> Result<Option<(Html, Keyboard)>, HandlerError> {
    let account = context.kms.account(user.into()).await?;
    let Some(account) = account.filter(|account| account.created_by.is_none()) else {
        return Ok(None);
    };
    let (network, user) = (context.network.get().await?, context.telegram.user(user).await?);
    Ok(Some((wallet(&user, &html!("start-created"), &account, &network), keyboard())))
}

/// Goes on once a newcomer has a wallet: offers contacts, and follows the link by which the user
/// came. `end` ends the step which asked for the password, and returns its resume.
pub(crate) async fn go_on(
    context: &Context,
    user: &User,
    end: impl FnOnce() -> Option<String>,
    flows: Flows,
) -> HandlerResult {
    contact::offer(context, user).await?;
    match end().as_deref().and_then(|command| command.strip_prefix(COMMAND)) {
        Some(link) => follow(context, user, link.to_owned(), flows).await,
        None => Ok(()),
    }
}

async fn show(context: &Context, user: &User, account: &Account) -> HandlerResult {
    let network = context.network.get().await?;
    let made = account
        .created_by
        .as_ref()
        .map(|token| html!("start-made-by", date = date(account.created_at), token = token));
    let shown = wallet(user, &html!("start-existing"), account, &network);
    let message = Html::paragraphs([shown, made.unwrap_or_default()]);
    context.telegram.send(user.id, &message, keyboard()).await?;
    Ok(())
}

/// Waits for the password of the new wallet.
struct ChoosePassword {
    /// The link that is followed afterwards.
    then: Option<String>,
    flows: Flows,
}

#[async_trait]
impl Step for ChoosePassword {
    fn secrecy(&self) -> Secrecy {
        Secrecy::Password
    }

    fn wanted(&self) -> Html {
        html!("wanted-new-password")
    }

    fn resume(&self) -> String {
        match &self.then {
            Some(link) => format!("{COMMAND}{link}"),
            None => WORD.to_owned(),
        }
    }

    async fn answer(&self, context: &Context, answer: Answer<'_>) -> HandlerResult {
        let (user, password) = (answer.user, answer.password());
        let usernames = context.telegram.usernames(user).await;
        if let Err(weak) = password.check(&user.names(&usernames)) {
            return context.send(user.id, weak.message()).await;
        }
        let creating = html!("start-creating");
        let message = context.working(user.id, &creating, WORD.to_owned()).await?;
        context.journal.change(user.id, |chat| chat.owes_offer = true);
        let body = CreateAccount {
            telegram_id: user.id,
            password_hash: password.hash(user.id).await,
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
        go_on(context, user, || Some(self.resume()), self.flows).await
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
