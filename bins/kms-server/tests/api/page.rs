//! The vault page's API: openings that Telegram signed, and what owners do with them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bot_api_sim::{MiniApps, Opening};
use futures::future::join_all;
use kms_client::{Client, ClientError, Trust, Vault};
use kms_core::launch::{LaunchVerifier, TelegramKey, hash_of};
use kms_server_testing::commands::{fails, succeeds};
use kms_server_testing::requests::{COIN, hash, quote, telegram};
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_store::{OpenedLaunch, Scope};
use kms_types::wire::{
    ChangePassword, CompleteRecovery, ConfirmCode, ConfirmShown, EventBody, ExportKey, NewWallet,
    RequestRecovery, SeenUsernames, SetLimit, SetLimitByPassword, TransferState,
};
use kms_types::{ErrorCode, LaunchKey, RecoveryId, SecurityEvent, Timestamp, U256, Units};
use reqwest::StatusCode;
use serde_json::json;

/// Its token is stored nowhere.
pub(crate) const VAULT_BOT: i64 = 7_000_000_002;
/// An attacker who has its token can show a page under it.
pub(crate) const CHAT_BOT: i64 = 7_000_000_001;

/// The id of nothing.
pub(crate) const NOTHING: &str = "00000000-0000-4000-8000-000000000000";

pub(crate) struct World {
    pub(crate) test: TestServer,
    telegram: MiniApps,
    bot: i64,
}

#[expect(clippy::disallowed_methods, reason = "Telegram has a clock of its own")]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Option<ErrorCode> {
    result.unwrap_err().code()
}

impl World {
    pub(crate) async fn new(stores: Stores) -> Self {
        Self::of_bot(stores, VAULT_BOT).await
    }

    /// The page is the Mini App of this bot.
    pub(crate) async fn of_bot(stores: Stores, bot: i64) -> Self {
        let mut env = TestEnv::new(stores).unwrap();
        let telegram = MiniApps::new().unwrap();
        env.page.bots = vec![bot.try_into().unwrap()];
        env.page.telegram_key = telegram.public_key().parse().unwrap();
        env.limits.launches = "1000/minute".parse().unwrap();
        env.recovery.unfreeze_wait = Duration::from_secs(15);
        Self { test: TestServer::start(env).await, telegram, bot }
    }

    pub(crate) fn signed(&self, bot: i64, user: i64, start_param: &str, at: u64) -> String {
        let names = ["", "ann", "bob", "eve"];
        let username = names.get(usize::try_from(user).unwrap()).copied();
        let (first_name, last_name) = ("A/é", None);
        let opening = Opening { bot, user, first_name, last_name, username, start_param, at };
        self.telegram.init_data(opening).unwrap()
    }

    pub(crate) async fn open_with(
        &self,
        init_data: &str,
        key: &LaunchKey,
    ) -> Result<Vault, ClientError> {
        let trust = Trust::Pinned(self.test.env.certificate.clone());
        Vault::open_with(&self.test.page_url(""), init_data, key, trust).await
    }

    pub(crate) async fn open(&self, user: i64, start_param: &str) -> Vault {
        let init_data = self.signed(self.bot, user, start_param, now());
        self.open_with(&init_data, &LaunchKey::random()).await.unwrap()
    }

    /// Ann and Bob made their wallets on the page.
    pub(crate) async fn onboard(&self) {
        for (user, words) in [(1, "ann's"), (2, "bob's")] {
            let body = NewWallet { password_hash: hash(words) };
            let account = self.open(user, "n").await.create(&body).await.unwrap();
            self.test.env.fund(&account, 10 * COIN).unwrap();
        }
    }

    pub(crate) async fn client(&self, scope: Scope) -> (Client, String) {
        let token = self.test.env.issue_token(&self.test.database, scope).await.unwrap();
        (self.test.env.client(self.test.server.address().port(), &token).unwrap(), token)
    }
}

/// Runs tests, which take a [`World`], on both pairs of stores.
macro_rules! on_both_stores {
    ($($test:ident),* $(,)?) => {
        mod embedded {
            $(#[actix_web::test]
            async fn $test() {
                let stores = kms_server_testing::Stores::Embedded;
                super::$test($crate::page::World::new(stores).await).await;
            })*
        }
        mod servers {
            $(#[actix_web::test]
            async fn $test() {
                let stores = kms_server_testing::Stores::Servers;
                super::$test($crate::page::World::new(stores).await).await;
            })*
        }
    };
}

