//! Seeded stories: people write, press and pay, while the bot is killed, calls and answers are lost
//! or slow, and updates come again. Afterwards no password is in any chat, no message shows work in
//! progress, every act has an answer, no person paid more often than they confirmed, and no payment
//! is confirmed or received in two messages.
//!
//! `STORY_SEED` is the first seed, `STORY_RUNS` the number of seeds; a seed is the story of one
//! person. Several run at once with one bot, so a seed repeats what its person does and not what
//! happens at the same time.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bot_api_sim::{ButtonKind, Change, Fault, Phone};
use kms_bot::Bot;
use kms_client::Client;
use kms_sandbox::{Stage, StageOptions};
use kms_types::wire::TransferState;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinError;
use tokio::time::sleep;

use crate::texts::{self, label};
use crate::world::{id, transfers_of};

const SEED: u64 = 1;
const RUNS: u64 = 12;
const AT_ONCE: u64 = 25;
/// How long a person waits for an answer before doing something else.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long after the last fault everything has to be settled.
const SETTLED: Duration = Duration::from_secs(60);
/// The messages that show work in progress.
const WORKING: [&str; 8] = [
    "start-creating",
    "send-looking-up",
    "send-sending",
    "still-working",
    "contact-working",
    "freeze-working",
    "password-changing",
    "recover-working",
];

#[expect(clippy::disallowed_methods, reason = "chooses the seeds of a run")]
fn variable(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn milliseconds(&mut self, end: u64) -> Duration {
        Duration::from_millis(self.below(end))
    }
}

/// A bot in this process that can be killed: its runtime ends wherever its tasks are.
struct Killable {
    runtime: Runtime,
    bot: Bot,
}

