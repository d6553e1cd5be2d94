//! Every flow of an owner.

use std::collections::BTreeSet;
use std::time::Duration;

use kms_client::{Page, hash_password};
use kms_server_testing::requests::{COIN, quote, telegram};
use kms_types::wire::{CreateAccount, HistoryEntry, RecoveryState, TransferState};
use kms_types::{TelegramId, Timestamp};
use serde_json::{Value, json};

use crate::visit::{Habits, Visit, WIDTHS};
use crate::world::{World, texts};

const OWN: &str = "orange ladder seldom sings";
const RECOVERED: &str = "marmalade for the night train";

#[actix_web::test]
async fn ann_clicks_through_every_flow() {
    let Some(world) = World::new().await else { return };
    let habits = Habits {
        user: 1,
        name: "ann",
        language: "en",
        width: 390,
        widths: WIDTHS,
        scheme: "light",
        by_keys: false,
        loses_answers: false,
    };
    whole_story(&Visit::new(&world, habits).await).await;
    assert!(world.proxy.lost().is_empty());
    // Bob's wallet was made by a bearer token, and the page says so.
    let bob = Visit::new(&world, Habits { user: 2, name: "bob", ..habits }).await;
    bob.open("").await;
    bob.sees("home.title").await;
    bob.reads(bob.text("home.madeby").split('{').next().unwrap()).await;
    // A theme whose hints and buttons cannot be read: axe would find them.
    let visit = Visit::new(&world, habits).await;
    let theme = "%22bg_color%22%3A%22%23ffffff%22%2C%22text_color%22%3A%22%23000000%22%2C\
        %22hint_color%22%3A%22%23cccccc%22%2C%22link_color%22%3A%22%2366bbff%22%2C\
        %22button_color%22%3A%22%2366bbff%22%2C%22button_text_color%22%3A%22%23ffffff%22%2C\
        %22secondary_bg_color%22%3A%22%23eeeeee%22";
    let url = world.opened(habits.user, habits.name, "");
    visit.go(&url.replace("%7B%7D", &format!("%7B{theme}%7D"))).await;
    visit.sees("home.title").await;
    let page = "return getComputedStyle(document.body).backgroundColor";
    assert_eq!(visit.run(page, vec![]).await, json!("rgb(238, 238, 238)"));
    // What turns where motion is wanted stands still elsewhere.
    for (motion, moving) in [("no-preference", 1), ("reduce", 0)] {
        visit.prefers("light", motion).await;
        let script = "const spinner = document.createElement('div');
            spinner.className = 'spinner';
            document.querySelector('main').append(spinner);
            const moving = document.getAnimations().length;
            spinner.remove();
            return moving";
        assert_eq!(visit.run(script, vec![]).await, json!(moving), "{motion}");
    }
    world.close().await;
}

#[actix_web::test]
async fn bela_uses_keys_alone_and_loses_the_answer_of_each_act() {
    let Some(world) = World::new().await else { return };
    let habits = Habits {
        user: 3,
        name: "bela",
        language: "de",
        width: 320,
        widths: WIDTHS,
        scheme: "dark",
        by_keys: true,
        loses_answers: true,
    };
    whole_story(&Visit::new(&world, habits).await).await;
    assert_eq!(world.proxy.lost(), acts(&world).await);
    world.close().await;
}

/// Text twice as large in a window of half the usual width, and a name that is written from right
/// to left.
#[actix_web::test]
async fn large_text_and_a_name_from_right_to_left_fit() {
    let Some(world) = World::new().await else { return };
    let large = "addEventListener('DOMContentLoaded', () => {
        document.documentElement.style.fontSize = '200%'; });";
    let tools = world.browser.cdp();
    let source = json!({ "source": large });
    tools.send_raw("Page.addScriptToEvaluateOnNewDocument", source).await.unwrap();
    let habits = Habits {
        user: 5,
        name: "\u{5de}\u{5e8}\u{5d9}\u{5dd} \u{628}\u{63a}\u{62f}\u{627}\u{62f}\u{64a}",
        language: "de",
        width: 640,
        widths: &[640],
        scheme: "light",
        by_keys: false,
        loses_answers: false,
    };
    let visit = Visit::new(&world, habits).await;
    let phrase = onboard(&visit).await;
    for (purpose, heading) in [
        ("", "home.title"),
        ("l", "lift.title"),
        ("p", "change.title"),
        ("e", "email.title"),
        ("x", "export.title"),
        ("f", "recover.title"),
    ] {
        visit.open(purpose).await;
        visit.sees(heading).await;
    }
    visit.open("").await;
    visit.reads(habits.name).await;
    pays(&visit, &phrase).await;
    world.close().await;
}

