//! Bots whose token may not pass on passwords: every secret act is on the vault page, and the chat
//! shows what came of it.

use std::time::Duration;

use bot_api_sim::{Fault, Phone};
use kms_client::{Vault, hash_password};
use kms_sandbox::{Stage, StageOptions};
use kms_types::wire::{
    ChangeEmail, ChangePassword, CompleteRecovery, ConfirmCode, ConfirmShown, ExportKey, NewWallet,
    ReplaceTransfer, RequestRecovery, SetLimitByPassword, Unfreeze,
};
use kms_types::{Asset, PasswordHash, RecoveryId, ReplacementId};

use crate::account::{code, mail};
use crate::process::BotProcess;
use crate::texts::{self, label};
use crate::waiting::{rpc, too_expensive};
use crate::world::{ANNS, BOBS, Plays, World, assert_transcript, coins, id};

/// Opens the page by the last button with this label.
pub(crate) async fn opens(stage: &Stage, phone: &Phone, button: &str) -> Vault {
    let url = phone.opens(&label(button)).unwrap_or_else(|error| panic!("{error}"));
    stage.open_page(&url).await.unwrap()
}

/// No user has a wallet.
async fn world() -> World {
    World::with(StageOptions { chat_passwords: false, ..StageOptions::default() }).await
}

pub(crate) async fn hash(phone: &Phone, password: &str) -> PasswordHash {
    hash_password(id(phone), password).await
}

/// Makes a wallet on the page that the last button opens.
pub(crate) async fn creates(stage: &Stage, phone: &Phone, password: &str) {
    let page = opens(stage, phone, "page-create-button").await;
    assert_eq!(page.opened().telegram_id, id(phone));
    let password_hash = hash(phone, password).await;
    page.create(&NewWallet { password_hash }).await.unwrap();
}

/// Confirms the payment that the last button is about.
pub(crate) async fn confirms(stage: &Stage, phone: &Phone) {
    let page = opens(stage, phone, "page-confirm-button").await;
    let view = page.transfer().await.unwrap().view;
    let password_hash = hash(phone, ANNS).await;
    page.confirm(&ConfirmShown { password_hash, view }).await.unwrap();
}

/// Both have wallets, made on the page, and Ann has ten coins.
async fn onboarded() -> World {
    onboarded_with(StageOptions::default()).await
}