pub(crate) use on_both_stores;

on_both_stores!(
    a_wallet_is_made_and_paid_from_on_the_page,
    an_opening_belongs_to_one_page_for_a_time,
    the_password_and_a_recovery_are_changed_on_the_page,
    a_higher_limit_needs_the_password_and_a_day,
    every_act_has_a_proof,
    an_opening_has_all_usernames_that_are_known,
);

async fn a_wallet_is_made_and_paid_from_on_the_page(world: World) {
    world.onboard().await;
    let (chat, _) = world.client(Scope::Chat).await;
    let page = world.open(1, "n").await;
    // Repeats, after answers that were lost.
    let ann = page.create(&NewWallet { password_hash: hash("ann's") }).await.unwrap();
    assert_eq!((ann.telegram_id.as_i64(), ann.username.unwrap().as_str()), (1, "ann"));
    let other = page.create(&NewWallet { password_hash: hash("guess") }).await;
    assert_eq!(code(other), Some(ErrorCode::AccountExists));

    let quoted = chat.quote(&quote(1, "@bob", "1")).await.unwrap();
    let page = world.open(1, &format!("c{}", quoted.id)).await;
    let shown = page.transfer().await.unwrap();
    assert_eq!(shown.transfer, quoted);
    let body = |words: &str, view: &str| ConfirmShown {
        password_hash: hash(words),
        view: view.to_owned(),
    };
    let changed = page.confirm(&body("ann's", &"0".repeat(64))).await;
    assert_eq!(code(changed), Some(ErrorCode::QuoteMismatch));
    let wrong = page.confirm(&body("guess", &shown.view)).await;
    assert_eq!(code(wrong), Some(ErrorCode::WrongPassword));
    // The page of another user shows and confirms nothing of it.
    let bobs = world.open(2, &format!("c{}", quoted.id)).await;
    assert_eq!(code(bobs.transfer().await), Some(ErrorCode::NoSuchTransfer));
    let confirmed = bobs.confirm(&body("bob's", &shown.view)).await;
    assert_eq!(code(confirmed), Some(ErrorCode::NoSuchTransfer));
    // The page repeats its confirmation: one payment, and the truth.
    for _ in 0..2 {
        let sent = page.confirm(&body("ann's", &shown.view)).await.unwrap();
        assert!(sent.state != TransferState::Quoted && sent.id == quoted.id, "{sent:?}");
    }
    world.test.until(quoted.id, TransferState::Mined).await;

    let home = world.open(1, "").await;
    assert_eq!(home.account().await.unwrap().id, ann.id);
    assert!(
        home.balances().await.unwrap().chains[0].balance.as_ref().unwrap().wei
            < kms_types::Wei(kms_types::U256::from(9 * COIN))
    );
    assert_eq!(home.history().await.unwrap().entries.len(), 1);
    assert!(home.limits().await.unwrap().limits.len() == 1);
    let uses = home.uses().await.unwrap().uses;
    let sends: Vec<_> = uses.iter().filter(|used| used.action == "send").collect();
    let outcomes: Vec<_> = sends.iter().map(|used| used.outcome.as_deref().unwrap()).collect();
    assert_eq!(outcomes, ["wrong_password", "ok"], "{uses:?}");
    assert!(sends.iter().all(|used| used.on_page));
}

