//! Buttons of earlier questions, which stay below their messages: each acts on its own question
//! alone.

use kms_sandbox::StageOptions;

use crate::texts::label;
use crate::world::{ANNS, Plays, World, assert_transcript};

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