/// Everything that the page can do, as its API is documented: a new act cannot be forgotten.
async fn acts(world: &World) -> BTreeSet<String> {
    let url = world.test.page_url("/app/v1/openapi.json");
    let document: Value = world.test.raw().get(url).send().await.unwrap().json().await.unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys().map(|method| method.to_uppercase());
        methods.map(move |method| format!("{method} {path}"))
    });
    operations.filter(|operation| !operation.starts_with("GET ")).collect()
}

async fn whole_story(visit: &Visit<'_>) {
    outside(visit).await;
    let phrase = onboard(visit).await;
    home(visit).await;
    pays(visit, &phrase).await;
    speeds_up(visit, &phrase).await;
    cancels(visit, &phrase).await;
    let email = confirms_email(visit, &phrase).await;
    removes_email(visit, &phrase).await;
    confirms_email(visit, &phrase).await;
    limits(visit, &phrase).await;
    leaves_and_stays(visit, &phrase).await;
    exports(visit, &phrase).await;
    changes_password(visit, &phrase).await;
    recovers(visit, &email).await;
    unfreezes(visit).await;
    effects(visit).await;
}

fn user(visit: &Visit<'_>) -> TelegramId {
    visit.habits.user.try_into().unwrap()
}

async fn outside(visit: &Visit<'_>) {
    let english = texts("en");
    visit.world.browser.goto("about:blank").await.unwrap();
    visit.world.browser.goto(&visit.world.url).await.unwrap();
    visit.reads(&english["outside.title"]).await;
    visit.reads(&english["outside.open"]).await;
    // Without a wallet, every purpose leads to the one for making it.
    if visit.habits.loses_answers {
        visit.world.proxy.cut_opening();
    }
    visit.open("p").await;
    visit.sees("nowallet.title").await;
}

async fn onboard(visit: &Visit<'_>) -> String {
    visit.open("n").await;
    visit.sees("onboard.title").await;
    visit.presses("onboard.create").await;
    visit.reads(visit.text("phrase.write")).await;
    // What is easy to guess is refused here already.
    visit.presses("phrase.own").await;
    for (typed, refused) in [
        ("short", "password.short"),
        ("password123", "password.guessable"),
        (OWN, "password.differs"),
    ] {
        visit.types("password.new", typed).await;
        visit.presses("onboard.create").await;
        let min = visit.text(refused).replace("{min}", "10");
        visit.reads(&min).await;
    }
    visit.looks_at("phrase.own").await;
    visit.open("n").await;
    let words = visit.run("return document.querySelector('.phrase').textContent", vec![]).await;
    visit.presses("phrase.written").await;
    visit.sends("onboard.create").await;
    visit.sees("onboard.done").await;
    let account = visit.world.test.client.account(user(visit).into()).await.unwrap().unwrap();
    visit.world.test.env.fund(&account, 10 * COIN).unwrap();
    let phrase = words.as_str().unwrap().to_owned();
    let listed: BTreeSet<String> =
        serde_json::from_str(include_str!("../../page/vendor/words.json")).unwrap();
    assert_eq!(listed.len(), 7_776);
    assert!(phrase.split(' ').all(|word| listed.contains(word)), "six words");
    assert_eq!(phrase.split(' ').count(), 6);
    visit.open("n").await;
    visit.sees("onboard.had").await;
    // A recipient.
    let bob = CreateAccount {
        telegram_id: 2.try_into().unwrap(),
        password_hash: hash_password(2.try_into().unwrap(), OWN).await,
        usernames: ["bob".parse().unwrap()].into_iter().collect(),
        seen_at: Some(Timestamp(1_000)),
        mobile: None,
        email: None,
    };
    visit.world.test.client.create_account(&bob).await.unwrap();
    phrase
}

async fn home(visit: &Visit<'_>) {
    visit.open("").await;
    visit.sees("home.title").await;
    visit.reads("10\u{a0}ETH").await;
    visit.reads(visit.text("use.create")).await;
    visit.reads(visit.text("use.page")).await;
    let links = "return [...document.querySelectorAll('.links a')].map((a) => a.href.slice(-1))";
    assert_eq!(visit.run(links, vec![]).await, json!(["e", "p", "l", "x", "f"]));
}

