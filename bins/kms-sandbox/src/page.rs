//! The page with two phones.
//!
//! It listens on loopback and answers only to loopback host names, so that a foreign page open in
//! the same browser can neither read nor control it (DNS rebinding).

mod records;
mod thief;
mod vault_frame;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::guard::{self, GuardContext};
use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST};
use actix_web::web::{self, Data, Json, Path, Query};
use actix_web::{App, HttpResponse, HttpServer, Responder};
use anyhow::Context;
use bot_api_sim::{ButtonKind, Change, Message, Person, SimError};
use kms_types::{TelegramId, U256, Wei};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use self::records::Records;
use self::vault_frame::VaultFrame;
use crate::stage::Stage;

const PEOPLE: [(i64, &str, &str); 2] = [(4711, "Ann", "ann"), (4712, "Bob", "bob")];
/// How often the chain, the audit and the mailbox are checked for news.
const POLL: Duration = Duration::from_millis(300);
/// How long a request for the state waits for a change.
const WAIT: Duration = Duration::from_secs(20);
const MAILS: usize = 10;
/// What the faucet pays: whole coins, and whole tokens.
const COINS: u64 = 10;
const TOKENS: u128 = 100;

/// The page, being served.
#[derive(Debug)]
pub struct Page {
    address: SocketAddr,
    handle: ServerHandle,
    server: JoinHandle<std::io::Result<()>>,
    follower: JoinHandle<()>,
    frame: VaultFrame,
    stop: watch::Sender<bool>,
}

struct Shared {
    stage: Arc<Stage>,
    people: [Person; 2],
    /// The origin of the vault page in its frame.
    vault: String,
    records: Records,
    /// Whether the chain mines blocks.
    mining: AtomicBool,
    version: watch::Sender<u64>,
}

impl Page {
    /// Serves the page on this port of 127.0.0.1, or on a free one for 0.
    ///
    /// # Errors
    /// When the port is in use.
    pub fn open(stage: Arc<Stage>, port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .with_context(|| format!("listening on 127.0.0.1:{port}"))?;
        let address = listener.local_addr()?;
        let origin = format!("http://{address}");
        let frame = VaultFrame::open(stage.page_url(), stage.certificate(), origin)?;
        stage.show_page_at(&format!("{}/", frame.origin()));
        let people = PEOPLE.map(|(id, name, username)| stage.sim.person(id, name, Some(username)));
        let shared = Arc::new(Shared {
            stage,
            people,
            vault: frame.origin(),
            records: Records::default(),
            mining: AtomicBool::new(true),
            version: watch::Sender::new(0),
        });
        let (stop, stopped) = watch::channel(false);
        let follower = tokio::spawn(follow(Arc::clone(&shared), stopped));
        let data = Data::from(shared);
        let server = HttpServer::new(move || {
            App::new().app_data(data.clone()).service(
                web::scope("")
                    .guard(guard::fn_guard(is_local))
                    .route("/", web::get().to(index))
                    .route("/page.css", web::get().to(css))
                    .route("/page.js", web::get().to(script))
                    .route("/state", web::get().to(state))
                    .route("/photo/{who}/{message}", web::get().to(photo))
                    .route("/say", web::post().to(say))
                    .route("/press", web::post().to(press))
                    .route("/open", web::post().to(open))
                    .route("/steal", web::post().to(steal))
                    .route("/faucet", web::post().to(faucet))
                    .route("/mining", web::post().to(mining)),
            )
        })
        .workers(1)
        .disable_signals()
        .shutdown_timeout(1)
        .listen(listener)?
        .run();
        let handle = server.handle();
        let server = tokio::spawn(server);
        Ok(Self { address, handle, server, follower, frame, stop })
    }

    /// The page's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Stops serving it, and returns when nothing uses the stage any more.
    pub async fn close(self) {
        self.stop.send_replace(true);
        // Open requests wait for news; they are cut off after a second.
        self.handle.stop(true).await;
        // An error would only say that the task panicked.
        let _ = tokio::join!(self.server, self.follower, self.frame.close());
    }
}

/// Refuses every other host name: an attacker's DNS may resolve one to this machine.
fn is_local(context: &GuardContext<'_>) -> bool {
    let host = context.head().headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = host.map(|host| host.rsplit_once(':').map_or(host, |(name, _port)| name));
    matches!(host, Some("127.0.0.1" | "localhost"))
}

