//! A second chain: the chat shows what there is on both, and sends on the primary one.

use kms_sandbox::StageOptions;
use kms_testkit::{Anvil, AnvilOptions};
use kms_types::wire::TransferState;

use crate::world::{ANNS, Plays, World, coins};

const SECOND: u64 = 1_040;
const COIN: u128 = 1_000_000_000_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn two_chains_are_shown_and_the_primary_one_is_sent_on() {
    let options = AnvilOptions { chain_id: SECOND, ..AnvilOptions::default() };
    let mut second = Anvil::start_with(options).unwrap();
    let second_chain = Some((SECOND, second.url().into()));
    let options = StageOptions { second_chain, ..StageOptions::default() };
    let mut world = World::with_wallets(options).await;
    let ann = world.account(&world.ann).await;
    second.set_balance(&ann.address.to_string(), 7 * COIN).unwrap();
    let ann = &mut world.ann;
    ann.says("/balance");
    ann.bot_with("balance-coin", &["10 ETH", "7 POL"]).await;
    ann.says("/receive");
    ann.bot_with("receive-address", &["Second", "POL"]).await;
    ann.says("/limit 5");
    ann.bot_with("limit-title", &["Second", "POL"]).await;
    ann.confirms("/send @bob 0.5").await;
    ann.says(ANNS);
    ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    let sent = world.transfers(&world.ann).await;
    assert_eq!((sent.len(), sent[0].chain_id), (1, world.stage.anvil.chain_id()));
    assert!(matches!(sent[0].state, TransferState::Mined | TransferState::Final));
    assert_eq!(world.balance(&world.bob).await, coins("0.5"));
    // What a chain that does not answer has is not shown as nothing.
    second.kill().unwrap();
    world.bob.says("/balance");
    world.bob.bot_with("balance-unavailable", &["Second", "0.5 ETH"]).await;
    world.stage.stop().await;
}