async fn pays(visit: &Visit<'_>, phrase: &str) {
    let quoted = visit.world.test.client.quote(&quote(visit.habits.user, "@bob", "0.5")).await;
    let quoted = quoted.unwrap();
    visit.open(&format!("c{}", quoted.id)).await;
    visit.sees("confirm.title").await;
    visit.reads("@bob").await;
    visit.reads(visit.text("warning.first_payment")).await;
    visit.reads(visit.text("sign.yours")).await;
    let shown = "return document.querySelector('.address').textContent.replaceAll(' ', '')";
    assert_eq!(visit.run(shown, vec![]).await, json!(quoted.to.address.to_string()));
    let point = if visit.habits.language == "de" { "0,5" } else { "0.5" };
    let send = visit.text("confirm.send").replace("{amount}", &format!("{point}\u{a0}ETH"));
    visit.presses_text(&send).await;
    visit.reads(visit.text("password.empty")).await;
    visit.types("password", "not my password").await;
    visit.sends_text(&send).await;
    visit.reads(visit.text("password.wrong")).await;
    visit.types("password", phrase).await;
    visit.sends_text(&send).await;
    visit.sees("state.mined").await;
    visit.open(&format!("c{}", quoted.id)).await;
    visit.sees("state.mined").await;
}

async fn speeds_up(visit: &Visit<'_>, phrase: &str) {
    let anvil = &visit.world.test.env.anvil;
    anvil.rpc("evm_setAutomine", json!([false])).unwrap();
    let quoted = visit.world.test.client.quote(&quote(visit.habits.user, "@bob", "0.25")).await;
    let quoted = quoted.unwrap();
    visit.open(&format!("c{}", quoted.id)).await;
    visit.sees("confirm.title").await;
    let point = if visit.habits.language == "de" { "0,25" } else { "0.25" };
    let send = visit.text("confirm.send").replace("{amount}", &format!("{point}\u{a0}ETH"));
    visit.types("password", phrase).await;
    visit.sends_text(&send).await;
    visit.sees("state.broadcast").await;
    visit.open(&format!("s{}", quoted.id)).await;
    visit.sees("speed.title").await;
    visit.types("password", phrase).await;
    visit.sends("speed.do").await;
    visit.sees("state.broadcast").await;
    anvil.rpc("evm_setAutomine", json!([true])).unwrap();
    anvil.rpc("anvil_mine", json!(["0x1"])).unwrap();
    visit.sees("state.mined").await;
}

async fn removes_email(visit: &Visit<'_>, phrase: &str) {
    visit.open("e").await;
    visit.presses("email.remove").await;
    visit.looks_at("email.remove").await;
    visit.types("password", phrase).await;
    // The summary above the form says the same.
    visit.sends_css("details[open] [type=submit]").await;
    visit.sees("email.removed").await;
}

async fn cancels(visit: &Visit<'_>, phrase: &str) {
    let (client, anvil) = (&visit.world.test.client, &visit.world.test.env.anvil);
    anvil.rpc("evm_setAutomine", json!([false])).unwrap();
    let quoted = client.quote(&quote(visit.habits.user, "@bob", "0.125")).await.unwrap();
    visit.open(&format!("c{}", quoted.id)).await;
    visit.sees("confirm.title").await;
    let point = if visit.habits.language == "de" { "0,125" } else { "0.125" };
    let send = visit.text("confirm.send").replace("{amount}", &format!("{point}\u{a0}ETH"));
    visit.types("password", phrase).await;
    visit.sends_text(&send).await;
    visit.sees("state.broadcast").await;
    client.cancel(quoted.id).await.unwrap();
    visit.open(&format!("s{}", quoted.id)).await;
    visit.sees("speed.cancel.title").await;
    // No block takes the payment before the cancellation reaches the network.
    anvil.rpc("anvil_dropAllTransactions", json!([])).unwrap();
    anvil.rpc("evm_setIntervalMining", json!([1])).unwrap();
    let is_cancelled = async || {
        let transfer = client.transfer(quoted.id).await.unwrap().unwrap();
        transfer.state == TransferState::Cancelled
    };
    while !is_cancelled().await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    visit.open(&format!("c{}", quoted.id)).await;
    visit.sees("state.cancelled").await;
    // A cancelled quote costs nothing, and this did.
    visit.reads(visit.text("state.cancelled.paid.text")).await;
    visit.reads(visit.text("confirm.paid")).await;
    anvil.rpc("evm_setIntervalMining", json!([0])).unwrap();
    anvil.rpc("evm_setAutomine", json!([true])).unwrap();
}

