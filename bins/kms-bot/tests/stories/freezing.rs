//! `/freeze`.

use std::time::Duration;

use kms_sandbox::StageOptions;
use kms_types::wire::AccountState;

use crate::world::{ANNS, Plays, World, assert_transcript};

/// A freeze is lifted a second after the password.
fn quick() -> StageOptions {
    StageOptions { recovery_wait: Duration::from_secs(1), ..StageOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_is_frozen_at_once_and_unfrozen_after_the_wait() {
    let mut world = World::with_wallets(quick()).await;
    let ann = &mut world.ann;
    ann.says("/freeze");
    ann.bot("freeze-ask").await;
    ann.press("freeze-now-button");
    ann.bot("freeze-frozen").await;
    ann.says("/freeze");
    ann.bot("freeze-frozen").await;
    ann.press("freeze-lift-button");
    ann.bot("freeze-ask-password").await;
    ann.says("something else entirely");
    ann.bot("problem-wrong-password").await;
    ann.says(ANNS);
    ann.bot("freeze-lifting").await;
    ann.bot("notice-account-unfrozen").await;
    ann.confirms("/send @bob 0.5").await;
    ann.says(ANNS);
    ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    assert_transcript!("frozen", ann);
    world.stage.stop().await;
}

/// Another person knows the password.
#[tokio::test(flavor = "multi_thread")]
async fn the_owner_keeps_the_wallet_frozen() {
    let recovery_wait = Duration::from_secs(120);
    let options = StageOptions { recovery_wait, ..StageOptions::default() };
    let mut world = World::with_wallets(options).await;
    let ann = &mut world.ann;
    ann.says("/freeze");
    ann.bot("freeze-ask").await;
    ann.press("freeze-now-button");
    ann.bot("freeze-frozen").await;
    world.unfreeze(&world.ann, ANNS).await;
    let ann = &mut world.ann;
    ann.bot("notice-unfreeze-requested").await;
    ann.press("freeze-keep-button");
    ann.bot("freeze-frozen").await;
    assert_transcript!("kept_frozen", ann);
    let account = world.account(&world.ann).await;
    assert_eq!((account.state, account.unfreezes_at), (AccountState::FrozenByOwner, None));
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_password_does_not_keep_its_owner_from_cancelling_and_freezing() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let ann = &mut world.ann;
    ann.says("/recover");
    ann.bot("recover-ask").await;
    ann.press("recover-start-button");
    ann.bot("notice-recovery-requested").await;
    ann.says("/password");
    ann.bot("password-ask").await;
    for _ in 0..5 {
        ann.says("not her password\nseven quiet harbours at dawn");
        ann.bot("problem-wrong-password").await;
    }
    ann.says("not her password\nseven quiet harbours at dawn");
    ann.bot("problem-password-locked").await;
    ann.press("recover-stop-button");
    ann.bot("notice-recovery-cancelled").await;
    ann.says("/freeze");
    ann.bot("freeze-ask").await;
    ann.press("freeze-now-button");
    ann.bot("freeze-frozen").await;
    world.stage.stop().await;
}
