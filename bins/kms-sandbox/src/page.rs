//! The page with two phones: what it shows, and what its visitors do.
//!
//! It is on loopback, and answers to its own names only, so that a page of somebody else's, open
//! in the same browser, can neither read nor press.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::guard::{self, GuardContext};
use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST};
use actix_web::web::{self, Data, Json, Path, Query};
use actix_web::{App, HttpResponse, HttpServer, Responder};
use anyhow::Context;
use bot_api_sim::{ButtonKind, Message, Person};
use kms_types::{EthAddress, TelegramId, Token, U256, Units, Wei};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::stage::Stage;

const PEOPLE: [(i64, &str, &str); 2] = [(4711, "Ann", "ann"), (4712, "Bob", "bob")];
/// How often the chain and the audit are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How long a request waits for something new.
const WAIT: Duration = Duration::from_secs(20);
const BLOCKS: usize = 8;
const AUDIT_ROWS: usize = 40;
const MAILS: usize = 10;
const COIN: &str = "ETH";
/// `transfer(address,uint256)`, and the test token's `mint(address,uint256)`.
const TOKEN_CALLS: [&str; 2] = ["a9059cbb", "40c10f19"];
/// What the faucet gives: coins, and of the token.
const COINS: u64 = 10;
const TOKENS: u128 = 100;

/// The page, served.
#[derive(Debug)]
pub struct Page {
    address: SocketAddr,
    handle: ServerHandle,
    looking: JoinHandle<()>,
}

struct Shared {
    stage: Arc<Stage>,
    people: [Person; 2],
    records: Mutex<Records>,
    /// Whether blocks are made.
    mining: AtomicBool,
    version: watch::Sender<u64>,
}

/// The newest of what is written, newest first.
#[derive(Default)]
struct Records {
    blocks: VecDeque<Value>,
    next_block: u64,
    audit: VecDeque<Value>,
    last_audit: i64,
}

impl Page {
    /// Serves the page on 127.0.0.1, on this port or, for 0, on a free one.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn open(stage: Arc<Stage>, port: u16) -> anyhow::Result<Self> {
        let people = PEOPLE.map(|(id, name, username)| stage.sim.person(id, name, Some(username)));
        let shared = Arc::new(Shared {
            stage,
            people,
            records: Mutex::default(),
            mining: AtomicBool::new(true),
            version: watch::Sender::new(0),
        });
        let looking = tokio::spawn(look(Arc::clone(&shared)));
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
                    .route("/faucet", web::post().to(faucet))
                    .route("/mining", web::post().to(mining)),
            )
        })
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", port))
        .with_context(|| format!("listening on 127.0.0.1:{port}"))?;
        let address = server.addrs().first().copied().context("the page listens nowhere")?;
        let server = server.run();
        let handle = server.handle();
        tokio::spawn(server);
        Ok(Self { address, handle, looking })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Ends it.
    pub async fn close(self) {
        self.looking.abort();
        self.handle.stop(false).await;
    }
}

/// A name that leads here by somebody else's DNS is not ours.
fn is_local(context: &GuardContext<'_>) -> bool {
    let host = context.head().headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = host.map(|host| host.rsplit_once(':').map_or(host, |(name, _port)| name));
    matches!(host, Some("127.0.0.1" | "localhost"))
}