async fn onboarded_with(options: StageOptions) -> World {
    let mut world = World::with(StageOptions { chat_passwords: false, ..options }).await;
    for (phone, password) in [(&mut world.ann, ANNS), (&mut world.bob, BOBS)] {
        phone.says("/start");
        phone.bot("start-welcome-on-page").await;
        creates(&world.stage, phone, password).await;
        phone.bot("start-created").await;
        phone.bot("contact-offer").await;
        phone.forget();
    }
    let ann = world.account(&world.ann).await;
    world.stage.faucet(ann.address, coins("10")).await.unwrap();
    world.ann.bot_with("notice-received", &["10 ETH"]).await;
    world.ann.forget();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_makes_a_wallet_on_the_page_and_the_chat_shows_it() {
    let mut world = world().await;
    let ann = &mut world.ann;
    ann.says("/start send");
    ann.bot("start-welcome-on-page").await;
    ann.says("what is this?");
    ann.bot("unexpected-newcomer").await;
    // Out of habit.
    ann.says(ANNS);
    ann.bot("page-password-deleted").await;
    world.forgets(ANNS).await;
    creates(&world.stage, &world.ann, BOBS).await;
    let account = world.account(&world.ann).await;
    let World { stage, mut ann, .. } = world;
    assert!(account.page_only && account.created_by.is_none());
    ann.bot_with("start-created", &[&account.address.to_string()]).await;
    ann.bot("contact-offer").await;
    // The link by which Ann came.
    ann.bot("send-ask-recipient").await;
    ann.says("/start");
    ann.bot_with("start-existing", &[&account.address.to_string()]).await;
    assert_transcript!("page_onboarding", ann);
    stage.stop().await;
}

/// Once each: the wallet, the offer of contacts, and what the link by which Ann came asks for.
fn assert_shown_once(ann: &Phone) {
    let chat = ann.person().chat();
    let shown = |id| chat.iter().filter(|shown| texts::is(id, &shown.text)).count();
    let ids = ["start-created", "contact-offer", "send-ask-recipient", "start-existing"];
    assert_eq!(ids.map(shown), [1, 1, 1, 0], "{}", ann.transcript());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_is_made_on_the_page_while_the_bot_is_down() {
    let options = StageOptions { bot: false, chat_passwords: false, ..StageOptions::default() };
    let World { stage, mut ann, .. } = World::with(options).await;
    let bot = BotProcess::start(&stage);
    ann.says("/start send");
    ann.bot("start-welcome-on-page").await;
    bot.kill();
    creates(&stage, &ann, ANNS).await;
    let _bot = BotProcess::start(&stage);
    ann.bot("start-created").await;
    ann.bot("contact-offer").await;
    ann.bot("send-ask-recipient").await;
    assert_shown_once(&ann);
    stage.stop().await;
}

/// The wallet was shown, and the rest was not.
#[tokio::test(flavor = "multi_thread")]
async fn contacts_are_offered_although_the_bot_was_killed_when_it_showed_the_wallet() {
    let options = StageOptions { bot: false, chat_passwords: false, ..StageOptions::default() };
    let World { stage, mut ann, .. } = World::with(options).await;
    let bot = BotProcess::start(&stage);
    ann.says("/start send");
    ann.bot("start-welcome-on-page").await;
    stage.sim.break_next("SendMessage", Fault::LateAnswer(Duration::from_secs(60)));
    creates(&stage, &ann, ANNS).await;
    ann.bot("start-created").await;
    bot.kill();
    let _bot = BotProcess::start(&stage);
    ann.bot("contact-offer").await;
    ann.bot("send-ask-recipient").await;
    assert_shown_once(&ann);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_confirmed_on_the_page_and_shown_in_its_message() {
    let world = onboarded().await;
    rpc(&world, "evm_setAutomine", serde_json::json!([false]));
    let World { stage, mut ann, mut bob } = world;
    ann.says("/send @bob 2");
    let quote = ann.bot("send-quote").await;
    ann.says(ANNS);
    ann.bot("page-password-deleted").await;
    confirms(&stage, &ann).await;
    ann.bot("transfer-waits-for-network").await;
    stage.anvil.rpc("anvil_mine", serde_json::json!(["0x1"])).unwrap();
    let confirmed = ann.bot_with("transfer-confirmed", &["2 ETH"]).await;
    assert_eq!(confirmed.id, quote.id, "one message shows the payment");
    bob.bot_with("notice-arriving", &["2 ETH", "@ann"]).await;
    // Nothing waits for a password any more.
    ann.says("thanks");
    ann.bot("unexpected-text").await;

    ann.says("/send @bob 1");
    ann.bot("send-quote").await;
    ann.press("send-cancel-button");
    ann.bot_with("transfer-cancelled", &["1 ETH"]).await;
    let account = stage.client.account(id(&bob).into()).await.unwrap().unwrap();
    assert_eq!(stage.chain_balance(account.address).unwrap(), coins("2"));
    assert_transcript!("page_confirm", ann);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chat_sends_every_secret_act_to_the_page_and_shows_its_end() {
    let World { stage, mut ann, .. } = onboarded().await;
    let second = "seven quiet harbours at dawn";
    ann.says("/password");
    ann.bot("password-on-page").await;
    ann.says(&format!("{ANNS}\n{second}"));
    ann.bot("page-password-deleted").await;
    let change = ChangePassword {
        old_password_hash: hash(&ann, ANNS).await,
        new_password_hash: hash(&ann, second).await,
    };
    opens(&stage, &ann, "page-button").await.change_password(&change).await.unwrap();
    ann.bot("notice-password-changed").await;

    // A lower limit is set in the chat.
    ann.says("/limit 5");
    ann.bot("limit-title").await;
    ann.says("/limit 6");
    ann.bot("limit-on-page").await;
    let raise = SetLimitByPassword {
        asset: Asset::Native,
        chain_id: None,
        amount: "6".to_owned().try_into().unwrap(),
        password_hash: hash(&ann, second).await,
    };
    opens(&stage, &ann, "page-button").await.set_limit(&raise).await.unwrap();
    ann.bot("notice-limit-raise-requested").await;

    ann.says("/export");
    ann.bot("export-on-page").await;
    let export = ExportKey { password_hash: hash(&ann, second).await };
    opens(&stage, &ann, "page-button").await.export(&export).await.unwrap();
    ann.bot("notice-key-exported").await;

    // What stops a thief needs no page.
    ann.says("/freeze");
    ann.bot("freeze-ask").await;
    ann.press("freeze-now-button");
    ann.bot("freeze-frozen").await;
    ann.press("freeze-lift-button");
    ann.bot("freeze-on-page").await;
    let lift = Unfreeze { password_hash: hash(&ann, second).await };
    opens(&stage, &ann, "page-button").await.unfreeze(&lift).await.unwrap();
    ann.bot("notice-unfreeze-requested").await;
    ann.bot("notice-account-unfrozen").await;
    assert_transcript!("page_acts", ann);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_added_and_a_wallet_recovered_on_the_page() {
    // Nine seconds with a code.
    let recovery_wait = Duration::from_secs(27);
    let options = StageOptions { recovery_wait, ..StageOptions::default() };
    let mut world = onboarded_with(options).await;
    world.ann.says("/contact");
    world.ann.bot("contact-none").await;
    world.ann.press("contact-add-button");
    world.ann.bot("contact-on-page").await;
    let page = opens(&world.stage, &world.ann, "page-button").await;
    let email = Some("ann@example.org".parse().unwrap());
    let password_hash = hash(&world.ann, ANNS).await;
    page.change_email(&ChangeEmail { email, password_hash }).await.unwrap();
    world.ann.bot("notice-email-change-requested").await;
    let typed = |mail| ConfirmCode { code: code(&mail).parse().unwrap() };
    // The sign by which Ann knows the page is hers alone: not yet that of the new address.
    let sign = page.sign().await.unwrap().sign;
    let code_mail = mail(&world.stage, 1).await;
    assert!(!code_mail.body.contains(&sign));
    page.confirm_email(&typed(code_mail)).await.unwrap();
    world.ann.bot("notice-email-changed").await;
    assert!(mail(&world.stage, 2).await.body.contains(&sign));

    world.ann.says("/recover");
    world.ann.bot("recover-ask").await;
    let ask = RequestRecovery { id: RecoveryId::random() };
    let page = opens(&world.stage, &world.ann, "recover-start-button").await;
    page.request_recovery(&ask).await.unwrap();
    world.ann.bot("notice-recovery-code-on-page").await;
    let page = opens(&world.stage, &world.ann, "page-recover-button").await;
    page.confirm_recovery(&typed(mail(&world.stage, 3).await)).await.unwrap();
    world.ann.bot("notice-recovery-confirmed").await;
    world.ann.bot("notice-recovery-ready").await;
    let new_password_hash = hash(&world.ann, "velvet tractor ate my homework").await;
    let page = opens(&world.stage, &world.ann, "page-recover-button").await;
    page.complete_recovery(&CompleteRecovery { new_password_hash }).await.unwrap();
    world.ann.bot("notice-recovery-completed").await;
    // Another one is stopped in the chat.
    world.ann.says("/recover");
    world.ann.bot("recover-ask").await;
    let ask = RequestRecovery { id: RecoveryId::random() };
    let page = opens(&world.stage, &world.ann, "recover-start-button").await;
    page.request_recovery(&ask).await.unwrap();
    world.ann.bot("notice-recovery-requested").await;
    world.ann.press("recover-stop-button");
    world.ann.bot("notice-recovery-cancelled").await;
    assert_transcript!("page_recovery", world.ann);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_waits_is_sped_up_on_the_page() {
    let mut world = onboarded().await;
    rpc(&world, "evm_setAutomine", serde_json::json!([false]));
    world.ann.says("/send @bob 0.5");
    world.ann.bot("send-quote").await;
    confirms(&world.stage, &world.ann).await;
    world.ann.bot("transfer-waits-for-network").await;
    too_expensive(&mut world).await;
    let page = opens(&world.stage, &world.ann, "page-speed-up-button").await;
    let max_fee = page.replacement_fee().await.unwrap().max_fee;
    let (id, password_hash) = (ReplacementId::random(), hash(&world.ann, ANNS).await);
    page.replace(&ReplaceTransfer { id, password_hash, max_fee }).await.unwrap();
    world.ann.bot("transfer-waits-replaced").await;
    rpc(&world, "anvil_mine", serde_json::json!(["0x1"]));
    world.ann.bot("transfer-confirmed").await;
    world.stage.stop().await;
}

/// The bot's token may pass on passwords. Ann has opened the page all the same, Bob has not.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_used_the_page_is_never_asked_in_the_chat() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let second = "seven quiet harbours at dawn";
    let link = "https://t.me/wallet_vault_bot/wallet?startapp=p";
    let url = world.ann.person().opens_link(link).unwrap().unwrap();
    let change = ChangePassword {
        old_password_hash: hash(&world.ann, ANNS).await,
        new_password_hash: hash(&world.ann, second).await,
    };
    let page = world.stage.open_page(&url).await.unwrap();
    page.change_password(&change).await.unwrap();
    world.ann.bot("notice-password-changed").await;
    let World { stage, mut ann, mut bob } = world;
    ann.says("/send @bob 1");
    ann.bot("send-quote").await;
    ann.says(second);
    ann.bot("page-password-deleted").await;
    ann.says("/password");
    ann.bot("password-on-page").await;
    bob.says("/password");
    bob.bot("password-ask").await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_link_of_the_page_the_user_is_sent_to_the_operator() {
    let options =
        StageOptions { chat_passwords: false, page_link: false, ..StageOptions::default() };
    let mut world = World::with(options).await;
    world.ann.says("/start");
    world.ann.bot("page-missing").await;
    // There is no question that a password could answer.
    world.ann.says("hello");
    world.ann.bot("unexpected-newcomer").await;
    assert_transcript!("page_missing", world.ann);
    world.stage.stop().await;
}

/// It was made when passwords were still typed in the chat.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_button_that_requests_a_recovery_leads_to_the_page() {
    let World { stage, mut ann, .. } = onboarded().await;
    ann.says("/limit");
    let old = ann.bot("limit-title").await.id;
    let data = format!("recover:request:{}", RecoveryId::random());
    ann.person().forges(ann.person().id(), old, &data).unwrap();
    let shown = ann.bot("recover-ask").await;
    assert_eq!(shown.id, old, "in place of the old button");
    let ask = RequestRecovery { id: RecoveryId::random() };
    opens(&stage, &ann, "recover-start-button").await.request_recovery(&ask).await.unwrap();
    ann.bot("notice-recovery-requested").await;
    stage.stop().await;
}
