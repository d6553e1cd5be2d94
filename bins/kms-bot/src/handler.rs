//! Handles each update once and to an end: with a deadline, and with an answer whatever fails.
//!
//! What a handler left unfinished is finished later: a message that shows that the bot is working
//! gets its end, an answer that could not be sent is made up for, and after a restart what the bot
//! waited for is asked again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kms_client::{ClientError, traced};
use kms_types::{ErrorCode, Problem, TelegramId, TraceId};
use teloxide_core::types::{CallbackQueryId, MessageId};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::chat::incoming::{Incoming, User};
use crate::chat::keyboard::Keyboard;
use crate::chat::lanes::Lanes;
use crate::chat::telegram::TelegramError;
use crate::clock;
use crate::context::{Context, HandlerError, HandlerResult, Later, QUESTION_LIFETIME};
use crate::delivery::backoff;
use crate::flow::NO_MESSAGE;
use crate::flows::start;
use crate::journal::{Asked, Chat, Working};
use crate::notices;
use crate::problems::problem;
use crate::router;
use crate::texts::{Html, html, text};

/// How long a handler may take before the bot reports that the service does not respond.
const DEADLINE: Duration = Duration::from_secs(9);
/// After this long without an answer, the user sees that the bot is working.
const TYPING_AFTER: Duration = Duration::from_millis(700);
/// Telegram shows "typing…" for five seconds.
const TYPING_INTERVAL: Duration = Duration::from_secs(4);
/// How long the bot tries to finish what a handler left unfinished.
const PERSISTENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// The attempts that may be refused meanwhile.
const REFUSALS: u32 = 14;
/// A message that reaches the bot after this long, in milliseconds, is not acted on.
const OLD_MESSAGE: i64 = 24 * 60 * 60 * 1_000;

/// Why a handler did not finish.
enum Failure {
    Error(HandlerError),
    Panicked,
    Late,
}

/// Handles an update, and notifies the user if that fails.
pub(crate) async fn handle(context: &Arc<Context>, lanes: &Lanes, incoming: Incoming, update: u32) {
    let (user, query) = (incoming.user().clone(), incoming.query());
    let pressed = query.as_ref().and_then(|_| incoming.private_message());
    if let Incoming::Returned(_) = incoming {
        if let Err(error) = notices::deliver_missed(context, user.id).await {
            tracing::warn!(%error, event = "update_failed", "missed notices not delivered");
            let (missed, user) = (Arc::clone(context), user.id);
            later(context, lanes, (user, Later::Missed), move || {
                let context = Arc::clone(&missed);
                async move { notices::deliver_missed(&context, user).await }.boxed()
            });
        }
    } else {
        // What earlier handlers left unfinished is finished by jobs of its own, none of which runs
        // in this lane meanwhile.
        let earlier = context.journal.chat(user.id).working.len();
        match limited(context, user.id, Some(update), route(context, incoming)).await {
            Ok(()) => context.journal.change(user.id, |chat| {
                chat.working.truncate(earlier);
                // The message shows what the press did.
                chat.working.retain(|open| pressed.is_none_or(|at| open.message != Some(at.0)));
            }),
            Err(failure) => {
                let recovered = recover(context, lanes, &user, failure, earlier);
                tokio::join!(recovered, end_press(context, query));
            }
        }
    }
    context.journal.end(user.id, update, context.telegram.last_message().0);
}

/// Ends the progress indicator of a pressed button whose handler failed.
async fn end_press(context: &Context, query: Option<CallbackQueryId>) {
    if let Some(query) = query {
        context.telegram.answer_query(query, None).await;
    }
}

