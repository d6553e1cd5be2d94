//! Buttons of earlier questions, which stay below their messages: each acts on its own question
//! alone.

use std::time::Duration;

use kms_sandbox::StageOptions;

use kms_types::Wei;
use kms_types::wire::TransferState;

use crate::texts::label;
use crate::world::{ANNS, Plays, World, assert_transcript, transfer_of};

async fn world() -> World {
    World::with_wallets(StageOptions::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_button_ends_its_own_question_and_no_later_one() {
    let mut world = world().await;
    let ann = &mut world.ann;
    let person = ann.person().clone();
    let cancel = label("cancel-button");
    ann.says("/send");
    let recipient = ann.bot("send-ask-recipient").await;
    ann.says("@bob");
    let amount = ann.bot("send-ask-amount").await;
    // The question was answered, and the next one is still asked.
    person.presses(person.id(), recipient.id, &cancel).unwrap();
    ann.bot("question-over-notice").await;
    ann.says("/freeze");
    let freeze = ann.bot("freeze-ask").await;
    ann.says("/recover");
    let recover = ann.bot("recover-ask").await;
    ann.says("/send @bob");
    ann.bot("send-ask-amount").await;
    person.presses(person.id(), amount.id, &cancel).unwrap();
    ann.bot("question-over-notice").await;
    // These offered a choice, and asked nothing.
    for choice in [freeze, recover] {
        person.presses(person.id(), choice.id, &cancel).unwrap();
        ann.bot("cancel-done").await;
    }
    ann.says("0.5");
    ann.bot("send-quote").await;
    ann.press("send-confirm-button");
    ann.bot("send-ask-password").await;
    ann.says(ANNS);
    ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    // A second press of the same button cancels nothing either.
    ann.says("/password");
    let asked = ann.bot("password-ask").await;
    let data = crate::world::data(&asked, "cancel-button");
    ann.press("cancel-button");
    ann.bot("cancel-done").await;
    person.forges(person.id(), asked.id, &data).unwrap();
    ann.bot("question-over-notice").await;
    assert_transcript!("old_cancel_buttons", world.ann);
    world.stage.stop().await;
}

/// Telegram shows what is older than two days without its content when a button of it is pressed.
#[tokio::test(flavor = "multi_thread")]
async fn the_buttons_of_an_old_chat_act_or_say_why_not() {
    let options = StageOptions { quote_seconds: 3, ..StageOptions::default() };
    let mut world = World::with_wallets(options).await;
    let ann = &mut world.ann;
    let person = ann.person().clone();
    ann.says("/send @bob 0.25");
    let quote = ann.bot("send-quote").await;
    ann.says("/send");
    let recipient = ann.bot("send-ask-recipient").await;
    ann.says("/history");
    ann.bot("history-title").await;
    ann.says("/start");
    let wallet = ann.bot("start-existing").await;
    world.stage.sim.pass_time(Duration::from_secs(3 * 24 * 3_600));
    let id = transfer_of(&quote);
    while world.stage.client.transfer(id).await.unwrap().unwrap().state == TransferState::Quoted {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    person.presses(person.id(), recipient.id, &label("cancel-button")).unwrap();
    ann.bot("question-over-notice").await;
    person.presses(person.id(), wallet.id, &label("balance-button")).unwrap();
    ann.bot("balance-coin").await;
    person.presses(person.id(), quote.id, &label("send-confirm-button")).unwrap();
    ann.bot("transfer-expired").await;
    ann.press("send-renew-button");
    ann.bot("send-quote").await;
    assert_eq!(world.balance(&world.bob).await, Wei::default());
    world.presses_are_answered().await;
    assert_transcript!("old_buttons", world.ann);
    world.stage.stop().await;
}

/// The recovery may be another person's, and its notice came before the payment.
#[tokio::test(flavor = "multi_thread")]
async fn stopping_a_recovery_leaves_the_question_of_a_payment() {
    let mut world = world().await;
    let ann = &mut world.ann;
    ann.says("/recover");
    ann.bot("recover-ask").await;
    ann.press("recover-start-button");
    ann.bot("notice-recovery-requested").await;
    ann.confirms("/send @bob 0.5").await;
    ann.press("recover-stop-button");
    ann.bot("notice-recovery-cancelled").await;
    ann.says(ANNS);
    ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.stage.stop().await;
}

/// The key stays when its question expires. Its press is a text, and no answer to what is asked
/// since.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_that_cancels_is_no_answer_to_another_question() {
    let mut world = world().await;
    let ann = &mut world.ann;
    ann.confirms("/send @bob 0.5").await;
    ann.says(&label("cancel-button"));
    ann.bot("contact-mobile-cancelled").await;
    ann.says(ANNS);
    ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    world.stage.stop().await;
}