impl Killable {
    async fn start(stage: &Stage) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let bot = runtime.spawn(Bot::start(stage.bot_settings().unwrap())).await.unwrap();
        Self { runtime, bot: bot.unwrap() }
    }

    fn kill(self) {
        self.runtime.shutdown_background();
        drop(self.bot);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn seeded_stories_break_no_promise() {
    let (first, runs) = (variable("STORY_SEED", SEED), variable("STORY_RUNS", RUNS));
    let stage = Stage::start(StageOptions { bot: false, ..StageOptions::default() }).await.unwrap();
    let seeds: Vec<_> = (first..first + runs).collect();
    for seeds in seeds.chunks(usize::try_from(AT_ONCE).unwrap()) {
        run(&stage, seeds).await;
    }
    stage.stop().await;
}

async fn run(stage: &Stage, seeds: &[u64]) {
    let mut random = Random(seeds[0]);
    let mut bot = Killable::start(stage).await;
    let mut fates = Random(seeds[0] + 1);
    let (between, mut sent) = (Arc::new(Notify::new()), Random(seeds[0] + 2));
    let kill = Arc::clone(&between);
    stage.sim.decide(move |method| match fates.below(100) {
        // Telegram has the message, and the bot is killed before it knows.
        _ if method == "SendMessage" && sent.below(50) == 0 => {
            kill.notify_one();
            Some(Fault::LateAnswer(Duration::from_secs(2)))
        }
        0..3 => Some(Fault::CallLost),
        3..6 => Some(Fault::AnswerLost),
        6..8 => Some(Fault::BadGateway),
        8 => Some(Fault::TooManyRequests(1)),
        9..14 => Some(Fault::Slow(fates.milliseconds(300))),
        _ => None,
    });
    let acting = seeds.iter().map(|seed| {
        let phone = stage.sim.phone(person(*seed), "Seed", Some(&format!("person{seed}")));
        tokio::spawn(Actor::new(stage, *seed, phone).act())
    });
    let mut acting = std::pin::pin!(futures::future::join_all(acting));
    let (mut kills, mut actors) = (0, Vec::new());
    while actors.is_empty() {
        let event = tokio::select! {
            ended = &mut acting => Event::Ended(ended),
            () = between.notified() => Event::Kill(Duration::from_millis(100)),
            () = sleep(Duration::from_millis(1_500) + random.milliseconds(4_000)) => {
                match random.below(2) {
                    0 => Event::Repeat(usize::try_from(random.below(5)).unwrap()),
                    _ => Event::Kill(Duration::ZERO),
                }
            }
        };
        match event {
            Event::Ended(ended) => actors = ended.into_iter().map(Result::unwrap).collect(),
            Event::Repeat(count) => stage.sim.repeat_updates(count),
            Event::Kill(after) => {
                kills += 1;
                sleep(after).await;
                bot.kill();
                sleep(random.milliseconds(300)).await;
                bot = Killable::start(stage).await;
            }
        }
    }
    stage.sim.decide(|_| None);
    let deadline = Instant::now() + SETTLED;
    loop {
        let open = broken(stage, &actors).await;
        if open.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{kills} kills\n{}", open.join("\n\n"));
        sleep(Duration::from_millis(200)).await;
    }
    bot.kill();
    report(seeds, kills);
}

#[expect(clippy::print_stdout, reason = "read with --nocapture")]
fn report(seeds: &[u64], kills: usize) {
    println!("{} seeds from {}: {kills} kills", seeds.len(), seeds[0]);
}

/// What happens next in a run.
enum Event {
    Ended(Vec<Result<Actor, JoinError>>),
    /// Updates come again.
    Repeat(usize),
    Kill(Duration),
}

fn person(seed: u64) -> i64 {
    10_000 + i64::try_from(seed).unwrap()
}

/// The promises that are not kept yet.
async fn broken(stage: &Stage, actors: &[Actor]) -> Vec<String> {
    let mut broken = Vec::new();
    if stage.sim.stored().contains("canary") {
        broken.push("a password is stored".to_owned());
    }
    for actor in actors {
        let mut fault = |what: &str| {
            let chat = actor.phone.transcript();
            broken.push(format!("STORY_SEED={} STORY_RUNS=1: {what}\n{chat}", actor.seed));
        };
        let changes = actor.phone.person().changes();
        let own = actor.phone.person().id();
        let act = changes.iter().rposition(|change| match change {
            Change::Sent { from, .. } => *from == own,
            Change::Pressed { .. } => true,
            Change::Edited { .. } | Change::Deleted { .. } | Change::Notice { .. } => false,
        });
        let answer = changes.iter().rposition(|change| match change {
            Change::Sent { from, .. } => *from != own,
            Change::Edited { .. } | Change::Notice { .. } => true,
            Change::Pressed { .. } | Change::Deleted { .. } => false,
        });
        if act > answer {
            fault("an act has no answer");
        }
        let chat = actor.phone.person().chat();
        if chat.iter().any(|shown| shown.text.contains(&actor.password)) {
            fault("a password is in the chat");
        }
        let dead = |id: &&str| chat.iter().any(|shown| texts::is(id, &shown.text));
        if let Some(working) = WORKING.iter().find(|id| dead(id)) {
            fault(&format!("{working} is still shown"));
        }
        for ids in [&["transfer-confirmed"][..], &["notice-arriving", "notice-received"]] {
            let reports = |text: &str| ids.iter().any(|id| texts::is(id, text));
            let reports = chat.iter().filter(|shown| reports(&shown.text));
            let mut seen = HashSet::new();
            let again =
                reports.filter_map(|shown| hash(&shown.text)).find(|hash| !seen.insert(*hash));
            if let Some(again) = again {
                fault(&format!("{again} is reported in two messages"));
            }
        }
        let own = stage.client.account(id(&actor.phone).into()).await.unwrap().unwrap().id;
        let paid = transfers_of(stage, id(&actor.phone)).await.into_iter().filter(|transfer| {
            let sent = transfer.from.account == Some(own);
            sent && !matches!(
                transfer.state,
                TransferState::Quoted | TransferState::Cancelled | TransferState::Expired
            )
        });
        let paid = paid.count();
        if paid > actor.confirmed {
            fault(&format!("{paid} payments of {} that were confirmed", actor.confirmed));
        }
    }
    broken
}

/// The transaction that a message names.
fn hash(text: &str) -> Option<&str> {
    text.split_whitespace().find(|word| word.starts_with("0x") && word.len() == 66)
}

/// Pays a coin to an address.
type Fund = Arc<dyn Fn(&str) + Send + Sync>;

/// A person with a story.
struct Actor {
    client: Client,
    fund: Fund,
    seed: u64,
    random: Random,
    phone: Phone,
    password: String,
    /// How often the password was sent to confirm a payment.
    confirmed: usize,
}

impl Actor {
    fn new(stage: &Stage, seed: u64, phone: Phone) -> Self {
        let anvil = Arc::clone(&stage.anvil);
        let fund = move |to: &str| {
            // One at a time: the node chooses the nonce.
            static PAYING: Mutex<()> = Mutex::new(());
            let _paying = PAYING.lock().unwrap();
            let from = anvil.rpc("eth_accounts", json!([])).unwrap()[2].clone();
            let payment = json!({ "from": from, "to": to, "value": "0xde0b6b3a7640000" });
            anvil.rpc("eth_sendTransaction", json!([payment])).unwrap();
            anvil.rpc("anvil_mine", json!(["0x2"])).unwrap();
        };
        let (client, fund) = (stage.client.clone(), Arc::new(fund));
        let password = format!("canary {seed} on a quiet harbour wall");
        Self { client, fund, seed, random: Random(seed), phone, password, confirmed: 0 }
    }

    async fn act(mut self) -> Self {
        let address = loop {
            self.says("/start").await;
            let password = self.password.clone();
            self.says(&password).await;
            if let Ok(Some(account)) = self.client.account(id(&self.phone).into()).await {
                break account.address.to_string();
            }
        };
        let fund = Arc::clone(&self.fund);
        tokio::task::spawn_blocking(move || fund(&address)).await.unwrap();
        for _ in 0..3 + self.random.below(4) {
            match self.random.below(8) {
                0 => self.says("/balance").await,
                1 => self.says("/history").await,
                2 => self.says("/receive").await,
                3 => self.says("/help").await,
                4 => self.presses_something().await,
                _ => self.pays().await,
            }
        }
        self
    }

    async fn says(&mut self, text: &str) {
        let before = self.phone.person().changes().len();
        self.phone.says(text);
        self.waits(before + 1).await;
    }

    /// Waits until something has happened in the chat.
    async fn waits(&mut self, after: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.phone.person().changes().len() <= after && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        sleep(self.random.milliseconds(400)).await;
    }

    async fn presses_something(&mut self) {
        let mut chat = self.phone.person().chat();
        chat.retain(|message| !message.keyboard.is_empty());
        if chat.is_empty() {
            return;
        }
        // The last one, or any earlier one.
        let back = self.random.below(2) * self.random.below(chat.len() as u64);
        let shown = &chat[chat.len() - 1 - usize::try_from(back).unwrap()];
        let buttons = shown.keyboard.iter().flatten();
        let buttons: Vec<_> =
            buttons.filter(|button| matches!(button.kind, ButtonKind::Callback(_))).collect();
        if buttons.is_empty() {
            return;
        }
        let button = buttons[usize::try_from(self.random.below(buttons.len() as u64)).unwrap()];
        let before = self.phone.person().changes().len();
        let person = self.phone.person();
        // The message may have changed meanwhile.
        if person.presses(person.id(), shown.id, &button.text).is_ok() {
            self.waits(before + 1).await;
        }
    }

    async fn pays(&mut self) {
        let other = format!("person{}", self.seed ^ 1);
        let known = self.client.name(&other.parse().unwrap()).await;
        let to = match known {
            Ok(Some(_)) if self.random.below(2) == 0 => format!("@{other}"),
            _ => "0x000000000000000000000000000000000000dEaD".to_owned(),
        };
        self.says(&format!("/send {to} 0.001")).await;
        if !self.until(|shown| texts::is("send-quote", shown)).await {
            return;
        }
        if self.phone.presses(&label("send-confirm-button")).is_err() {
            return;
        }
        if self.until(|shown| texts::is("send-ask-password", shown)).await {
            let password = self.password.clone();
            self.confirmed += 1;
            self.says(&password).await;
            if self.random.below(2) == 0
                && let Some(screen) = self.phone.last_of_bot()
            {
                // She deletes the screen of the payment, or whatever is last.
                let _ = self.phone.person().deletes(screen.id);
            }
        }
    }

    /// Waits until the last message of the bot is this one.
    async fn until(&self, is: impl Fn(&str) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.phone.last_of_bot().is_some_and(|shown| is(&shown.text)) {
                return true;
            }
            sleep(Duration::from_millis(20)).await;
        }
        false
    }
}
