//! A running bot: polls Telegram for updates and follows the server's events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use kms_client::{BearerToken, Client, ClientError, Trust};
use kms_process::{CancellationToken, Failure, Supervisor};
use kms_types::EventStream;
use teloxide_core::payloads::{GetUpdates, GetUpdatesSetters};
use teloxide_core::requests::Requester;
use teloxide_core::types::{AllowedUpdate, BotCommand, Update};
use teloxide_core::{Bot as Api, RequestError};
use tokio::time::Instant;

use crate::chat::calls;
use crate::chat::incoming::Incoming;
use crate::chat::lanes::Lanes;
use crate::chat::telegram::{Telegram, TelegramError};
use crate::config::Settings;
use crate::context::Context;
use crate::flow::Flow;
use crate::flows::FLOWS;
use crate::notices::{self, backoff};
use crate::router;

/// How long one request waits for updates, and when it counts as failed.
const POLL_SECONDS: u32 = 10;
const POLL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a stop may take: running handlers get what the poll leaves of it.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// A bot that runs in this process.
#[derive(Debug)]
pub struct Bot {
    username: String,
    supervisor: Supervisor,
    lanes: Lanes,
}

/// Why a bot did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The server's URL, token or certificates are invalid.
    #[error("server: {0}")]
    Server(#[from] ClientError),
    /// Telegram refused the bot.
    #[error(transparent)]
    Telegram(#[from] TelegramError),
}

impl Bot {
    /// Registers the commands at Telegram and starts to chat. Retries while Telegram is
    /// unreachable; the server need not be reachable.
    ///
    /// # Errors
    /// When a setting is invalid, or Telegram does not know the token.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let (api, kms) = (api(&settings), client(&settings)?);
        let username = greet(&api).await?;
        let telegram = Telegram::new(api.clone(), settings.telegram.limits);
        let context = Arc::new(Context::new(telegram, kms, username.clone()));
        let (lanes, mut supervisor) = (Lanes::new(), Supervisor::new());
        for (task, stream) in
            [("follow_security", EventStream::Security), ("follow_payments", EventStream::Payments)]
        {
            let (context, shutdown) = (Arc::clone(&context), supervisor.shutdown());
            let events = notices::follow(context, stream, lanes.clone(), shutdown);
            supervisor.watch(task, never_fails(events));
        }
        let updates = poll(api, context, lanes.clone(), supervisor.shutdown());
        supervisor.watch("poll_updates", never_fails(updates));
        Ok(Self { username, supervisor, lanes })
    }

    /// The bot's own username.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// Waits until the poll or the event follower ends or panics, which neither should before a
    /// stop.
    pub async fn failed(&mut self) -> Failure {
        self.supervisor.failed().await
    }

    /// Stops polling, waits for running handlers, and ends.
    ///
    /// # Errors
    /// When a task failed meanwhile, or is still running after 20 seconds.
    pub async fn stop(self) -> Result<(), Failure> {
        let deadline = Instant::now() + STOP_TIMEOUT;
        self.supervisor.stop(deadline).await?;
        if !self.lanes.finish(deadline).await {
            tracing::warn!(event = "handlers_aborted", "handlers aborted at the stop deadline");
        }
        Ok(())
    }
}

async fn never_fails(task: impl Future<Output = ()>) -> Result<(), Infallible> {
    task.await;
    Ok(())
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

/// Asks Telegram for the bot's username, without retries.
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
                tracing::warn!(
                    %error,
                    event = "telegram_unreachable",
                    "Telegram not reachable at start, retrying"
                );
                tokio::time::sleep(backoff(failures)).await;
                failures += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn introduce(api: &Api) -> Result<String, RequestError> {
    let me = api.get_me().await?;
    // While a webhook is set, polling returns no updates.
    api.delete_webhook().await?;
    let command = |flow: &&dyn Flow| BotCommand::new(flow.word(), flow.description().into_string());
    api.set_my_commands(FLOWS.iter().map(command)).await?;
    Ok(me.username().to_owned())
}

/// Polls for updates until the bot stops. Updates are acknowledged when they are queued: a process
/// that is killed loses those that it was handling, and users repeat them.
async fn poll(api: Api, context: Arc<Context>, lanes: Lanes, shutdown: CancellationToken) {
    let (mut offset, mut failures) = (0, 0);
    while !shutdown.is_cancelled() {
        let updates = get_updates(offset, POLL_SECONDS);
        let updates = tokio::select! {
            updates = calls::call(&api, &updates, POLL_TIMEOUT) => updates,
            () = shutdown.cancelled() => break,
        };
        match updates {
            Ok(updates) => {
                failures = 0;
                context.telegram.record_response();
                for update in updates {
                    offset = update.id.as_offset();
                    dispatch(&context, &lanes, update);
                }
            }
            Err(error) => {
                let error = TelegramError::from(error);
                tracing::warn!(%error, event = "updates_failed", "update request failed");
                let _ = tokio::time::timeout(backoff(failures), shutdown.cancelled()).await;
                failures += 1;
            }
        }
    }
    // Acknowledges the last updates, so that a restart does not receive them again.
    let _ = calls::call(&api, &get_updates(offset, 0).limit(1), POLL_TIMEOUT).await;
}

fn get_updates(offset: i32, seconds: u32) -> GetUpdates {
    GetUpdates::new().offset(offset).timeout(seconds).allowed_updates([
        AllowedUpdate::Message,
        AllowedUpdate::EditedMessage,
        AllowedUpdate::CallbackQuery,
    ])
}

fn dispatch(context: &Arc<Context>, lanes: &Lanes, update: Update) {
    let Some(incoming) = Incoming::parse(update) else { return };
    let (user, context) = (incoming.user().id, Arc::clone(context));
    let job = async move { router::handle(&context, incoming).await };
    if lanes.enqueue(user, job).is_err() {
        tracing::warn!(event = "update_dropped", "update dropped: the user's lane is full");
    }
}
