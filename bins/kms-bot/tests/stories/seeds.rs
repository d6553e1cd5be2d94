//! Seeded stories: people write, press, edit, forward and pay, change and recover their passwords,
//! add contacts and freeze their wallets, some of them on the page, while the bot is killed, calls
//! and answers are lost or slow, and updates come again. [`promises`] are what has to hold
//! afterwards.
//!
//! `STORY_SEED` is the first seed, `STORY_RUNS` the number of seeds; a seed is the story of one
//! person. Several run at once with one bot, and several bots side by side, so a seed repeats what
//! its person does and not what happens at the same time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bot_api_sim::{ButtonKind, Fault, Phone};
use futures::{StreamExt, stream};
use kms_bot::Bot;
use kms_client::hash_password;
use kms_sandbox::{Stage, StageOptions};
use kms_testkit::Anvil;
use kms_types::PasswordHash;
use kms_types::wire::{ConfirmShown, NewWallet};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use crate::account::code_in;
use crate::texts::{self, label};
use crate::world::id;

mod promises;

const SEED: u64 = 1;
const RUNS: u64 = 12;
/// The bots that run side by side, each with a server and a Telegram of its own, and the seeds with
/// each: most of a story's time is waiting.
const BOTS: usize = 4;
const WITH_ONE_BOT: usize = 25;
/// How often a bot is killed: after each, its users wait.
const KILLS: usize = 6;
/// How long before a kill Telegram is slow.
const LAST: Duration = Duration::from_millis(400);
/// How late Telegram makes a call at most.
const LATEST: u64 = 6_000;
/// Before a kill no call is late for this long: what the bot repairs has been repaired.
const REPAIRED: Duration = Duration::from_secs(10);
/// How long a person waits for an answer before doing something else.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long after the last fault Telegram has made every late call, and the bot has repaired what
/// such a call showed.
const LATE_REPAIRS: Duration = Duration::from_secs(12);
/// How long after the last fault everything has to be settled.
const SETTLED: Duration = Duration::from_secs(120);

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
    let seeds: Vec<_> = (first..first + runs).collect();
    let batches = stream::iter(seeds.chunks(WITH_ONE_BOT).map(run));
    let broken = batches.buffer_unordered(BOTS).concat().await;
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
}

/// Runs the stories of some seeds with one bot. Returns the promises that it broke.
async fn run(seeds: &[u64]) -> Vec<String> {
    let recovery_wait = Duration::from_secs(3);
    let options = StageOptions { bot: false, recovery_wait, ..StageOptions::default() };
    let stage = Arc::new(Stage::start(options).await.unwrap());
    let started = Instant::now();
    let mut random = Random(seeds[0]);
    let mut bot = Killable::start(&stage).await;
    let (last, mut fates) = (Arc::new(Mutex::new(None)), Random(seeds[0] + 1));
    let (of_all, may_be_late) = (Arc::clone(&last), Arc::new(AtomicBool::new(true)));
    let late = Arc::clone(&may_be_late);
    stage.sim.decide(move |method| {
        let shows = matches!(method, "SendMessage" | "EditMessageText");
        let fate = fate(&mut fates, late.load(Ordering::Relaxed));
        of_all.lock().unwrap().filter(|_| shows).or(fate)
    });
    let acting = seeds.iter().map(|seed| {
        let phone = stage.sim.phone(person(*seed), "Seed", Some(&format!("person{seed}")));
        tokio::spawn(Actor::new(Arc::clone(&stage), *seed, phone).act())
    });
    let mut acting = std::pin::pin!(futures::future::join_all(acting));
    let mut kills = 0;
    let actors: Vec<_> = loop {
        let kill = kills < KILLS && random.below(2) == 0;
        may_be_late.store(!kill, Ordering::Relaxed);
        let least = if kill { REPAIRED } else { Duration::from_secs(2) };
        let pause = sleep(least + random.milliseconds(3_000));
        tokio::select! {
            ended = &mut acting => break ended.into_iter().map(Result::unwrap).collect(),
            () = pause => {}
        }
        stage.sim.repeat_updates(usize::try_from(random.below(5)).unwrap());
        if kill {
            kills += 1;
            *last.lock().unwrap() = last_calls(&mut random);
            sleep(LAST).await;
            bot.kill();
            // A press that was being answered has no answer any more; the app gives it up.
            stage.sim.expire_presses();
            *last.lock().unwrap() = None;
            sleep(random.milliseconds(300)).await;
            bot = Killable::start(&stage).await;
        }
    };
    let acted = started.elapsed();
    stage.sim.decide(|_| None);
    let is_repaired = sleep(LATE_REPAIRS);
    let deadline = Instant::now() + SETTLED;
    let open = loop {
        let open = promises::broken(&stage, &actors).await;
        if open.is_empty() || Instant::now() > deadline {
            break open;
        }
        sleep(Duration::from_millis(200)).await;
    };
    is_repaired.await;
    let open = if open.is_empty() { promises::dead_prompts(&actors).await } else { open };
    bot.kill();
    drop(actors);
    Arc::into_inner(stage).unwrap().stop().await;
    report(seeds, kills, acted, started.elapsed());
    open
}