/// Runs a handler until its deadline, and shows that the bot is working. `update` is what Telegram
/// calls the update that is handled, if there is one.
async fn limited(
    context: &Context,
    user: TelegramId,
    update: Option<u32>,
    work: impl Future<Output = HandlerResult>,
) -> Result<(), Failure> {
    let (trace, started) = (TraceId::random(), Instant::now());
    let work = traced(trace.clone(), AssertUnwindSafe(work).catch_unwind());
    let result = tokio::select! {
        result = timeout(DEADLINE, work) => result,
        never = show_typing(context, user) => never,
    };
    metrics::histogram!("kms_bot_handler_duration_seconds").record(started.elapsed());
    let name = trace.to_string();
    tracing::info!(update, trace = name, "update handled");
    context.traces.note(user, trace);
    match result {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => {
            tracing::warn!(update, trace = name, %error, event = "update_failed", "update failed");
            Err(Failure::Error(error))
        }
        // The panic hook has logged where and why.
        Ok(Err(_panic)) => {
            tracing::warn!(update, trace = name, event = "handler_panicked", "handler panicked");
            Err(Failure::Panicked)
        }
        Err(_elapsed) => {
            tracing::warn!(update, trace = name, event = "update_late", "handler at its deadline");
            Err(Failure::Late)
        }
    }
}

async fn show_typing<T>(context: &Context, user: TelegramId) -> T {
    sleep(TYPING_AFTER).await;
    loop {
        context.telegram.typing(user).await;
        sleep(TYPING_INTERVAL).await;
    }
}

/// Routes an update. One that was sent long ago gets a short answer.
async fn route(context: &Context, incoming: Incoming) -> HandlerResult {
    settle_report(context, incoming.user().id).await;
    if let (Some(at), Some(message)) = (incoming.at(), incoming.private_message())
        && clock::now().0.saturating_sub(at.0) > OLD_MESSAGE
    {
        let (user, secret) = (incoming.user().id, router::may_show_secret(context, &incoming));
        // Telegram refuses to delete what is older than two days.
        if secret && !router::delete_secret(context, user, message).await? {
            return Ok(());
        }
        return context.send(user, html!("old-message")).await;
    }
    router::route(context, incoming).await
}

/// Finds out whether an interrupted report arrived, before anything else is sent in the chat.
async fn settle_report(context: &Context, user: TelegramId) {
    if let Err(error) = context.settle_report(user).await {
        tracing::info!(%error, "interrupted report not found yet");
    }
}

/// Answers the user of a handler that failed, now or as soon as that is possible. The first
/// `earlier` messages that show work are of other handlers.
async fn recover(
    context: &Arc<Context>,
    lanes: &Lanes,
    user: &User,
    failure: Failure,
    earlier: usize,
) {
    if let Failure::Error(HandlerError::Telegram(TelegramError::Gone)) = failure {
        context.journal.change(user.id, |chat| chat.working.truncate(earlier));
        return;
    }
    let unfinished = context.journal.chat(user.id).working.split_off(earlier);
    if !unfinished.is_empty() {
        if !matches!(failure, Failure::Error(HandlerError::Unfinished)) {
            context.end_step(user.id);
            show_still_working(context, user.id, &unfinished).await;
        }
        let (finished, user) = (Arc::clone(context), user.clone());
        later(context, lanes, (user.id, Later::Work), move || {
            let (context, user) = (Arc::clone(&finished), user.clone());
            async move { finish_work(&context, &user).await }.boxed()
        });
        return;
    }
    let text = match failure {
        Failure::Error(HandlerError::Kms(error)) => {
            context.network.correct(&error).await;
            problem(&error, None)
        }
        Failure::Error(HandlerError::Telegram(_)) => html!("problem-telegram"),
        Failure::Panicked | Failure::Error(HandlerError::Unfinished) => html!("problem-internal"),
        Failure::Late => html!("problem-unreachable"),
    };
    if context.send(user.id, text.clone()).await.is_err() {
        send_later(context, lanes, user.id, text);
    }
}

/// Shows that work takes long, in each message that shows that the bot is working.
async fn show_still_working(context: &Context, user: TelegramId, unfinished: &[Working]) {
    for message in unfinished.iter().filter_map(|working| working.message) {
        let (text, none) = (html!("still-working"), Keyboard::none());
        let _ = context.telegram.edit(user, MessageId(message), &text, none).await;
    }
}

fn send_later(context: &Arc<Context>, lanes: &Lanes, user: TelegramId, text: Html) {
    let sent = Arc::clone(context);
    later(context, lanes, (user, Later::Answer), move || {
        let (context, text) = (Arc::clone(&sent), text.clone());
        async move { context.send(user, text).await }.boxed()
    });
}

