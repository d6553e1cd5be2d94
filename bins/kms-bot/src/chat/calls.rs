//! One call of the Bot API over HTTP.
//!
//! teloxide would sleep for ten seconds after a 5xx. A failure of a call is reported at once here,
//! with what it says about whether the call was done. It keeps only its kind: the URL of every call
//! contains the token, and a response may contain what a user wrote.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use teloxide_core::payloads::SendPhoto;
use teloxide_core::requests::{MultipartRequest, Payload, Request};
use teloxide_core::types::Message;
use teloxide_core::{ApiError, Bot, RequestError};

/// Why a call has no result.
#[derive(Clone, Debug)]
pub(crate) enum CallError {
    /// Telegram asks to wait for this long. Nothing was done.
    Wait(Duration),
    /// Telegram refused it. Nothing was done.
    Refused(ApiError),
    /// It may have been done, or not.
    Unknown(&'static str),
    /// Telegram did not answer in time: it may have been done, or may be done later.
    Timeout,
}

#[derive(Deserialize)]
struct Response<T> {
    result: Option<T>,
    description: Option<ApiError>,
    parameters: Option<Parameters>,
}

#[derive(Deserialize)]
struct Parameters {
    retry_after: Option<u64>,
}

/// A call that can be made several times.
pub(super) trait Call: Sync {
    type Output: Send;

    /// Makes the call once.
    fn attempt<'a>(&'a self, bot: &'a Bot) -> BoxFuture<'a, Result<Self::Output, CallError>>;
}

/// The longest wait that is believed. A longer one would overflow a point in time.
const LONGEST_WAIT: u64 = 24 * 60 * 60;
/// How long one attempt of a call may take, and one that uploads a file.
pub(super) const ATTEMPT: Duration = Duration::from_secs(3);
const UPLOAD: Duration = Duration::from_secs(6);

impl<P> Call for P
where
    P: Payload + serde::Serialize + Sync,
    P::Output: DeserializeOwned + Send,
{
    type Output = P::Output;

    fn attempt<'a>(&'a self, bot: &'a Bot) -> BoxFuture<'a, Result<P::Output, CallError>> {
        call(bot, self, ATTEMPT).boxed()
    }
}

/// A call that uploads a picture.
pub(super) struct Upload(pub(super) MultipartRequest<SendPhoto>);

impl Call for Upload {
    type Output = Message;

    fn attempt<'a>(&'a self, _bot: &'a Bot) -> BoxFuture<'a, Result<Message, CallError>> {
        let upload = async {
            match tokio::time::timeout(UPLOAD, self.0.send_ref()).await {
                Ok(result) => result.map_err(CallError::from),
                Err(_elapsed) => Err(CallError::Timeout),
            }
        };
        upload.boxed()
    }
}

/// Makes a call whose parameters are JSON.
pub(crate) async fn call<P>(
    bot: &Bot,
    payload: &P,
    timeout: Duration,
) -> Result<P::Output, CallError>
where
    P: Payload + serde::Serialize + Sync,
    P::Output: DeserializeOwned,
{
    let mut url = bot.api_url();
    url.path_segments_mut()
        .map_err(|()| CallError::Unknown("URL"))?
        .pop_if_empty()
        .push(&format!("bot{}", bot.token()))
        .push(P::NAME);
    let request = bot.client().post(url).timeout(timeout).json(payload);
    let response = request.send().await.map_err(|error| match error.is_timeout() {
        true => CallError::Timeout,
        false => CallError::Unknown("network"),
    })?;
    if response.status().is_server_error() {
        return Err(CallError::Unknown("server error"));
    }
    let response: Response<P::Output> =
        response.json().await.map_err(|secret| match secret.is_timeout() {
            true => CallError::Timeout,
            false => CallError::Unknown("invalid response"),
        })?;
    let wait = response.parameters.and_then(|parameters| parameters.retry_after);
    match (response.result, wait, response.description) {
        (Some(result), ..) => Ok(result),
        (None, Some(seconds), _) => Err(wait_for(seconds)),
        (None, None, Some(error)) => {
            // Some refusals are expected; the caller decides what is a warning.
            tracing::debug!(method = P::NAME, %error, "call refused by Telegram");
            Err(CallError::Refused(error))
        }
        (None, None, None) => Err(CallError::Unknown("invalid response")),
    }
}

fn wait_for(seconds: u64) -> CallError {
    metrics::counter!("kms_bot_telegram_limited_total").increment(1);
    CallError::Wait(Duration::from_secs(seconds.min(LONGEST_WAIT)))
}

impl From<RequestError> for CallError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Api(error) => Self::Refused(error),
            RequestError::RetryAfter(wait) => wait_for(wait.seconds().into()),
            RequestError::Network(error) if error.is_timeout() => Self::Timeout,
            RequestError::Network(_) => Self::Unknown("network"),
            RequestError::InvalidJson { .. } => Self::Unknown("invalid response"),
            RequestError::MigrateToChatId(_) => Self::Unknown("group"),
            RequestError::Io(_) => Self::Unknown("file"),
        }
    }
}