/// What happens to a call by chance.
fn fate(random: &mut Random, may_be_late: bool) -> Option<Fault> {
    match random.below(200) {
        0..6 => Some(Fault::CallLost),
        6..12 => Some(Fault::AnswerLost),
        12..14 => Some(Fault::BadGateway),
        14..16 => Some(Fault::ServerError(503)),
        16..18 => Some(Fault::TooManyRequests(1)),
        18 if may_be_late => Some(Fault::Slow(random.milliseconds(LATEST))),
        18..28 => Some(Fault::Slow(random.milliseconds(300))),
        _ => None,
    }
}

/// What happens to all calls that show something to a user, until the bot is killed. Telegram makes
/// them before that or later.
fn last_calls(random: &mut Random) -> Option<Fault> {
    match random.below(3) {
        0 => None,
        1 => Some(Fault::LateAnswer(Duration::from_secs(2))),
        _ => Some(Fault::Slow(LAST + random.milliseconds(1_200))),
    }
}

#[expect(clippy::print_stdout, reason = "read with --nocapture")]
fn report(seeds: &[u64], kills: usize, acted: Duration, took: Duration) {
    let (first, acted, took) = (seeds[0], acted.as_secs(), took.as_secs());
    println!("{} seeds from {first}: {kills} kills in {acted} s, {took} s in all", seeds.len());
}

fn person(seed: u64) -> i64 {
    10_000 + i64::try_from(seed).unwrap()
}

/// Pays a coin to an address.
fn fund(anvil: &Anvil, to: &str) {
    // One at a time: the node chooses the nonce.
    static PAYING: Mutex<()> = Mutex::new(());
    let _paying = PAYING.lock().unwrap();
    let from = anvil.rpc("eth_accounts", json!([])).unwrap()[2].clone();
    let payment = json!({ "from": from, "to": to, "value": "0xde0b6b3a7640000" });
    anvil.rpc("eth_sendTransaction", json!([payment])).unwrap();
    anvil.rpc("anvil_mine", json!(["0x2"])).unwrap();
}

/// A person with a story.
struct Actor {
    stage: Arc<Stage>,
    seed: u64,
    random: Random,
    phone: Phone,
    password: String,
    /// Whether the password is typed on the page, and never in the chat.
    on_page: bool,
    /// How often the password was given to confirm a payment.
    confirmed: usize,
}

impl Actor {
    fn new(stage: Arc<Stage>, seed: u64, phone: Phone) -> Self {
        let password = format!("canary {seed} on a quiet harbour wall");
        let (random, on_page) = (Random(seed), seed.is_multiple_of(4));
        Self { stage, seed, random, phone, password, on_page, confirmed: 0 }
    }