/// Follows the chain, the audit and the mails.
async fn look(shared: Arc<Shared>) {
    let mut mails = 0;
    loop {
        let looked = tokio::task::spawn_blocking({
            let shared = Arc::clone(&shared);
            move || look_at_chain(&shared)
        });
        let new_blocks = looked.await.ok().and_then(Result::ok).unwrap_or(false);
        let new_audit = look_at_audit(&shared).await.unwrap_or(false);
        let count = shared.stage.mailbox.mails().len();
        let new_mails = std::mem::replace(&mut mails, count) != count;
        if new_blocks || new_audit || new_mails {
            shared.version.send_modify(|version| *version += 1);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn look_at_chain(shared: &Shared) -> anyhow::Result<bool> {
    let hex = |value: &Value| {
        let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
        digits.and_then(|digits| u64::from_str_radix(digits, 16).ok())
    };
    let anvil = &shared.stage.anvil;
    let token = shared.stage.paid_token()?;
    let head = hex(&anvil.rpc("eth_blockNumber", json!([]))?).context("no block number")?;
    let mut records = shared.records.lock().unwrap_or_else(PoisonError::into_inner);
    let newest = records.next_block;
    while records.next_block <= head {
        let number = format!("{:#x}", records.next_block);
        let block = anvil.rpc("eth_getBlockByNumber", json!([number, true]))?;
        let transactions = block.get("transactions").and_then(Value::as_array);
        let transactions = transactions.into_iter().flatten();
        let transactions = Value::from_iter(
            transactions.map(|transaction| shown_transaction(transaction, &token)),
        );
        let shown = json!({ "number": records.next_block, "transactions": transactions });
        records.blocks.push_front(shown);
        records.blocks.truncate(BLOCKS);
        records.next_block += 1;
    }
    Ok(records.next_block != newest)
}

/// What it pays and whom, in coins or in the token.
fn shown_transaction(transaction: &Value, token: &Token) -> Value {
    let text = |key: &str| transaction.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |hex: &str| U256::from_str_radix(hex, 16).unwrap_or_default();
    let to = text("to").parse::<EthAddress>().ok();
    let paid = text("input").strip_prefix("0x").and_then(token_call);
    let (to, amount) = match paid.filter(|_| to == Some(token.address)) {
        Some((to, units)) => {
            let amount = token.to_decimal(Units(number(units)));
            (json!(format!("0x{to}")), format!("{amount} {}", token.symbol))
        }
        None => {
            let wei = Wei(number(text("value").trim_start_matches("0x")));
            (json!(transaction.get("to")), format!("{} {COIN}", wei.to_coins()))
        }
    };
    let (hash, from) = (transaction.get("hash"), transaction.get("from"));
    json!({ "hash": hash, "from": from, "to": to, "amount": amount })
}

/// Whom a call of a token pays, or makes some for, and how much, in hex.
fn token_call(input: &str) -> Option<(&str, &str)> {
    let call = TOKEN_CALLS.iter().find_map(|call| input.strip_prefix(call))?;
    Some((call.get(24..64)?, call.get(64..128)?))
}

async fn look_at_audit(shared: &Shared) -> anyhow::Result<bool> {
    let after = shared.records.lock().unwrap_or_else(PoisonError::into_inner).last_audit;
    let rows = shared.stage.database.audit_after(after, 1_000).await?;
    let mut records = shared.records.lock().unwrap_or_else(PoisonError::into_inner);
    for row in &rows {
        records.last_audit = row.sequence;
        records.audit.push_front(json!({
            "sequence": row.sequence, "at": row.at, "action": row.action, "phase": row.phase,
            "outcome": row.outcome, "telegram_id": row.telegram_id, "actor": row.actor,
        }));
    }
    records.audit.truncate(AUDIT_ROWS);
    Ok(!rows.is_empty())
}

fn answer(kind: &'static str, body: &'static str) -> impl Responder {
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header((CONTENT_SECURITY_POLICY, "default-src 'self'; img-src 'self' data:"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(body)
}

async fn index() -> impl Responder {
    answer("text/html; charset=utf-8", include_str!("page/index.html"))
}

async fn css() -> impl Responder {
    answer("text/css; charset=utf-8", include_str!("page/page.css"))
}

async fn script() -> impl Responder {
    answer("text/javascript; charset=utf-8", include_str!("page/page.js"))
}

#[derive(Deserialize)]
struct StateQuery {
    #[serde(default)]
    after: String,
}

/// Everything that the page shows, as soon as it is another than `after`.
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
        json!({
            "id": id, "name": name, "username": username,
            "messages": messages.iter().map(|message| show_message(*id, message)).collect::<Value>(),
            "notices": notices(person),
        })
    });
    let people = Value::from_iter(people);
    let commands = shared.stage.sim.commands();
    let mails = shared
        .stage
        .mailbox
        .mails()
        .into_iter()
        .rev()
        .take(MAILS)
        .map(|mail| json!({ "to": mail.to, "subject": mail.subject, "body": mail.body }));
    let mails = Value::from_iter(mails);
    let records = shared.records.lock().unwrap_or_else(PoisonError::into_inner);
    json!({
        "version": version, "people": people, "commands": commands,
        "blocks": records.blocks, "audit": records.audit, "mails": mails,
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

/// The short notices so far: how many, and the last one.
fn notices(person: &Person) -> Value {
    let notices = person.changes().into_iter().filter_map(|change| match change {
        bot_api_sim::Change::Notice { text } => Some(text),
        _ => None,
    });
    let notices: Vec<_> = notices.collect();
    json!({ "count": notices.len(), "last": notices.last() })
}

fn person(shared: &Shared, who: i64) -> Option<&Person> {
    shared.people.iter().find(|person| person.id() == who)
}

fn refuse(why: impl Into<String>) -> HttpResponse {
    HttpResponse::Conflict().json(json!({ "error": why.into() }))
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
        _ => refuse("a message has 1 to 4096 characters"),
    }
}

#[derive(Deserialize)]
struct Press {
    who: i64,
    message: i64,
    button: String,
}

async fn press(shared: Data<Shared>, Json(press): Json<Press>) -> impl Responder {
    let Some(person) = person(&shared, press.who) else { return refuse("nobody has this id") };
    match person.presses(press.who, press.message, &press.button) {
        Ok(()) => HttpResponse::NoContent().finish(),
        Err(error) => refuse(error.to_string()),
    }
}

#[derive(Deserialize)]
struct Faucet {
    who: i64,
}

async fn faucet(shared: Data<Shared>, Json(faucet): Json<Faucet>) -> impl Responder {
    if !shared.mining.load(Ordering::SeqCst) {
        return refuse("No block is made: make blocks again first.");
    }
    let filled = async {
        let id = TelegramId::try_from(faucet.who)?;
        let account = shared.stage.client.account(id.into()).await?;
        let account = account.context("There is no wallet yet: write /start to the bot first.")?;
        let wei = Wei(U256::from(COINS) * U256::from(10).pow(U256::from(18)));
        let hash = shared.stage.faucet(account.address, wei).await?;
        shared.stage.faucet_tokens(account.address, TOKENS * 1_000_000)?;
        anyhow::Ok(json!({ "coins": COINS, "tokens": TOKENS, "hash": hash }))
    };
    match filled.await {
        Ok(filled) => HttpResponse::Ok().json(filled),
        Err(error) => refuse(error.to_string()),
    }
}

#[derive(Deserialize)]
struct Mining {
    on: bool,
}

/// Without blocks a visitor sees a payment wait and rise; with them again, it is paid.
async fn mining(shared: Data<Shared>, Json(Mining { on }): Json<Mining>) -> impl Responder {
    if let Err(error) = shared.stage.set_mining(on) {
        return refuse(error.to_string());
    }
    shared.mining.store(on, Ordering::SeqCst);
    shared.version.send_modify(|version| *version += 1);
    HttpResponse::NoContent().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payment_is_shown_in_what_it_pays() {
        let address = EthAddress::from([7; 20]);
        let token = Token { symbol: "TUSD".parse().unwrap(), address, decimals: 6 };
        let bob = "ab".repeat(20);
        let input = |call: &str| format!("0x{call}{:0>64}{:064x}", bob, 2_500_000);
        let shown = |to: &str, value: &str, input: &str| {
            let transaction = json!({ "to": to, "value": value, "input": input });
            let shown = shown_transaction(&transaction, &token);
            let text = |key: &str| shown.get(key).unwrap().as_str().unwrap().to_owned();
            (text("to"), text("amount"))
        };
        let (contract, bob) = (address.to_string(), format!("0x{bob}"));
        let paid = shown(&contract, "0x0", &input("a9059cbb"));
        assert_eq!(paid, (bob.clone(), "2.5 TUSD".to_owned()));
        assert_eq!(shown(&contract, "0x0", &input("40c10f19")).1, "2.5 TUSD");
        let half = format!("{:#x}", 500_000_000_000_000_000_u64);
        assert_eq!(shown(&bob, &half, "0x"), (bob.clone(), "0.5 ETH".to_owned()));
        // Another call, one that is cut off, one to somebody else.
        let cut = &input("a9059cbb")[..100];
        for (to, input) in
            [(&contract, &*input("300e8ebe")), (&contract, cut), (&bob, &input("a9059cbb"))]
        {
            assert_eq!(shown(to, "0x0", input), (to.clone(), "0 ETH".to_owned()));
        }
    }
}