async fn an_opening_belongs_to_one_page_for_a_time(world: World) {
    world.onboard().await;
    let key = LaunchKey::random();
    let init_data = world.signed(VAULT_BOT, 1, "", now());
    let first = world.open_with(&init_data, &key).await.unwrap();
    let again = world.open_with(&init_data, &key).await.unwrap();
    assert_eq!(first.opened(), again.opened());
    assert_eq!((first.opened().purpose.as_str(), first.opened().telegram_id.as_i64()), ("", 1));
    let other = world.open_with(&init_data, &LaunchKey::random()).await;
    assert_eq!(code(other), Some(ErrorCode::LaunchUsed));
    let another = world.signed(VAULT_BOT, 2, "", now());
    assert_eq!(code(world.open_with(&another, &key).await), Some(ErrorCode::LaunchUsed));

    // Of many pages with one opening, one acts.
    let raced = world.signed(VAULT_BOT, 1, "x", now());
    let keys: Vec<_> = (0..8).map(|_| LaunchKey::random()).collect();
    let opened = join_all(keys.iter().map(|key| world.open_with(&raced, key))).await;
    let (won, lost): (Vec<_>, Vec<_>) = opened.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 7));
    for refused in lost {
        assert_eq!(code(refused), Some(ErrorCode::LaunchUsed));
    }

    // The clocks of Telegram and of the server differ, and links grow old.
    for (at, fine) in
        [(now() - 200, true), (now() - 400, false), (now() + 30, true), (now() + 120, false)]
    {
        let init_data = world.signed(VAULT_BOT, 1, "", at);
        let opened = world.open_with(&init_data, &LaunchKey::random()).await;
        assert_eq!(opened.is_ok(), fine, "{at}");
        if !fine {
            assert_eq!(code(opened), Some(ErrorCode::InvalidLaunch));
        }
    }
    // A key does not outlive its 15 minutes; a lost answer is repeated until then.
    for (minutes, fine) in [(14, true), (16, false)] {
        let (key, ago) = (LaunchKey::random(), minutes * 60);
        let init_data = world.signed(VAULT_BOT, 1, "", now() - ago);
        let env = &world.test.env.page;
        let verifier = LaunchVerifier { key: env.telegram_key, bots: env.bots.clone() };
        let proof = verifier.verify(&init_data).unwrap().proof;
        let opened_at = Timestamp(i64::try_from((now() - ago) * 1_000).unwrap());
        let opened = OpenedLaunch { proof, key: hash_of(&key), opened_at };
        world.test.database.open_launch(opened, false).await.unwrap();
        let url = world.test.page_url("/app/v1/account");
        let authorization = format!("Launch {}", *key.to_hex());
        let read = world.test.raw().get(&url).header("Authorization", authorization);
        let expected = if fine { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        assert_eq!(read.send().await.unwrap().status(), expected);
        assert_eq!(world.open_with(&init_data, &key).await.is_ok(), fine);
    }

    // Missing and doubled fields, and what Telegram did not sign.
    let good = world.signed(VAULT_BOT, 1, "", now());
    for bad in [
        String::new(),
        good.replace("signature=", "nothing="),
        format!("{good}&auth_date={}", now()),
        format!("{good}&start_param=x"),
        good.replace("%22id%22%3A1", "%22id%22%3A2"),
        world.signed(CHAT_BOT, 1, "", now()),
        MiniApps::new()
            .unwrap()
            .init_data(Opening {
                bot: VAULT_BOT,
                user: 1,
                first_name: "Ann",
                last_name: None,
                username: None,
                start_param: "",
                at: now(),
            })
            .unwrap(),
    ] {
        let refused = world.open_with(&bad, &LaunchKey::random()).await;
        assert_eq!(code(refused), Some(ErrorCode::InvalidLaunch), "{bad}");
    }
}

async fn the_password_and_a_recovery_are_changed_on_the_page(world: World) {
    world.onboard().await;
    let change =
        ChangePassword { old_password_hash: hash("ann's"), new_password_hash: hash("new") };
    world.open(1, "p").await.change_password(&change).await.unwrap();
    let export = |words| ExportKey { password_hash: hash(words) };
    assert_eq!(
        code(world.open(1, "x").await.export(&export("ann's")).await),
        Some(ErrorCode::WrongPassword)
    );
    world.open(1, "x").await.export(&export("new")).await.unwrap();

    let id = RecoveryId::random();
    let ask = world.open(1, "f").await;
    for _ in 0..2 {
        assert_eq!(ask.request_recovery(&RequestRecovery { id }).await.unwrap().id, id);
    }
    // Bob's page for Ann's recovery does nothing.
    let words = CompleteRecovery { new_password_hash: hash("bob's wish") };
    let bobs = world.open(2, &format!("r{id}")).await;
    assert_eq!(code(bobs.complete_recovery(&words).await), Some(ErrorCode::NoSuchRecovery));
    let code_of = ConfirmCode { code: "12345678".parse().unwrap() };
    assert_eq!(code(bobs.confirm_recovery(&code_of).await), Some(ErrorCode::NoSuchRecovery));
    let own = world.open(1, &format!("r{id}")).await;
    let words = || CompleteRecovery { new_password_hash: hash("third") };
    for _ in 0..2 {
        own.complete_recovery(&words()).await.unwrap();
    }
}