    async fn act(mut self) -> Self {
        // Not everyone at once: each has to wait for a few passwords only.
        sleep(self.random.milliseconds(5_000)).await;
        let address = loop {
            self.onboards().await;
            if let Ok(Some(account)) = self.stage.client.account(id(&self.phone).into()).await {
                break account.address.to_string();
            }
        };
        let anvil = Arc::clone(&self.stage.anvil);
        tokio::task::spawn_blocking(move || fund(&anvil, &address)).await.unwrap();
        for _ in 0..3 + self.random.below(4) {
            match self.random.below(17) {
                0 => self.says("/balance").await,
                1 => self.says("/history").await,
                2 => self.says("/receive").await,
                3 => self.says("/help").await,
                4 | 5 => self.presses_something().await,
                6 => self.limits().await,
                7 => self.edits().await,
                8 => self.forwards().await,
                9 => self.changes_password().await,
                10 => self.adds_contact().await,
                11 => self.freezes().await,
                12 => self.recovers().await,
                _ => self.pays().await,
            }
        }
        self
    }

    async fn onboards(&mut self) {
        self.says("/start").await;
        if self.on_page {
            let link = "https://t.me/wallet_vault_bot/wallet?startapp=n";
            let url = self.phone.person().opens_link(link).unwrap().unwrap();
            if let Ok(page) = self.stage.open_page(&url).await {
                let _ = page.create(&NewWallet { password_hash: self.hash().await }).await;
            }
            return;
        }
        if !self.until(|shown| texts::is("start-welcome", shown)).await {
            return;
        }
        let password = self.password.clone();
        self.says(&password).await;
        let open = ["start-welcome", "start-creating"];
        self.until(|shown| !open.iter().any(|id| texts::is(id, shown))).await;
    }

    async fn hash(&self) -> PasswordHash {
        hash_password(id(&self.phone), &self.password).await
    }

    async fn says(&mut self, text: &str) {
        let before = self.phone.person().changes().len();
        self.phone.says(text);
        self.waits(before + 1).await;
    }

    async fn limits(&mut self) {
        let chosen = usize::try_from(self.random.below(3)).unwrap();
        self.says(["/limit", "/limit 5", "/limit none"][chosen]).await;
    }

    /// Edits the last command, into a payment.
    async fn edits(&mut self) {
        let person = self.phone.person().clone();
        let chat = person.chat();
        let own = chat.iter().rev().find(|message| message.from == person.id());
        let Some(command) = own.filter(|message| message.text.starts_with('/')) else { return };
        let before = person.changes().len();
        if person.edits(command.id, "/send @nobody 0.5").is_ok() {
            self.waits(before + 1).await;
        }
    }

    /// Forwards a message, which has the password in it at times. Where it was never asked for in
    /// the chat, the bot leaves it there.
    async fn forwards(&mut self) {
        let text = match self.random.below(2) {
            0 if !self.on_page => self.password.clone(),
            _ => "see you at the harbour".to_owned(),
        };
        let before = self.phone.person().changes().len();
        self.phone.person().forwards(&text);
        self.waits(before + 1).await;
    }

    async fn changes_password(&mut self) {
        self.says("/password").await;
        if self.on_page || !self.until(|shown| texts::is("password-ask", shown)).await {
            return;
        }
        let new = format!("{} {}", self.password, self.random.below(10));
        self.says(&format!("{}\n{new}", self.password)).await;
        // Otherwise either may be right.
        if self.until(|shown| texts::is("password-changed", shown)).await {
            self.password = new;
        }
    }

    fn address(&self) -> String {
        format!("seed{}@example.org", self.seed)
    }