async fn confirms_email(visit: &Visit<'_>, phrase: &str) -> String {
    let address = format!("{}@example.org", visit.habits.name);
    let seen = visit.world.mailbox.mails_to(&address).len();
    visit.open("e").await;
    visit.sees("email.title").await;
    visit.types("email.address", "no address").await;
    visit.types("password", phrase).await;
    visit.presses("email.do").await;
    visit.reads(visit.text("email.malformed")).await;
    visit.types("email.address", &address).await;
    visit.sends("email.do").await;
    visit.sees("code.title").await;
    // A request whose answer is lost is repeated, and the last code counts.
    let requested = if visit.habits.loses_answers { 2 } else { 1 };
    let code = code(visit, &address, seen, requested).await;
    visit.types("code", "1234").await;
    visit.presses("code.do").await;
    visit.reads(visit.text("code.malformed")).await;
    visit.types("code", &code).await;
    visit.sends("code.do").await;
    visit.sees("email.done").await;
    address
}

/// The code of the newest e-mail of those after the first `seen`, once no other is on its way.
/// There are as many as were requested.
async fn code(visit: &Visit<'_>, address: &str, seen: usize, requested: usize) -> String {
    for _ in 0..600 {
        let mails = visit.world.mailbox.mails_to(address);
        let codes = mails.iter().skip(seen);
        let codes = codes.filter_map(|mail| mail.body.lines().find_map(|l| l.strip_prefix("    ")));
        let codes: Vec<_> = codes.filter(|code| code.len() >= 8).collect();
        if let (true, Some(code)) = (codes.len() >= requested, codes.last()) {
            return (*code).to_owned();
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("no code: {:#?}", visit.world.mailbox.mails_to(address));
}

async fn limits(visit: &Visit<'_>, phrase: &str) {
    let of_coin = |key: &str| visit.text(key).replace("{symbol}", "ETH");
    let (change, amount) = (of_coin("lift.change"), of_coin("lift.new"));
    visit.open("l").await;
    visit.sees("lift.title").await;
    visit.presses_text(&change).await;
    visit.types_into(&amount, "a lot").await;
    visit.presses("lift.set").await;
    visit.reads(visit.text("lift.malformed")).await;
    visit.types_into(&amount, "2").await;
    visit.presses("lift.set").await;
    visit.reads(visit.text("password.empty")).await;
    visit.looks_at("lift.change").await;
    visit.types("password", "not my password").await;
    visit.sends("lift.set").await;
    visit.reads(visit.text("password.wrong")).await;
    visit.types("password", phrase).await;
    visit.sends("lift.set").await;
    visit.reads(&visit.text("lift.now").replace("{limit}", "2\u{a0}ETH")).await;
    // No limit is a higher one.
    for limit in ["3\u{a0}ETH", visit.text("lift.none")] {
        visit.presses_text(&change).await;
        match limit.strip_suffix("\u{a0}ETH") {
            Some(coins) => visit.types_into(&amount, coins).await,
            None => visit.presses("lift.remove").await,
        }
        visit.types("password", phrase).await;
        visit.sends("lift.set").await;
        visit.reads(&visit.text("lift.later").replace("{limit}", limit)).await;
    }
    visit.sees("lift.title").await;
}

async fn leaves_and_stays(visit: &Visit<'_>, phrase: &str) {
    visit.open("l").await;
    visit.presses("leave.title").await;
    visit.looks_at("leave.title").await;
    visit.types("password", phrase).await;
    visit.sends("leave.do").await;
    visit.reads(visit.text("leave.asked")).await;
    visit.sends("home.stay").await;
    visit.reads(visit.text("leave.stayed")).await;
    let account = visit.world.test.client.account(user(visit).into()).await.unwrap().unwrap();
    assert!(account.page_only && account.leaves_page_at.is_none(), "{account:?}");
}

async fn exports(visit: &Visit<'_>, phrase: &str) {
    visit.open("x").await;
    visit.sees("export.title").await;
    visit.types("password", phrase).await;
    visit.sends("export.do").await;
    // Before the passphrase hides itself.
    visit.reads(visit.text("export.passphrase")).await;
    let script = "const done = arguments[arguments.length - 1];
        const link = document.querySelector('a[download]');
        const name = link.download;
        const words = document.querySelector('.phrase').textContent;
        done({ name, words, isFile: link.href.startsWith('blob:') })";
    let exported = visit.world.browser.execute_async(script, vec![]).await.unwrap();
    let exported: &Value = exported.json();
    assert_eq!(exported["isFile"], json!(true));
    assert!(exported["name"].as_str().unwrap().starts_with("wallet-0x"), "{exported}");
    assert!(exported["words"].as_str().unwrap().len() >= 20, "a passphrase");
    visit.sees("export.done").await;
}

async fn changes_password(visit: &Visit<'_>, phrase: &str) {
    visit.open("p").await;
    visit.sees("change.title").await;
    visit.types("password.old", phrase).await;
    visit.presses("phrase.own").await;
    visit.types("password.new", OWN).await;
    visit.types("password.again", OWN).await;
    visit.sends("change.do").await;
    visit.sees("change.done").await;
}

async fn recovers(visit: &Visit<'_>, email: &str) {
    let client = &visit.world.test.client;
    // One that another party may have asked for.
    visit.open("f").await;
    visit.sees("recover.title").await;
    visit.sends("recover.ask").await;
    visit.sees("recover.open").await;
    visit.sends("recover.end").await;
    visit.sees("recover.stopped").await;
    assert_eq!(client.recovery(user(visit).into()).await.unwrap(), None);
    let seen = visit.world.mailbox.mails_to(email).len();
    visit.open("f").await;
    visit.sees("recover.title").await;
    visit.sends("recover.ask").await;
    visit.sees("recover.open").await;
    let recovery = client.recovery(user(visit).into()).await.unwrap().unwrap();
    let purpose = format!("r{}", recovery.id);
    visit.open(&purpose).await;
    visit.sees("recover.open").await;
    visit.types("code", &code(visit, email, seen, 1).await).await;
    visit.sends("code.do").await;
    visit.reads(visit.text("recover.notyou")).await;
    for _ in 0..600 {
        let now = client.recovery(user(visit).into()).await.unwrap().unwrap();
        if now.state == RecoveryState::Ready {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    visit.open(&purpose).await;
    visit.sees("recover.set").await;
    visit.presses("phrase.own").await;
    visit.types("password.new", RECOVERED).await;
    visit.types("password.again", RECOVERED).await;
    visit.sends("recover.set").await;
    visit.sees("recover.done").await;
    visit.open(&purpose).await;
    visit.sees("recover.none").await;
}

async fn unfreezes(visit: &Visit<'_>) {
    visit.world.test.client.freeze(user(visit).into()).await.unwrap();
    visit.open("l").await;
    visit.reads(visit.text("lift.frozen.text")).await;
    visit.types("password", RECOVERED).await;
    visit.sends("home.unfreeze").await;
    visit.reads(visit.text("lift.unfreezing")).await;
    visit.open("").await;
    visit.sees("home.title").await;
    // The audit shows what was done, and that it was done on the page.
    let more = "document.querySelectorAll('.list + .plain').forEach((button) => button.click())";
    visit.run(more, vec![]).await;
    for key in ["use.send", "use.change_password", "use.export", "use.recover"] {
        visit.reads(visit.text(key)).await;
    }
}

/// Each act had one effect, lost answers or not.
async fn effects(visit: &Visit<'_>) {
    let client = &visit.world.test.client;
    let history = client.transfers(telegram(visit.habits.user), Page::Newest, 20).await.unwrap();
    let states = history.entries.iter().filter_map(|entry| match entry {
        HistoryEntry::Transfer { transfer } => Some(transfer.state),
        _ => None,
    });
    let paid = |state: &TransferState| [TransferState::Mined, TransferState::Final].contains(state);
    let states: Vec<_> = states.collect();
    // One was cancelled on the chain.
    let cancelled = states.iter().filter(|state| **state == TransferState::Cancelled).count();
    let paid = states.iter().filter(|state| paid(state)).count();
    assert_eq!((states.len(), cancelled, paid), (3, 1, 2), "{states:?}");
    let account = client.account(user(visit).into()).await.unwrap().unwrap();
    assert!(account.unfreezes_at.is_some() && account.email_verified_at.is_some());
    assert!(account.recovered_at.is_some());
}