/// Repeats a job in the user's lane until it succeeds, for a day. While one is repeated, another of
/// its kind is not begun.
fn later(
    context: &Arc<Context>,
    lanes: &Lanes,
    kind: (TelegramId, Later),
    job: impl Fn() -> futures::future::BoxFuture<'static, HandlerResult> + Send + 'static,
) {
    if !context.begin_later(kind) {
        return;
    }
    let (context, lanes, user) = (Arc::clone(context), lanes.clone(), kind.0);
    tokio::spawn(async move {
        let deadline = Instant::now() + PERSISTENCE;
        let (mut failures, mut refusals, mut pause) = (0, 0, backoff(0));
        while Instant::now() < deadline && refusals < REFUSALS {
            sleep(pause).await;
            let (done, is_done) = oneshot::channel();
            let work = job();
            let repeated = Arc::clone(&context);
            lanes.enqueue_own(user, async move {
                let result = timeout(DEADLINE, work).await;
                // In the lane, where the next one may be begun.
                if matches!(result, Ok(Ok(()) | Err(HandlerError::Telegram(TelegramError::Gone)))) {
                    repeated.end_later(kind);
                }
                // The receiver waits, unless the bot stops.
                let _ = done.send(result);
            });
            let error = match is_done.await {
                Ok(Ok(Ok(()) | Err(HandlerError::Telegram(TelegramError::Gone)))) => return,
                Ok(Ok(Err(error))) => Some(error),
                Ok(Err(_late)) => None,
                Err(_panicked) => break,
            };
            failures += 1;
            pause = backoff(failures);
            match error {
                Some(HandlerError::Telegram(TelegramError::RateLimit(wait))) => {
                    pause = pause.max(wait);
                }
                Some(HandlerError::Telegram(error)) if !error.is_temporary() => refusals += 1,
                Some(_) | None => {}
            }
        }
        context.end_later(kind);
        tracing::warn!(event = "answer_dropped", "answer dropped: it could not be sent");
    });
}

/// Shows how all interrupted work of a user ended.
async fn finish_work(context: &Context, user: &User) -> HandlerResult {
    for working in context.journal.chat(user.id).working {
        show_end(context, user, &working).await?;
        context.journal.change(user.id, |chat| chat.working.retain(|open| *open != working));
    }
    Ok(())
}

/// Shows how interrupted work ended, in place of the message that shows that the bot is working.
async fn show_end(context: &Context, user: &User, working: &Working) -> HandlerResult {
    let (resume, after) = (&working.resume, MessageId(working.after));
    let message = match working.message {
        Some(message) => Some(MessageId(message)),
        // The bot stopped before Telegram returned the message.
        None => context.telegram.find_sent(user.id, after).await?,
    };
    let (interrupted, none) = (html!("interrupted"), Keyboard::none());
    let Some(message) = message else {
        context.send(user.id, interrupted).await?;
        // The message may be beyond those that were looked through, but not beyond this one.
        return match context.telegram.find_sent(user.id, after).await? {
            Some(message) => Ok(context.telegram.delete(user.id, message).await?),
            None => Ok(()),
        };
    };
    if resume.contains(':') {
        let notice = match router::press(context, user, message, Some(resume)).await {
            Err(HandlerError::Kms(ClientError::Problem(refused))) if is_final(&refused) => {
                let text = problem(&ClientError::Problem(refused), None);
                context.telegram.edit_or_send(user.id, message, &text, none).await?;
                return Ok(());
            }
            notice => notice?,
        };
        if notice == Some(text!("expired-button-notice")) {
            context.telegram.edit_or_send(user.id, message, &interrupted, none).await?;
        }
    } else if resume.is_empty() {
        context.telegram.edit_or_send(user.id, message, &interrupted, none).await?;
    } else {
        context.telegram.delete(user.id, message).await?;
        resume_question(context, user, None, resume).await?;
    }
    Ok(())
}

/// Whether the server would refuse the same request again.
fn is_final(refused: &Problem) -> bool {
    refused.status < 500 && !matches!(refused.code, ErrorCode::RateLimited | ErrorCode::Busy)
}

/// Asks a question again: callback data, or a command.
async fn resume_question(
    context: &Context,
    user: &User,
    message: Option<MessageId>,
    resume: &str,
) -> HandlerResult {
    if resume.starts_with('/') {
        return router::run_text(context, user, resume).await;
    }
    router::press(context, user, message.unwrap_or(NO_MESSAGE), Some(resume)).await.map(drop)
}