    async fn adds_contact(&mut self) {
        self.says("/contact").await;
        if self.on_page || !self.presses_below("contact-none", "contact-add-button").await {
            return;
        }
        if !self.until(|shown| texts::is("contact-ask-address", shown)).await {
            return;
        }
        let address = self.address();
        self.says(&address).await;
        if !self.until(|shown| texts::is("contact-ask-password-new", shown)).await {
            return;
        }
        let password = self.password.clone();
        self.says(&password).await;
        if self.until(|shown| texts::is("contact-ask-code", shown)).await {
            self.says_code().await;
        }
    }

    /// Says the code of the last e-mail that has one.
    async fn says_code(&mut self) {
        let mails = self.stage.mailbox.mails_to(&self.address());
        if let Some(code) = mails.iter().rev().find_map(code_in) {
            self.says(&code).await;
        }
    }

    /// Recovers the wallet, as far as that is possible within the person's patience.
    async fn recovers(&mut self) {
        self.says("/recover").await;
        if self.on_page || !self.presses_below("recover-ask", "recover-start-button").await {
            return;
        }
        if self.until(|shown| texts::is("notice-recovery-code-sent", shown)).await {
            self.says_code().await;
        }
        if self.presses_below("notice-recovery-ready", "recover-set-button").await
            && self.until(|shown| texts::is("recover-ask-password", shown)).await
        {
            let new = format!("{} {}", self.password, self.random.below(10));
            self.says(&new).await;
            if self.until(|shown| texts::is("recover-done", shown)).await {
                self.password = new;
            }
        }
    }

    /// Freezes the wallet, or unfreezes it.
    async fn freezes(&mut self) {
        self.says("/freeze").await;
        if self.presses_below("freeze-ask", "freeze-now-button").await {
            self.until(|shown| texts::is("freeze-frozen", shown)).await;
        }
        if self.presses_below("freeze-frozen", "freeze-lift-button").await
            && !self.on_page
            && self.until(|shown| texts::is("freeze-ask-password", shown)).await
        {
            let password = self.password.clone();
            self.says(&password).await;
        }
    }

    /// Presses a button of the last message, once that is this one.
    async fn presses_below(&mut self, id: &str, button: &str) -> bool {
        let before = self.phone.person().changes().len();
        let pressed = self.until(|shown| texts::is(id, shown)).await
            && self.phone.presses(&label(button)).is_ok();
        if pressed {
            self.waits(before + 1).await;
        }
        pressed
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
        let known = self.stage.client.name(&other.parse().unwrap()).await;
        let to = match known {
            Ok(Some(_)) if self.random.below(2) == 0 => format!("@{other}"),
            _ => "0x000000000000000000000000000000000000dEaD".to_owned(),
        };
        self.says(&format!("/send {to} 0.001")).await;
        if !self.until(|shown| texts::is("send-quote", shown)).await {
            return;
        }
        if self.on_page {
            self.confirms_on_page().await;
        } else if self.phone.presses(&label("send-confirm-button")).is_ok()
            && self.until(|shown| texts::is("send-ask-password", shown)).await
        {
            let password = self.password.clone();
            self.confirmed += 1;
            self.says(&password).await;
        } else {
            return;
        }
        if self.random.below(2) == 0
            && let Some(screen) = self.phone.last_of_bot()
        {
            // She deletes the screen of the payment, or whatever is last.
            if !promises::SPEAKS_FOR_OTHERS.iter().any(|id| texts::is(id, &screen.text)) {
                let _ = self.phone.person().deletes(screen.id);
            }
        }
    }

    /// By the button of the last message, if it has one.
    async fn confirms_on_page(&mut self) {
        let Ok(url) = self.phone.opens(&label("page-confirm-button")) else { return };
        let Ok(page) = self.stage.open_page(&url).await else { return };
        let Ok(shown) = page.transfer().await else { return };
        self.confirmed += 1;
        let before = self.phone.person().changes().len();
        let confirm = ConfirmShown { password_hash: self.hash().await, view: shown.view };
        if page.confirm(&confirm).await.is_ok() {
            self.waits(before).await;
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