/// The amount of native coin that the tests set as a limit.
fn limit(amount: &str) -> SetLimit {
    SetLimit {
        asset: kms_types::Asset::Native,
        chain_id: None,
        amount: serde_json::from_value(json!(amount)).unwrap(),
    }
}

async fn a_higher_limit_needs_the_password_and_a_day(world: World) {
    // Made in the chat: the first limit that is set on the page makes the account page-only.
    world.test.ann_and_bob().await;
    let page = world.open(1, "l").await;
    let set = async |amount: &str, words: &str| {
        let SetLimit { asset, chain_id, amount } = limit(amount);
        let password_hash = hash(words);
        page.set_limit(&SetLimitByPassword { asset, chain_id, amount, password_hash }).await
    };
    let account = async || page.account().await.unwrap();
    assert_eq!(code(set("5", "guess").await), Some(ErrorCode::WrongPassword));
    assert_eq!(page.limits().await.unwrap().limits[0].own, None);
    assert!(!account().await.page_only);
    let five = set("5", "ann's password").await.unwrap();
    assert_eq!(five.limits[0].own, Some(Units(U256::from(5 * COIN))));
    assert!(account().await.page_only);
    assert_eq!(code(set("none", "guess").await), Some(ErrorCode::WrongPassword));
    assert_eq!(page.limits().await.unwrap(), five);
    // A repeat, after an answer that was lost, requests it once.
    let raised = set("6", "ann's password").await.unwrap();
    assert_eq!(raised.limits[0].own, five.limits[0].own);
    assert!(raised.limits[0].later.is_some());
    set("6", "ann's password").await.unwrap();
    let asked = EventBody::Security { kind: SecurityEvent::LimitRaiseRequested };
    let mut found = 0;
    for _ in 0..1_200 {
        let events = world.test.events(1).await.into_iter();
        found = events.filter(|event| event.what == asked).count();
        if found > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(found, 1);
    // The chat lowers a limit without the password, and raises none.
    let refused = world.test.client.set_limit(telegram(1), &limit("7")).await;
    assert_eq!(code(refused), Some(ErrorCode::PageRequired));
    world.test.client.set_limit(telegram(1), &limit("4")).await.unwrap();
    // The owner sees each of them, and which had a wrong password.
    let uses = page.uses().await.unwrap().uses;
    let changes = uses.iter().filter(|used| used.action == "change_limit");
    let shown: Vec<_> =
        changes.map(|used| (used.outcome.as_deref().unwrap(), used.on_page)).collect();
    let wrong = ("wrong_password", true);
    assert_eq!(shown, [wrong, ("ok", true), wrong, ("ok", true), ("ok", true), ("ok", false)]);
    world.test.client.freeze(telegram(1)).await.unwrap();
    assert_eq!(code(set("9", "ann's password").await), Some(ErrorCode::AccountFrozen));
}

/// A new password must not be made of them.
async fn an_opening_has_all_usernames_that_are_known(world: World) {
    assert_eq!(world.open(1, "n").await.opened().usernames, []);
    world.onboard().await;
    let usernames = ["ann", "gold_finch"].map(|name| name.parse().unwrap());
    // Later than the launch that made the wallet, which is of a whole second.
    let seen_at = Timestamp(i64::try_from(now() * 1_000 + 999).unwrap());
    let seen = SeenUsernames { usernames: usernames.to_vec().try_into().unwrap(), seen_at };
    world.test.client.seen_usernames(telegram(1), &seen).await.unwrap();
    assert_eq!(world.open(1, "").await.opened().usernames, usernames);
}

async fn every_act_has_a_proof(mut world: World) {
    world.onboard().await;
    world.open(1, "x").await.export(&ExportKey { password_hash: hash("ann's") }).await.unwrap();
    let id = RecoveryId::random();
    world.open(2, "f").await.request_recovery(&RequestRecovery { id }).await.unwrap();
    let words = CompleteRecovery { new_password_hash: hash("new") };
    world.open(2, &format!("r{id}")).await.complete_recovery(&words).await.unwrap();
    let verify = "audit verify --without-checkpoints --proofs";
    let report = succeeds(&world.test.env, verify);
    assert!(report.contains("5 acts with a proof, 0 without"), "{report}");
    // An act by a token stands out.
    world.test.onboard(3, "eve", "eve's").await;
    let report = succeeds(&world.test.env, verify);
    assert!(report.contains("create by bot-"), "{report}");
    assert!(report.contains("5 acts with a proof, 1 without"), "{report}");
    // An opening under another bot, or under another key than Telegram's, is no proof.
    world.test.env.page.bots = vec![CHAT_BOT.try_into().unwrap()];
    let report = fails(&world.test.env, verify);
    assert!(report.contains("5 acts have a proof that does not show them"), "{report}");
    world.test.env.page.bots = vec![VAULT_BOT.try_into().unwrap()];
    world.test.env.page.telegram_key = TelegramKey::PRODUCTION;
    fails(&world.test.env, verify);
}

#[actix_web::test]
async fn each_door_has_its_own_paths_and_the_public_one_its_headers() {
    let world = World::new(Stores::Embedded).await;
    let (test, http) = (&world.test, world.test.raw());
    let status = async |url: String| http.get(url).send().await.unwrap().status().as_u16();
    let links =
        [format!("/recoveries/{NOTHING}/cancel/00"), format!("/accounts/{NOTHING}/freeze/1/00")];
    for path in ["/v1/networks", "/v1/accounts/telegram:1", "/openapi.json", "/docs/", "/healthz"] {
        assert_eq!(status(test.page_url(path)).await, 404, "{path}");
    }
    for path in ["/app/v1/account", "/app/v1/openapi.json", links[0].as_str(), links[1].as_str()] {
        assert_eq!(status(test.url(path)).await, 404, "{path}");
    }
    assert_eq!(status(test.page_url("/app/v1/account")).await, 401);
    for path in ["/app/v1/openapi.json", "/app/v1/account", links[0].as_str(), "/"] {
        let answer = http.get(test.page_url(path)).send().await.unwrap();
        let header = |name: &str| {
            answer.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        assert!(header("content-security-policy").starts_with("default-src 'none'; "), "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("cache-control"), "no-store", "{path}");
        assert!(header("strict-transport-security").starts_with("max-age="), "{path}");
        assert!(header("permissions-policy").contains("camera=()"), "{path}");
        assert_eq!(header("access-control-allow-origin"), "", "{path}");
    }
    let large =
        http.post(test.page_url("/app/v1/launches")).header("Content-Type", "application/json");
    let large = large.body(vec![b' '; 9 * 1024]).send().await.unwrap();
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[actix_web::test]
async fn openings_are_limited_before_and_after_their_signature_is_checked() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    let telegram = MiniApps::new().unwrap();
    env.page.bots = vec![VAULT_BOT.try_into().unwrap()];
    env.page.telegram_key = telegram.public_key().parse().unwrap();
    env.limits.launches = "2/hour".parse().unwrap();
    env.limits.all_launches = "6/hour".parse().unwrap();
    let world = World { test: TestServer::start(env).await, telegram, bot: VAULT_BOT };
    let open = async |bot, user| {
        let init_data = world.signed(bot, user, "", now());
        world.open_with(&init_data, &LaunchKey::random()).await
    };
    // What Telegram did not sign does not count against the user whom it names.
    for _ in 0..2 {
        assert_eq!(code(open(CHAT_BOT, 1).await), Some(ErrorCode::InvalidLaunch));
    }
    for _ in 0..2 {
        open(VAULT_BOT, 1).await.unwrap();
    }
    assert_eq!(code(open(VAULT_BOT, 1).await), Some(ErrorCode::RateLimited));
    open(VAULT_BOT, 2).await.unwrap();
    let init_data = "x".to_owned();
    let flood = world.open_with(&init_data, &LaunchKey::random()).await;
    assert_eq!(code(flood), Some(ErrorCode::RateLimited), "before the signature");
}
