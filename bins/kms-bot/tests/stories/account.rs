//! `/password` and `/recover`.

use kms_sandbox::StageOptions;

use crate::world::{ANNS, Plays, World, assert_transcript};

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
    world.stage.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_password_is_recovered_at_the_same_address() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let address = world.account(&world.ann).await.address;
    let ann = &mut world.ann;
    ann.says("/recover");
    ann.bot("You forgot your password").await;
    ann.press("✖️ Cancel");
    ann.bot("Nothing was changed").await;
    ann.says("/recover");
    ann.bot("You forgot your password").await;
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
    world.stage.clear().await;
}
