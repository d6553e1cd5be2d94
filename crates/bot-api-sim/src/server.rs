//! The HTTP server, and the handle by which tests and the sandbox use it.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::form::Form;
use crate::limits::Limits;
use crate::message::Message;
use crate::methods;
use crate::mini_apps::MiniApps;
use crate::person::Person;
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::state::{Change, Chat, Fault, Ordered, User};

/// A running simulation. Clones refer to the same one.
#[derive(Clone, Debug)]
pub struct Sim {
    address: SocketAddr,
    shared: Arc<Shared>,
    handle: ServerHandle,
}

impl Sim {
    /// Starts without users on a free port of 127.0.0.1. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When there is no free port, or the operating system has no randomness.
    pub fn start() -> std::io::Result<Self> {
        let apps = MiniApps::new().map_err(|_none| std::io::Error::other("no randomness"))?;
        let shared = Shared::new("7000000001:AASimulated-Token_of_35_characters_", apps);
        let shared = Arc::new(shared);
        let data = Data::from(Arc::clone(&shared));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .route("/bot{token}/{method}", web::to(answer))
                .default_service(web::to(async || refuse(&Refusal::other(404, "Not Found"))))
        })
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))?;
        let address = server
            .addrs()
            .first()
            .copied()
            .ok_or_else(|| std::io::Error::other("the server has no address"))?;
        let server = server.run();
        let handle = server.handle();
        tokio::spawn(server);
        Ok(Self { address, shared, handle })
    }

    /// The Bot API's URL, in place of `https://api.telegram.org`.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The token of the only bot.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.shared.token
    }

    /// Registers a bot's Mini App, as BotFather does: `https://t.me/USERNAME/NAME` opens this URL.
    pub fn register_app(&self, bot: i64, username: &str, name: &str, url: &str) {
        self.shared.apps().register(bot, username, name, url);
    }

    /// The public key that signs openings of Mini Apps, in hex, in place of Telegram's own.
    #[must_use]
    pub fn app_key(&self) -> String {
        self.shared.apps().public_key()
    }

    /// The user with this id, created if there is none.
    #[must_use]
    pub fn person(&self, id: i64, first_name: &str, username: Option<&str>) -> Person {
        self.shared.change(|state| {
            state.users.entry(id).or_insert_with(|| User {
                first_name: first_name.to_owned(),
                last_name: None,
                username: username.map(str::to_owned),
                collectible_usernames: Vec::new(),
                blocked: false,
            });
        });
        Person::new(Arc::clone(&self.shared), id)
    }

    /// Creates a group of these people and the bot, and returns its chat id.
    #[must_use]
    pub fn group(&self, title: &str, members: &[&Person]) -> i64 {
        self.shared.change(|state| {
            let count = i64::try_from(state.chats.len()).unwrap_or(i64::MAX);
            let id = -1_000_000_000_000 - count;
            let chat = Chat {
                title: Some(title.to_owned()),
                members: members.iter().map(|person| person.id()).collect::<HashSet<_>>(),
                messages: BTreeMap::new(),
                changes: Vec::new(),
                bot_is_admin: false,
                topics: HashSet::new(),
                share_key: false,
            };
            state.chats.insert(id, chat);
            id
        })
    }

    /// Makes the bot an administrator of a group, who may delete messages of others.
    pub fn promote_bot(&self, group: i64) {
        self.shared.change(|state| {
            if let Some(chat) = state.chats.get_mut(&group) {
                chat.bot_is_admin = true;
            }
        });
    }

    /// The messages of a chat as they are now.
    #[must_use]
    pub fn messages(&self, chat: i64) -> Vec<Message> {
        self.shared.messages(chat)
    }

    /// What has happened in a chat, in order.
    #[must_use]
    pub fn chat_changes(&self, chat: i64) -> Vec<Change> {
        self.shared.changes(chat)
    }

    /// The commands and descriptions that the bot registered.
    #[must_use]
    pub fn commands(&self) -> Vec<(String, String)> {
        self.shared.lock().commands.clone()
    }

    /// A dump of everything that is still stored, to search for secrets.
    #[must_use]
    pub fn stored(&self) -> String {
        format!("{:?}", self.shared.lock())
    }

    /// A counter that grows with every change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.watch()
    }

    /// Makes the next call of this method fail.
    pub fn break_next(&self, method: &str, fault: Fault) {
        self.order(method, fault, None, 0);
    }

    /// Makes one call of this method about this chat, or about any, fail after so many that
    /// succeed.
    pub fn break_later(&self, chat: Option<i64>, method: &str, fault: Fault, after: usize) {
        self.order(method, fault, chat, after);
    }

    fn order(&self, method: &str, fault: Fault, chat: Option<i64>, after: usize) {
        let ordered = Ordered { method: method.to_owned(), fault, chat, after };
        self.shared.change(|state| state.script.faults.push_back(ordered));
    }

    /// Forgets the faults that have not happened yet. Returns how many.
    #[expect(clippy::must_use_candidate, reason = "called for its effect")]
    pub fn forget_faults(&self) -> usize {
        self.shared.change(|state| std::mem::take(&mut state.script.faults).len())
    }

    /// How many of the faults have not happened yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.shared.lock().script.faults.len()
    }

    /// Lets this function decide on the fate of every call, by its method, until another one does.
    pub fn decide(&self, fate: impl FnMut(&str) -> Option<Fault> + Send + 'static) {
        self.shared.lock().script.fate = Some(Box::new(fate));
    }

    /// Delivers the last updates once more, as after a crash of the bot or of Telegram.
    pub fn repeat_updates(&self, count: usize) {
        self.shared.change(|state| state.repeat_updates(count));
    }

    /// Makes everything that was written so far older by this time.
    pub fn pass_time(&self, time: Duration) {
        self.shared.change(|state| state.pass_time(time));
    }

    /// Changes the rate limits.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.lock().traffic.limits = limits;
    }

    /// The calls that the bot made although Telegram had asked it to wait.
    #[must_use]
    pub fn ignored_waits(&self) -> Vec<String> {
        self.shared.lock().traffic.ignored.clone()
    }

    /// How many edits of the bot would have changed nothing, besides those that it repeated because
    /// it could not know that they were made.
    #[must_use]
    pub fn vain_edits(&self) -> usize {
        self.shared.lock().vain_edits
    }

    /// How many pressed buttons the bot has not answered: they show that something is in progress.
    #[must_use]
    pub fn unanswered_presses(&self) -> usize {
        self.shared.lock().queries.len()
    }

    /// Lets all presses expire that the bot has not answered, as if they were older.
    pub fn expire_presses(&self) {
        self.shared.change(|state| state.queries.clear());
    }

    /// How many updates the bot has not acknowledged.
    #[must_use]
    pub fn unacknowledged_updates(&self) -> usize {
        self.shared.lock().updates.len()
    }

    /// Stops the server.
    pub async fn stop(&self) {
        self.handle.stop(false).await;
    }
}

