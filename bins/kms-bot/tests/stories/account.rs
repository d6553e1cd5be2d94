//! `/password`, `/recover` and `/contact`.

use std::time::Duration;

use bot_api_sim::Change;
use kms_sandbox::{Mail, Stage, StageOptions};

use crate::texts;
use crate::world::{ANNS, Plays, World, assert_transcript, data};

const NEW: &str = "seven quiet harbours at dawn";

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_changed_and_the_old_one_stops_working() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let ann = &mut world.ann;
    ann.says("/password");
    ann.bot("password-ask").await;
    ann.says(ANNS);
    ann.bot("password-two-lines").await;
    ann.says(&format!("{ANNS}\n{ANNS}"));
    ann.bot("password-unchanged").await;
    ann.says(&format!("{ANNS}\npassword123"));
    ann.bot("password-guessable").await;
    ann.says(&format!("something else entirely\n{NEW}"));
    ann.bot("problem-wrong-password").await;
    ann.says(&format!("{ANNS}\n{NEW}"));
    ann.bot("password-changed").await;
    ann.confirms("/send @bob 0.5").await;
    ann.says(ANNS);
    ann.bot("send-wrong-password").await;
    ann.says(NEW);
    ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    assert_transcript!("password", world.ann);
    world.stage.stop().await;
}

/// By any client.
#[tokio::test(flavor = "multi_thread")]
async fn the_owner_is_notified_of_an_exported_key() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.export(&world.ann, ANNS).await;
    world.ann.bot("notice-key-exported").await;
    assert_transcript!("exported", world.ann);
    world.stage.stop().await;
}