/// Follows the chain, the audit and the mailbox, and wakes the requests that wait for news.
async fn follow(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let mut mails = 0;
    while !*stopped.borrow() {
        let followed = tokio::task::spawn_blocking({
            let shared = Arc::clone(&shared);
            move || shared.records.follow_chain(&shared.stage)
        });
        let new_blocks = followed.await.ok().and_then(Result::ok).unwrap_or(false);
        let new_audit = shared.records.follow_audit(&shared.stage).await.unwrap_or(false);
        let count = shared.stage.mailbox.mails().len();
        let new_mails = std::mem::replace(&mut mails, count) != count;
        if new_blocks || new_audit || new_mails {
            shared.version.send_modify(|version| *version += 1);
        }
        // Returns early when the page is closed.
        let _ = tokio::time::timeout(POLL, stopped.wait_for(|stopped| *stopped)).await;
    }
}

fn file(shared: &Shared, content_type: &'static str, body: &'static str) -> HttpResponse {
    let vault = &shared.vault;
    let policy = format!("default-src 'self'; img-src 'self' data:; frame-src {vault}");
    HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((CONTENT_SECURITY_POLICY, policy))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(body)
}

async fn index(shared: Data<Shared>) -> impl Responder {
    file(&shared, "text/html; charset=utf-8", include_str!("page/index.html"))
}

async fn css(shared: Data<Shared>) -> impl Responder {
    file(&shared, "text/css; charset=utf-8", include_str!("page/page.css"))
}

async fn script(shared: Data<Shared>) -> impl Responder {
    file(&shared, "text/javascript; charset=utf-8", include_str!("page/page.js"))
}

#[derive(Deserialize)]
struct StateQuery {
    #[serde(default)]
    after: String,
}

/// Everything that the page shows, as soon as its version differs from `after`.
async fn state(shared: Data<Shared>, Query(query): Query<StateQuery>) -> impl Responder {
    let deadline = Instant::now() + WAIT;
    let (mut sim, mut records) = (shared.stage.sim.watch(), shared.version.subscribe());
    loop {
        let version = format!("{}.{}", *sim.borrow_and_update(), *records.borrow_and_update());
        if version != query.after || Instant::now() >= deadline {
            return HttpResponse::Ok()
                .insert_header((CACHE_CONTROL, "no-store"))
                .json(show(&shared, &version));
        }
        let changed = async {
            tokio::select! {
                changed = sim.changed() => changed,
                changed = records.changed() => changed,
            }
        };
        let _ = timeout_at(deadline, changed).await;
    }
}

fn show(shared: &Shared, version: &str) -> Value {
    let people = PEOPLE.iter().zip(&shared.people).map(|((id, name, username), person)| {
        let messages = person.chat();
        let messages = messages.iter().map(|message| show_message(*id, message));
        json!({
            "id": id, "name": name, "username": username,
            "messages": Value::from_iter(messages), "notices": notices(person),
        })
    });
    let people = Value::from_iter(people);
    let mails = shared.stage.mailbox.mails().into_iter().rev().take(MAILS);
    let mails =
        mails.map(|mail| json!({ "to": mail.to, "subject": mail.subject, "body": mail.body }));
    let mails = Value::from_iter(mails);
    let (blocks, audit) = shared.records.show();
    json!({
        "version": version, "people": people, "commands": shared.stage.sim.commands(),
        "blocks": blocks, "audit": audit, "mails": mails,
        "mining": shared.mining.load(Ordering::SeqCst),
    })
}

fn show_message(who: i64, message: &Message) -> Value {
    let row = |row: &Vec<bot_api_sim::Button>| {
        Value::from_iter(row.iter().map(|button| {
            let copy = match &button.kind {
                ButtonKind::Copy(text) => Some(text),
                _ => None,
            };
            json!({ "text": button.text, "copy": copy })
        }))
    };
    json!({
        "id": message.id, "mine": message.from == who, "text": message.text,
        "entities": message.entities, "photo": message.photo.is_some(), "date": message.date,
        "edited": message.edited, "keyboard": Value::from_iter(message.keyboard.iter().map(row)),
    })
}

/// The notices that answered button presses: how many there were, and the last one.
fn notices(person: &Person) -> Value {
    let notices = person.changes().into_iter().filter_map(|change| match change {
        Change::Notice { text } => Some(text),
        _ => None,
    });
    let notices: Vec<_> = notices.collect();
    json!({ "count": notices.len(), "last": notices.last() })
}