async fn answer(request: HttpRequest, payload: Payload, shared: Data<Shared>) -> HttpResponse {
    let part = |name| request.match_info().get(name).unwrap_or_default();
    let (token, method) = (part("token"), part("method"));
    if token != shared.token {
        return refuse(&Refusal::other(401, "Unauthorized"));
    }
    let form = match Form::read(&request, payload).await {
        Ok(form) => form,
        Err(refusal) => return refuse(&refusal),
    };
    let fault = {
        let mut state = shared.lock();
        let pressed = form.text("callback_query_id").and_then(|query| state.queries.get(query));
        let chat = pressed.map(|query| query.chat).or_else(|| form.integer("chat_id"));
        state.fault(method, chat)
    };
    if fault.is_some() {
        shared.notify();
    }
    match fault {
        Some(Fault::BadGateway) => return refuse(&Refusal::other(502, "Bad Gateway")),
        Some(Fault::ServerError(status)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return HttpResponse::build(status).content_type("text/html").body("<h1>Sorry</h1>");
        }
        Some(Fault::TooManyRequests(seconds)) => {
            let wait = Duration::from_secs(seconds);
            let refusal = match form.integer("chat_id").filter(|_| counts(method)) {
                Some(chat) => shared.lock().traffic.refuse(chat, wait, Instant::now()),
                None => Refusal::too_many(seconds),
            };
            return refuse(&refusal);
        }
        Some(Fault::CallLost) => return broken(),
        Some(Fault::Slow(_) | Fault::AnswerLost | Fault::LateAnswer(_)) | None => {}
    }
    if let (Some(_), Some(chat), Some(message)) =
        (fault, form.integer("chat_id"), form.integer("message_id"))
    {
        shared.lock().unsure.insert((chat, message));
    }
    let result = match fault {
        Some(Fault::Slow(time)) => late(shared, method.to_owned(), form, time).await,
        Some(_) | None => methods::call(&shared, method, form).await,
    };
    match fault {
        Some(Fault::AnswerLost) => return broken(),
        Some(Fault::LateAnswer(time)) => tokio::time::sleep(time).await,
        Some(_) | None => {}
    }
    match result {
        Ok(result) => HttpResponse::Ok().json(serde_json::json!({ "ok": true, "result": result })),
        Err(refusal) => refuse(&refusal),
    }
}

/// Makes a call after this time, also for a caller who has gone, unless it asks for updates.
async fn late(
    shared: Data<Shared>,
    method: String,
    form: Form,
    time: Duration,
) -> Result<serde_json::Value, Refusal> {
    let polls = method.eq_ignore_ascii_case("getUpdates");
    let call = async move {
        tokio::time::sleep(time).await;
        methods::call(&shared, &method, form).await
    };
    if polls {
        return call.await;
    }
    let done = actix_web::rt::spawn(call).await;
    done.unwrap_or_else(|_panicked| Err(Refusal::other(500, "Internal Server Error")))
}

/// Whether the method is one of those whose rate limit holds the whole chat.
fn counts(method: &str) -> bool {
    let counted = ["sendMessage", "sendPhoto", "editMessageText", "sendChatAction"];
    counted.iter().any(|counted| counted.eq_ignore_ascii_case(method))
}

/// An answer whose connection breaks.
fn broken() -> HttpResponse {
    let cut = std::io::Error::other("deliberately broken");
    HttpResponse::Ok().streaming(futures::stream::iter([Err::<Bytes, _>(cut)]))
}

fn refuse(refusal: &Refusal) -> HttpResponse {
    let status = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::BAD_REQUEST);
    HttpResponse::build(status).json(refusal.to_json())
}
