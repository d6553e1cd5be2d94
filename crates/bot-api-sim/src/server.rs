//! The server, and what tests and the sandbox see of it.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::web::{self, Data, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use tokio::sync::watch;

use crate::form::Form;
use crate::message::Message;
use crate::methods;
use crate::people::Person;
use crate::refusal::Refusal;
use crate::state::{Change, Chat, State, User};

/// What Telegram does wrong when a test wants it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Answers 502.
    BadGateway,
    /// Answers 429, with the seconds to wait.
    TooManyRequests(u64),
}

/// A running simulation. A clone is the same one.
#[derive(Clone, Debug)]
pub struct Sim {
    address: SocketAddr,
    shared: Arc<Shared>,
    handle: ServerHandle,
}

#[derive(Debug)]
pub(crate) struct Shared {
    token: String,
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that something changed, to everybody who waits.
    pub(crate) fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

impl Sim {
    /// Starts on a free port of 127.0.0.1, with nobody there. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            token: "7000000001:AASimulated-Token_of_35_characters_".to_owned(),
            state: Mutex::default(),
            version: watch::Sender::new(0),
        });
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
            .ok_or_else(|| std::io::Error::other("the server listens nowhere"))?;
        let server = server.run();
        let handle = server.handle();
        tokio::spawn(server);
        Ok(Self { address, shared, handle })
    }

    /// Where the Bot API is, as `https://api.telegram.org` otherwise.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The one bot's token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.shared.token
    }

    /// Somebody new, or the one with this id.
    #[must_use]
    pub fn person(&self, id: i64, first_name: &str, username: Option<&str>) -> Person {
        self.change(|state| {
            state.users.entry(id).or_insert_with(|| User {
                first_name: first_name.to_owned(),
                username: username.map(str::to_owned),
                blocked: false,
            });
        });
        Person::new(self.clone(), id)
    }

    /// A group with these people and the bot. Gives its chat's id.
    #[must_use]
    pub fn group(&self, title: &str, members: &[&Person]) -> i64 {
        self.change(|state| {
            let count = i64::try_from(state.chats.len()).unwrap_or(i64::MAX);
            let id = -1_000_000_000_000 - count;
            let chat = Chat {
                title: Some(title.to_owned()),
                members: members.iter().map(|person| person.id()).collect::<HashSet<_>>(),
                messages: BTreeMap::new(),
                changes: Vec::new(),
            };
            state.chats.insert(id, chat);
            id
        })
    }

    /// The messages of a chat as they stand.
    #[must_use]
    pub fn messages(&self, chat: i64) -> Vec<Message> {
        let state = self.shared.lock();
        state
            .chats
            .get(&chat)
            .map(|chat| chat.messages.values().cloned().collect())
            .unwrap_or_default()
    }

    /// What happened in a chat.
    #[must_use]
    pub fn chat_changes(&self, chat: i64) -> Vec<Change> {
        let state = self.shared.lock();
        state.chats.get(&chat).map(|chat| chat.changes.clone()).unwrap_or_default()
    }

    /// The commands and descriptions that the bot registered.
    #[must_use]
    pub fn commands(&self) -> Vec<(String, String)> {
        self.shared.lock().commands.clone()
    }

    /// Everything that this Telegram still stores, for a search.
    #[must_use]
    pub fn stored(&self) -> String {
        format!("{:?}", self.shared.lock())
    }

    /// Counts up whenever anything changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.watch()
    }

    /// The next call of this method goes wrong.
    pub fn break_next(&self, method: &str, fault: Fault) {
        self.change(|state| state.faults.push_back((method.to_owned(), fault)));
    }

    /// How many ordered faults did not happen yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.shared.lock().faults.len()
    }

    /// Ends it.
    pub async fn stop(&self) {
        self.handle.stop(false).await;
    }

    pub(crate) fn change<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        let result = what(&mut self.shared.lock());
        self.shared.changed();
        result
    }
}

async fn answer(request: HttpRequest, payload: Payload, shared: Data<Shared>) -> HttpResponse {
    let part = |name| request.match_info().get(name).unwrap_or_default();
    let (token, method) = (part("token"), part("method"));
    if token != shared.token {
        return refuse(&Refusal::other(401, "Unauthorized"));
    }
    let fault = shared.lock().fault(method);
    if fault.is_some() {
        shared.changed();
    }
    match fault {
        Some(Fault::BadGateway) => return refuse(&Refusal::other(502, "Bad Gateway")),
        Some(Fault::TooManyRequests(seconds)) => return refuse(&Refusal::too_many(seconds)),
        None => {}
    }
    let result = match Form::read(&request, payload).await {
        Ok(form) => methods::call(&shared, method, form).await,
        Err(refusal) => Err(refusal),
    };
    match result {
        Ok(result) => HttpResponse::Ok().json(serde_json::json!({ "ok": true, "result": result })),
        Err(refusal) => refuse(&refusal),
    }
}

fn refuse(refusal: &Refusal) -> HttpResponse {
    let status = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::BAD_REQUEST);
    HttpResponse::build(status).json(refusal.to_json())
}
