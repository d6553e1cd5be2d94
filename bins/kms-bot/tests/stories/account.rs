//! `/password`, `/recover` and `/contact`.

use std::time::Duration;

use kms_sandbox::{Mail, Stage, StageOptions};

use crate::world::{ANNS, Plays, World, assert_transcript, data};

const NEW: &str = "seven quiet harbours at dawn";

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_changed_and_the_old_one_does_not_work_any_more() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let ann = &mut world.ann;
    ann.says("/password");
    ann.bot("Write both passwords").await;
    ann.says(ANNS);
    ann.bot("Write both passwords").await;
    ann.says(&format!("{ANNS}\n{ANNS}"));
    ann.bot("The new password is the old one").await;
    ann.says(&format!("{ANNS}\npassword123"));
    ann.bot("too easy to guess").await;
    ann.says(&format!("something else entirely\n{NEW}"));
    ann.bot("That password is wrong").await;
    ann.says(&format!("{ANNS}\n{NEW}"));
    ann.bot("Your new password works").await;
    ann.bot("Your password was changed on").await;
    ann.confirms("/send @bob 0.5").await;
    ann.says(ANNS);
    ann.bot("That password is wrong").await;
    ann.says(NEW);
    ann.bot("Paid 0.5 ETH").await;
    assert_transcript!("password", world.ann);
    world.stage.stop().await;
}

/// Whoever did it, and by whichever client.
#[tokio::test(flavor = "multi_thread")]
async fn an_exported_key_is_told() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.export(&world.ann, ANNS).await;
    let told = world.ann.bot("The key of your wallet was exported on").await;
    assert!(told.text.contains("/send 0x… all"), "{told:?}");
    assert_transcript!("exported", world.ann);
    world.stage.stop().await;
}

/// A recovery waits for a second; a third of it after the code.
fn quick() -> StageOptions {
    StageOptions { recovery_wait: Duration::from_secs(1), ..StageOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_password_is_recovered_at_the_same_address() {
    let mut world = World::with_wallets(quick()).await;
    let address = world.account(&world.ann).await.address;
    let ann = &mut world.ann;
    ann.says("/recover");
    ann.bot("You forgot your password?").await;
    ann.press("✖️ Cancel");
    ann.bot("Nothing was changed").await;
    ann.says("/recover");
    ann.bot("You forgot your password?").await;
    ann.press("🛟 Ask for a new password");
    ann.bot("You can set it from").await;
    ann.bot("The wait is over").await;
    ann.press("🔑 Set the new password");
    ann.bot("Send the new password").await;
    ann.says("1234567890");
    ann.bot("too easy to guess").await;
    ann.says(NEW);
    let recovered = ann.bot("Your wallet is recovered").await;
    assert!(recovered.text.contains(&address.to_string()));
    ann.bot("Your wallet was recovered").await;
    ann.confirms("/send @bob 0.5").await;
    ann.says(NEW);
    ann.bot("Paid 0.5 ETH").await;
    assert_transcript!("recovery", world.ann);
    assert_eq!(world.account(&world.ann).await.address, address);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_was_not_the_owners_is_stopped() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let ann = &mut world.ann;
    ann.says("/recover");
    ann.bot("You forgot your password?").await;
    ann.press("🛟 Ask for a new password");
    let told = ann.bot("You can set it from").await;
    // Bob sees the button nowhere, and its data does nothing for him.
    let (bob, below) = (world.bob.person(), world.bob.last_of_bot().unwrap().id);
    bob.forges(bob.id(), below, &data(&told, "✖️ This was not me: stop it")).unwrap();
    world.bob.bot("There is no recovery").await;
    let ann = &mut world.ann;
    ann.press("✖️ This was not me: stop it");
    ann.bot("Stopped. Your password is what it was").await;
    ann.bot("No new password will be set").await;
    // Or by using the old password.
    ann.says("/recover");
    ann.bot("You forgot your password?").await;
    ann.press("🛟 Ask for a new password");
    ann.bot("You can set it from").await;
    ann.confirms("/send @bob 0.5").await;
    ann.says(ANNS);
    ann.bot("No new password will be set").await;
    ann.bot("Paid 0.5 ETH").await;
    assert_transcript!("recovery_stopped", world.ann);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_e_mail_address_makes_the_wait_short() {
    let mut world = World::with_wallets(quick()).await;
    let ann = &mut world.ann;
    ann.says("/contact");
    ann.bot("You have given no e-mail address").await;
    ann.press("✉️ Give an address");
    ann.bot("Which e-mail address").await;
    ann.says("ann at example.org");
    ann.bot("I can not read that address").await;
    ann.says("ann@example.org");
    ann.bot("Send your password").await;
    ann.says("something else entirely");
    ann.bot("That password is wrong").await;
    ann.says(ANNS);
    ann.bot("I sent a code to ann@example.org").await;
    ann.bot("Another e-mail address was asked for").await;
    ann.says("12345");
    ann.bot("A code has 8 digits").await;
    let right = code(&mail(&world.stage, 1).await);
    ann.says(&right);
    ann.bot("The code is right").await;
    ann.bot("Your e-mail address was changed").await;
    ann.says("/recover");
    ann.bot("You forgot your password?").await;
    ann.press("🛟 Ask for a new password");
    ann.bot("I sent a code to a…@example.org").await;
    ann.says(&right);
    ann.bot("That code is wrong").await;
    ann.says(&code(&mail(&world.stage, 3).await));
    ann.bot("The code is right").await;
    ann.bot("The wait is over").await;
    ann.press("🔑 Set the new password");
    ann.bot("Send the new password").await;
    ann.says(NEW);
    ann.bot("Your wallet is recovered").await;
    ann.bot("Your wallet was recovered").await;
    ann.says("/contact");
    ann.bot("Your e-mail address is a…@example.org").await;
    ann.press("🗑 Forget the address");
    ann.bot("Your address will be forgotten").await;
    ann.says(NEW);
    ann.bot("this works again in").await;
    assert_transcript!("e_mail", world.ann);
    world.stage.stop().await;
}

/// The mail to Ann that this many come to.
async fn mail(stage: &Stage, count: usize) -> Mail {
    for _ in 0..300 {
        if let Some(mail) = stage.mailbox.mails_to("ann@example.org").get(count - 1) {
            return mail.clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("mail {count} never came");
}

fn code(mail: &Mail) -> String {
    let line = mail.body.lines().find_map(|line| line.strip_prefix("    "));
    line.unwrap().to_owned()
}
