//! A move of the wallet to another Telegram account, as the old chat sees it.

use kms_sandbox::StageOptions;

use crate::world::{Plays, World, id};

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_stops_a_move_in_the_old_chat_and_learns_of_its_end() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let (user, to) = (id(&world.ann), 4_242.try_into().unwrap());
    world.stage.request_move(user, to).await.unwrap();
    let ann = &mut world.ann;
    ann.bot_with("notice-move", &["Telegram user 4242"]).await;
    ann.says("/recover");
    ann.bot_with("notice-move", &["Telegram user 4242"]).await;
    ann.press("recover-stop-button");
    ann.bot("notice-move-over").await;
    let again = world.stage.request_move(user, to).await.unwrap();
    ann.bot("notice-move").await;
    world.stage.finish_move(again).await.unwrap();
    ann.bot("notice-moved").await;
    ann.says("/balance");
    ann.bot("no-wallet").await;
    world.stage.stop().await;
}