/// A recovery waits for some seconds, or a third of them with the code. Each step is reported only
/// while the next one has not happened, so a story needs time for the steps that it shows.
fn waiting(seconds: u64) -> StageOptions {
    StageOptions { recovery_wait: Duration::from_secs(seconds), ..StageOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_password_is_recovered_at_the_same_address() {
    let mut world = World::with_wallets(waiting(12)).await;
    let address = world.account(&world.ann).await.address;
    let ann = &mut world.ann;
    ann.says("/recover");
    ann.bot("recover-ask").await;
    ann.press("cancel-button");
    ann.bot("cancel-done").await;
    ann.says("/recover");
    ann.bot("recover-ask").await;
    ann.press("recover-start-button");
    ann.bot("notice-recovery-waiting").await;
    ann.bot("notice-recovery-ready").await;
    ann.press("recover-set-button");
    ann.bot("recover-ask-password").await;
    ann.says("1234567890");
    ann.bot("password-guessable").await;
    ann.says(NEW);
    let recovered = ann.bot("recover-done").await;
    assert!(recovered.text.contains(&address.to_string()));
    // Bob was not paid before the recovery.
    ann.says("/send @bob 0.5");
    ann.bot("problem-on-hold").await;
    assert_transcript!("recovery", world.ann);
    assert_eq!(world.account(&world.ann).await.address, address);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_cancels_a_recovery_that_someone_else_requested() {
    let mut world = World::with_wallets(waiting(120)).await;
    let ann = &mut world.ann;
    ann.says("/recover");
    ann.bot("recover-ask").await;
    ann.press("recover-start-button");
    let notice = ann.bot("notice-recovery-waiting").await;
    // Bob has no such button, and its data has no effect for him.
    let (bob, below) = (world.bob.person(), world.bob.last_of_bot().unwrap().id);
    bob.forges(bob.id(), below, &data(&notice, "recover-stop-button")).unwrap();
    world.bob.bot("problem-no-recovery").await;
    let ann = &mut world.ann;
    ann.press("recover-stop-button");
    ann.bot("notice-recovery-cancelled").await;
    // Using the current password cancels a recovery, too.
    ann.says("/recover");
    ann.bot("recover-ask").await;
    ann.press("recover-start-button");
    ann.bot("notice-recovery-waiting").await;
    ann.confirms("/send @bob 0.5").await;
    assert_transcript!("recovery_stopped", world.ann);
    // Security events and payments are two streams, so their messages come in either order.
    let ann = world.ann.person();
    let mut notices = world.stage.sim.phone_in(ann.id(), ann, "Ann");
    notices.forget();
    world.ann.says(ANNS);
    notices.bot("notice-recovery-cancelled").await;
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.stage.stop().await;
}

/// The event that the press causes has no message of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_press_that_stops_a_recovery_has_one_answer() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let ann = &mut world.ann;
    ann.says("/recover");
    ann.bot("recover-ask").await;
    ann.press("recover-start-button");
    ann.bot("notice-recovery-waiting").await;
    ann.press("recover-stop-button");
    ann.bot("notice-recovery-cancelled").await;
    // A later event of the same stream comes after it.
    world.export(&world.ann, ANNS).await;
    world.ann.bot("notice-key-exported").await;
    let changes = world.ann.person().changes();
    let cancelled = changes.iter().filter(|change| match change {
        Change::Sent { shown: Some(shown), .. } | Change::Edited { shown: Some(shown), .. } => {
            texts::is("notice-recovery-cancelled", &shown.text)
        }
        _ => false,
    });
    assert_eq!(cancelled.count(), 1, "{}", world.ann.transcript());
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_e_mail_address_shortens_the_wait() {
    let mut world = World::with_wallets(waiting(18)).await;
    let ann = &mut world.ann;
    ann.says("/contact");
    ann.bot("contact-none").await;
    ann.press("contact-add-button");
    ann.bot("contact-ask-address").await;
    ann.says("ann at example.org");
    ann.bot("contact-address-format").await;
    ann.says("ann@example.org");
    ann.bot("contact-ask-password-new").await;
    ann.says("something else entirely");
    ann.bot("problem-wrong-password").await;
    ann.says(ANNS);
    ann.bot_with("contact-ask-code", &["ann@example.org"]).await;
    ann.says("12345");
    ann.bot("recover-code-format").await;
    let right = code(&mail(&world.stage, 1).await);
    ann.says(&right);
    ann.bot("contact-changed").await;
    mail(&world.stage, 2).await;
    ann.says("/recover");
    ann.bot("recover-ask").await;
    ann.press("recover-start-button");
    ann.bot_with("notice-recovery-code-sent", &["a…@example.org"]).await;
    ann.says(&right);
    ann.bot("problem-wrong-code").await;
    ann.says(&code(&mail(&world.stage, 3).await));
    ann.bot("notice-recovery-confirmed").await;
    ann.bot("notice-recovery-ready").await;
    ann.press("recover-set-button");
    ann.bot("recover-ask-password").await;
    ann.says(NEW);
    ann.bot("recover-done").await;
    ann.says("/contact");
    ann.bot_with("contact-address", &["a…@example.org"]).await;
    ann.press("contact-remove-button");
    ann.bot("contact-ask-password-remove").await;
    ann.says(NEW);
    ann.bot("problem-on-hold").await;
    assert_transcript!("e_mail", world.ann);
    world.stage.stop().await;
}

/// The answer says what the event reports, which has no notice of its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_e_mail_address_is_removed_with_one_answer() {
    let mut world = World::with_wallets(waiting(18)).await;
    let ann = &mut world.ann;
    ann.says("/contact");
    ann.bot("contact-none").await;
    ann.press("contact-add-button");
    ann.bot("contact-ask-address").await;
    ann.says("ann@example.org");
    ann.bot("contact-ask-password-new").await;
    ann.says(ANNS);
    ann.bot("contact-ask-code").await;
    ann.says(&code(&mail(&world.stage, 1).await));
    ann.bot("contact-changed").await;
    ann.says("/contact");
    ann.bot_with("contact-address", &["a…@example.org"]).await;
    ann.press("contact-remove-button");
    ann.bot("contact-ask-password-remove").await;
    ann.says(ANNS);
    ann.bot("contact-removed").await;
    let before = ann.person().chat().len();
    // A later event of the same stream has its notice, and so the earlier one has none.
    world.export(&world.ann, ANNS).await;
    let ann = &mut world.ann;
    ann.bot("notice-key-exported").await;
    assert_eq!(ann.person().chat().len(), before + 1, "{}", ann.transcript());
    ann.says("/contact");
    ann.bot("contact-none").await;
    assert_transcript!("e_mail_removed", world.ann);
    world.stage.stop().await;
}

/// The e-mail to Ann with this number, counted from one.
pub(crate) async fn mail(stage: &Stage, count: usize) -> Mail {
    for _ in 0..1_200 {
        if let Some(mail) = stage.mailbox.mails_to("ann@example.org").get(count - 1) {
            return mail.clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("e-mail {count} did not arrive");
}

pub(crate) fn code(mail: &Mail) -> String {
    code_in(mail).unwrap()
}

pub(crate) fn code_in(mail: &Mail) -> Option<String> {
    mail.body.lines().find_map(|line| line.strip_prefix("    ")).map(str::to_owned)
}