/// A chat that a restart interrupted.
#[derive(Clone)]
struct Interrupted {
    id: TelegramId,
    /// Its state when the bot started.
    before: Chat,
    /// The last message that was known then.
    known: MessageId,
}

/// Queues what a restart interrupted in every chat. Updates are handled after it.
pub(crate) fn resume_all(context: &Arc<Context>, lanes: &Lanes) {
    context.deletions.resume();
    let known = context.telegram.last_message();
    for (id, before) in context.journal.interrupted() {
        if !before.updates.is_empty() {
            context.open_password_window(id);
        }
        let (context, lanes_of) = (Arc::clone(context), lanes.clone());
        let chat = Interrupted { id, before, known };
        lanes.enqueue_own(id, async move { resume_or_retry(&context, &lanes_of, chat).await });
    }
}

/// Resumes a chat, or does so later if that fails.
async fn resume_or_retry(context: &Arc<Context>, lanes: &Lanes, chat: Interrupted) {
    let Interrupted { id, ref before, .. } = chat;
    if before.is_at_work() {
        // Telegram may still do what the bot asked for before it was killed.
        context.telegram.earlier_calls().await;
    }
    match limited(context, id, None, resume(context, &chat)).await {
        Ok(()) => {}
        Err(Failure::Error(HandlerError::Telegram(TelegramError::Gone)) | Failure::Panicked) => {
            context.journal.change(id, |now| {
                now.working.retain(|open| !before.working.contains(open));
                now.updates.retain(|update| !before.updates.contains(update));
                now.asked.take_if(|asked| before.asked.as_ref() == Some(asked));
            });
        }
        Err(Failure::Error(_) | Failure::Late) => {
            // Without what was finished before the failure.
            show_still_working(context, id, &context.journal.chat(id).working).await;
            let resumed = Arc::clone(context);
            later(context, lanes, (id, Later::Resume), move || {
                let (context, chat) = (Arc::clone(&resumed), chat.clone());
                async move { resume(&context, &chat).await }.boxed()
            });
        }
    }
}

/// Finishes what a restart interrupted, as far as that was not done yet.
async fn resume(context: &Context, chat: &Interrupted) -> HandlerResult {
    let Interrupted { id, ref before, known } = *chat;
    let user = match context.telegram.user(id).await {
        Ok(user) => user,
        Err(error) => {
            tracing::info!(%error, "names of an interrupted chat not read");
            User { id, username: None, first_name: String::new(), last_name: None }
        }
    };
    context.settle_report(id).await?;
    let open = context.journal.chat(id).updates;
    let mut updates = open.iter().filter(|update| before.updates.contains(update)).count();
    if updates > 0 && !before.missed.is_empty() {
        // One of them is that the user came back.
        notices::deliver_missed(context, id).await?;
        updates -= 1;
    }
    // One of them began the work that is finished now.
    if updates > usize::from(!before.working.is_empty()) {
        context.send(id, html!("interrupted")).await?;
    }
    context.journal.change(id, |now| {
        now.updates.retain(|update| !before.updates.contains(update));
    });
    let question = context.question(id);
    finish_work(context, &user).await?;
    let is_asked = context.step(id).is_some() && context.question(id) != question;
    if before.is_at_work() {
        context.telegram.learn(id, known).await?;
    }
    let asked = context.journal.change(id, |now| {
        // Also if an earlier attempt asked and could not show it.
        let same = |asked: &Asked, before: &Asked| asked.resume == before.resume;
        now.asked.clone().filter(|asked| before.asked.as_ref().is_some_and(|old| same(asked, old)))
    });
    // What was finished may have asked it already.
    let Some(asked) = asked.filter(|_| !is_asked) else { return Ok(()) };
    if context.journal.was_open(&asked, QUESTION_LIFETIME, clock::now())
        && !start::is_answered(context, id, &asked.resume).await?
    {
        resume_question(context, &user, asked.message.map(MessageId), &asked.resume).await?;
    }
    if context.step(id).is_none() {
        context.journal.change(id, |now| now.asked.take_if(|now| *now == asked));
    }
    Ok(())
}