fn person(shared: &Shared, who: i64) -> Option<&Person> {
    shared.people.iter().find(|person| person.id() == who)
}

fn refuse(reason: impl Into<String>) -> HttpResponse {
    HttpResponse::Conflict().json(json!({ "error": reason.into() }))
}

async fn photo(shared: Data<Shared>, path: Path<(i64, i64)>) -> impl Responder {
    let (who, id) = path.into_inner();
    let chat = person(&shared, who).map(Person::chat).unwrap_or_default();
    let message = chat.into_iter().find(|message| message.id == id);
    match message.and_then(|message| message.photo) {
        Some(png) => HttpResponse::Ok().content_type("image/png").body(png),
        None => HttpResponse::NotFound().finish(),
    }
}

#[derive(Deserialize)]
struct Say {
    who: i64,
    text: String,
}

async fn say(shared: Data<Shared>, Json(say): Json<Say>) -> impl Responder {
    let text = say.text.trim();
    match person(&shared, say.who) {
        Some(person) if !text.is_empty() && text.chars().count() <= 4_096 => {
            person.says(text);
            HttpResponse::NoContent().finish()
        }
        _ => refuse("A message has 1 to 4096 characters."),
    }
}

#[derive(Deserialize)]
struct Press {
    who: i64,
    message: i64,
    button: String,
}

async fn press(shared: Data<Shared>, Json(press): Json<Press>) -> impl Responder {
    let Some(person) = person(&shared, press.who) else { return refuse("No phone has this id.") };
    match person.opens(press.who, press.message, &press.button) {
        Ok(url) => HttpResponse::Ok().json(json!({ "open": url })),
        // It was pressed, and is no button of the vault page.
        Err(SimError::NoApp(_)) => HttpResponse::NoContent().finish(),
        Err(error) => refuse(error.to_string()),
    }
}

#[derive(Deserialize)]
struct Open {
    who: i64,
    link: String,
}

/// Opens the vault page for another purpose, from the page itself.
async fn open(shared: Data<Shared>, Json(open): Json<Open>) -> impl Responder {
    let opened = person(&shared, open.who).and_then(|person| person.opens_link(&open.link).ok());
    match opened.flatten() {
        Some(url) => HttpResponse::Ok().json(json!({ "open": url })),
        None => refuse("This link opens no page here."),
    }
}

/// What an attacker with the chat bot's token tries, and what comes of it.
async fn steal(shared: Data<Shared>) -> impl Responder {
    let [ann, bob] = &shared.people;
    match thief::play(&shared.stage, ann, bob).await {
        Ok(attempts) => HttpResponse::Ok().json(attempts),
        Err(error) => refuse(error.to_string()),
    }
}

#[derive(Deserialize)]
struct Faucet {
    who: i64,
}

async fn faucet(shared: Data<Shared>, Json(faucet): Json<Faucet>) -> impl Responder {
    if !shared.mining.load(Ordering::SeqCst) {
        return refuse("Mining is paused. Resume it first.");
    }
    let paid = async {
        let id = TelegramId::try_from(faucet.who)?;
        let account = shared.stage.client.account(id.into()).await?;
        let account = account.context("This user has no wallet yet. Send /start first.")?;
        let wei = Wei(U256::from(COINS) * U256::from(10).pow(U256::from(18)));
        let hash = shared.stage.faucet(account.address, wei).await?;
        shared.stage.faucet_tokens(account.address, TOKENS * 1_000_000)?;
        if shared.stage.second.is_some() {
            shared.stage.faucet_on_second(account.address, wei).await?;
        }
        anyhow::Ok(json!({ "coins": COINS, "tokens": TOKENS, "hash": hash }))
    };
    match paid.await {
        Ok(paid) => HttpResponse::Ok().json(paid),
        Err(error) => refuse(error.to_string()),
    }
}

#[derive(Deserialize)]
struct Mining {
    on: bool,
}

/// Pauses mining, so that a visitor sees a payment stay pending and its fee rise, or resumes it.
async fn mining(shared: Data<Shared>, Json(Mining { on }): Json<Mining>) -> impl Responder {
    if let Err(error) = shared.stage.set_mining(on) {
        return refuse(error.to_string());
    }
    shared.mining.store(on, Ordering::SeqCst);
    shared.version.send_modify(|version| *version += 1);
    HttpResponse::NoContent().finish()
}
