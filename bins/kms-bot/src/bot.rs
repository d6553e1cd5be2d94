//! A running bot: polling Telegram, following the server's events.

use std::sync::Arc;
use std::time::Duration;

use kms_client::{BearerToken, Client, ClientError, Trust};
use teloxide_core::payloads::GetUpdatesSetters;
use teloxide_core::requests::Requester;
use teloxide_core::types::{AllowedUpdate, BotCommand, Update};
use teloxide_core::{Bot as Api, RequestError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::command::Name;
use crate::config::Settings;
use crate::incoming::Incoming;
use crate::lanes::Lanes;
use crate::notices::{self, backoff};
use crate::telegram::{Telegram, TelegramError};
use crate::texts;

/// How long one request waits for updates; the HTTP client gives up after 17 seconds.
const POLL_SECONDS: u32 = 10;
/// How long what is under way may go on when the bot stops.
const GRACE: Duration = Duration::from_secs(20);

/// A bot in this process.
#[derive(Debug)]
pub struct Bot {
    username: String,
    stop: watch::Sender<bool>,
    polling: JoinHandle<()>,
}

/// Why a bot did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The server's URL, token or certificates can not be used.
    #[error("server: {0}")]
    Server(#[from] ClientError),
    /// Telegram does not want this bot.
    #[error(transparent)]
    Telegram(#[from] TelegramError),
}

impl Bot {
    /// Asks Telegram who it is, registers the commands, and chats. While Telegram does not
    /// answer it goes on asking; the server may be down.
    ///
    /// # Errors
    /// When a setting can not be used, or Telegram does not know the token.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let (api, kms) = (api(&settings), client(&settings)?);
        let username = greet(&api).await?;
        let app = Arc::new(App::new(Telegram::new(api.clone()), kms, username.clone()));
        let lanes = Lanes::new();
        let (stop, stopping) = watch::channel(false);
        let polling = tokio::spawn(async move {
            let notices = tokio::spawn(notices::follow(Arc::clone(&app), lanes.clone()));
            poll(&api, &app, &lanes, stopping).await;
            notices.abort();
            lanes.finish(GRACE).await;
        });
        Ok(Self { username, stop, polling })
    }

    /// The bot's own username.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// Takes no more updates, finishes what is under way, and ends.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.polling.await;
    }
}

fn api(settings: &Settings) -> Api {
    let api = Api::new(settings.telegram.token.expose());
    match &settings.telegram.api_url {
        Some(url) => api.set_api_url(url.as_url().clone()),
        None => api,
    }
}

pub(crate) fn client(settings: &Settings) -> Result<Client, StartError> {
    let server = &settings.server;
    let token = BearerToken::from(server.token.expose().to_owned());
    let trust = server.ca.clone().map_or(Trust::System, Trust::Pinned);
    Ok(Client::new(server.url.as_str(), token, trust)?)
}

/// The bot's username, asked once.
pub(crate) async fn whoami(settings: &Settings) -> Result<String, StartError> {
    let me = api(settings).get_me().await.map_err(TelegramError::from)?;
    Ok(format!("@{}", me.username()))
}

async fn greet(api: &Api) -> Result<String, TelegramError> {
    let mut failures = 0;
    loop {
        match introduce(api).await.map_err(TelegramError::from) {
            Ok(username) => return Ok(username),
            Err(error @ TelegramError::Unreachable(_)) => {
                tracing::warn!(%error, "trying again");
                tokio::time::sleep(backoff(failures)).await;
                failures += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn introduce(api: &Api) -> Result<String, RequestError> {
    let me = api.get_me().await?;
    // A webhook that was set once would keep every update away.
    api.delete_webhook().await?;
    let described = Name::ALL.map(|name| BotCommand::new(name.as_str(), texts::describes(name)));
    let start = BotCommand::new("start", texts::START_DESCRIPTION);
    api.set_my_commands([start].into_iter().chain(described)).await?;
    Ok(me.username().to_owned())
}

/// Takes updates until it has to stop. They are acknowledged when they are handed to a lane: a
/// process that is killed loses what it was doing, and people ask again.
async fn poll(api: &Api, app: &Arc<App>, lanes: &Lanes, mut stopping: watch::Receiver<bool>) {
    let (mut offset, mut failures) = (0, 0);
    while !*stopping.borrow() {
        let updates = api.get_updates().offset(offset).timeout(POLL_SECONDS).allowed_updates([
            AllowedUpdate::Message,
            AllowedUpdate::EditedMessage,
            AllowedUpdate::CallbackQuery,
        ]);
        let updates = tokio::select! {
            updates = updates => updates,
            _ = stopping.changed() => break,
        };
        match updates {
            Ok(updates) => {
                failures = 0;
                app.telegram.answered();
                for update in updates {
                    offset = update.id.as_offset();
                    dispatch(app, lanes, update);
                }
            }
            Err(error) => {
                let error = TelegramError::from(error);
                tracing::warn!(%error, "updates can not be taken; trying again");
                let _ = tokio::time::timeout(backoff(failures), stopping.changed()).await;
                failures += 1;
            }
        }
    }
    // Acknowledges the last ones, so that they do not come again after a restart.
    let _ = api.get_updates().offset(offset).limit(1).timeout(0).await;
}

fn dispatch(app: &Arc<App>, lanes: &Lanes, update: Update) {
    let Some(incoming) = Incoming::parse(update) else { return };
    let (who, app) = (incoming.who().id, Arc::clone(app));
    if lanes.ask(who, async move { app.handle(incoming).await }).is_err() {
        tracing::warn!("somebody writes too fast; an update was dropped");
    }
}
