//! A second chain, whose coin has the symbol of the first one's: the chat shows what there is on
//! both, and sends on the one that a payment names, or that has the money.

use kms_client::Page;
use kms_sandbox::StageOptions;
use kms_types::wire::{LaterLimit, QuoteTransfer, SpendingLimit, TransferState};
use kms_types::{Asset, TransferId, Wei};

use crate::texts;
use crate::world::{ANNS, Plays, World, coins, id, transfer_of};

const SECOND: u64 = 1_040;
const COIN: u128 = 1_000_000_000_000_000_000;

/// A world with a second chain, on which Ann has seven coins.
async fn world() -> World {
    let options = StageOptions { second_chain: Some(SECOND), ..StageOptions::default() };
    let world = World::with_wallets(options).await;
    world.stage.second.as_ref().unwrap().set_balance(&address(&world).await, 7 * COIN).unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn two_chains_are_shown_and_a_payment_names_its_network() {
    let mut world = world().await;
    let ann = &mut world.ann;
    ann.says("/balance");
    let money = ["10 ETH", "7 ETH", "Second"];
    let balance = ann.bot_with("balance-coin", &money).await;
    assert!(texts::is_with("balance-network-named", &["on second"], &balance.text));
    ann.says("/receive");
    ann.bot_with("receive-addresses", &["On Sandbox: ETH", "On Second: ETH"]).await;
    ann.says("/limit 5");
    ann.bot_with("limit-title", &["Sandbox", "Second", "/limit 5 on second"]).await;
    ann.says("/limit 6 ETH on second");
    ann.bot("limit-title").await;
    assert_eq!(own_limit(&world, world.stage.anvil.chain_id()).await, Some(coins("5")));
    assert_eq!(own_limit(&world, SECOND).await, Some(coins("6")));
    let ann = &mut world.ann;
    ann.confirms("/send @bob 0.5 on test").await;
    ann.says(ANNS);
    ann.bot_with("transfer-confirmed", &["0.5 ETH on Sandbox"]).await;
    let sent = world.transfers(&world.ann).await;
    assert_eq!((sent.len(), sent[0].chain_id), (1, world.stage.anvil.chain_id()));
    assert!(matches!(sent[0].state, TransferState::Mined | TransferState::Final));
    assert_eq!(world.balance(&world.bob).await, coins("0.5"));
    let ann = &mut world.ann;
    ann.says("/send @bob 1 ETH on third");
    ann.bot_with("input-unknown-network", &["third", "second"]).await;
    ann.confirms("/send @bob 1.5 ETH on second").await;
    ann.says(ANNS);
    ann.bot_with("transfer-confirmed", &["1.5 ETH on Second"]).await;
    world.bob.bot_with("notice-arriving", &["1.5 ETH on Second"]).await;
    // What a chain that does not answer has is not shown as nothing.
    world.stage.second.as_mut().unwrap().kill().unwrap();
    world.bob.says("/balance");
    world.bob.bot_with("balance-unavailable", &["Second", "0.5 ETH"]).await;
    world.stage.stop().await;
}

/// What the security notice leads to: `/limit` shows a command, and this command cancels the raise
/// on the chain where an attacker requested it.
#[tokio::test(flavor = "multi_thread")]
async fn a_raise_is_cancelled_on_its_own_network_by_the_command_that_is_shown() {
    let mut world = world().await;
    for limit in ["/limit 5", "/limit 6 on second"] {
        world.ann.says(limit);
        world.ann.bot("limit-title").await;
    }
    world.ann.says("/limit 9 on second");
    world.ann.bot("limit-title").await;
    assert!(later_limit(&world, SECOND).await.is_some());
    world.ann.says("/limit");
    let shown = world.ann.bot_with("limit-title", &["/limit 6 ETH on second"]).await;
    let (_, command) = shown.text.split_once("To cancel this: ").unwrap();
    world.ann.says(command.lines().next().unwrap());
    world.ann.bot("limit-title").await;
    assert_eq!(later_limit(&world, SECOND).await, None);
    assert_eq!(own_limit(&world, SECOND).await, Some(coins("6")));
    assert_eq!(own_limit(&world, world.stage.anvil.chain_id()).await, Some(coins("5")));
    world.stage.stop().await;
}

/// What is asked for can be answered with another network, and never exchanges coins.
#[tokio::test(flavor = "multi_thread")]
async fn answers_name_a_network_too() {
    let mut world = world().await;
    // The amount is asked for on the network that was named.
    world.ann.says("/send @bob on second");
    world.ann.bot_with("send-ask-amount", &["ETH on Second"]).await;
    world.ann.says("0.25");
    assert_eq!(quoted(&mut world).await, SECOND);
    world.ann.says("/send @bob");
    world.ann.bot("send-ask-amount").await;
    world.ann.says("0.25 ETH on second");
    assert_eq!(quoted(&mut world).await, SECOND);
    world.ann.says("/send 0.25 ETH");
    world.ann.bot("send-ask-recipient").await;
    world.ann.says("@bob on third");
    world.ann.bot_with("input-unknown-network", &["third"]).await;
    world.ann.says("@bob on second");
    assert_eq!(quoted(&mut world).await, SECOND);
    // A network, or an address that is marked for one.
    let marked = format!("eip155:{SECOND}:0x00000000000000000000000000000000000000cc");
    world.ann.says("/send");
    world.ann.bot("send-ask-recipient").await;
    world.ann.says(&marked);
    world.ann.bot_with("send-ask-amount", &["ETH on Second"]).await;
    world.ann.says("0.25");
    assert_eq!(quoted(&mut world).await, SECOND);
    world.ann.says(&format!("/send {marked} 0.25 on test"));
    world.ann.bot_with("input-two-networks", &["Sandbox", "Second"]).await;
    // Neither is a username.
    for words in ["second 5", "sandbox 5", "5 to test"] {
        world.ann.says(&format!("/send {words}"));
        world.ann.bot("input-network-as-recipient").await;
    }
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_names_no_network_is_on_the_one_that_has_the_money() {
    let mut world = world().await;
    // Both have it: Ann is asked. A text that names none of them is no answer.
    world.ann.says("/send @bob 1 ETH");
    world.ann.bot_with("send-ask-network", &["test (10 ETH)", "second (7 ETH)"]).await;
    world.ann.says("third");
    world.ann.bot_with("input-unknown-network", &["third", "test", "second"]).await;
    world.ann.says("on Second");
    assert_eq!(quoted(&mut world).await, SECOND);
    // Only the primary one has enough.
    world.ann.says("/send @bob 8");
    assert_eq!(quoted(&mut world).await, world.stage.anvil.chain_id());
    // Neither has.
    world.ann.says("/send @bob 11");
    world.ann.bot_with("problem-insufficient-coin", &["1", "Sandbox"]).await;
    // Only the other one has enough: a person has an account on it as well.
    world.stage.second.as_ref().unwrap().set_balance(&address(&world).await, 20 * COIN).unwrap();
    world.ann.says("/send @bob");
    world.ann.bot("send-ask-amount").await;
    world.ann.says("11");
    assert_eq!(quoted(&mut world).await, SECOND);
    // An address may not be one there, so that Ann chooses it.
    world.ann.says("/send 0x00000000000000000000000000000000000000cc 11");
    world.ann.bot_with("send-ask-other-network", &["Second", "20 ETH"]).await;
    world.ann.says("test");
    world.ann.bot_with("problem-insufficient-coin", &["Sandbox"]).await;
    world.ann.says("/send 0x00000000000000000000000000000000000000cc 11");
    world.ann.bot("send-ask-other-network").await;
    world.ann.says("second");
    assert_eq!(quoted(&mut world).await, SECOND);
    // What a chain that does not answer has is not known: the others decide, and the chat says so
    // unless the primary one has enough.
    world.stage.second.as_mut().unwrap().kill().unwrap();
    world.ann.says("/send @bob 1");
    assert_eq!(quoted(&mut world).await, world.stage.anvil.chain_id());
    world.ann.says("/send @bob 11");
    world.ann.bot_with("send-unavailable", &["Second"]).await;
    world.ann.bot_with("problem-insufficient-coin", &["Sandbox"]).await;
    world.ann.says("/send @bob 11 on second");
    world.ann.bot_with("problem-chain-unavailable", &["Second"]).await;
    world.stage.stop().await;
}

/// The limit that Ann set for the coin of a chain.
async fn own_limit(world: &World, chain_id: u64) -> Option<Wei> {
    coin_limit(world, chain_id).await.own.map(|own| Wei(own.0))
}

/// The higher limit that Ann requested for it.
async fn later_limit(world: &World, chain_id: u64) -> Option<LaterLimit> {
    coin_limit(world, chain_id).await.later
}

async fn coin_limit(world: &World, chain_id: u64) -> SpendingLimit {
    let limits = world.stage.client.limits(id(&world.ann).into()).await.unwrap().limits;
    let of_chain = |limit: &SpendingLimit| limit.chain_id == chain_id && limit.token.is_none();
    limits.into_iter().find(of_chain).unwrap()
}

async fn address(world: &World) -> String {
    world.account(&world.ann).await.address.to_string()
}

/// The chain of the quote that Ann is shown next.
async fn quoted(world: &mut World) -> u64 {
    let screen = world.ann.bot("send-quote").await;
    let transfer = world.stage.client.transfer(transfer_of(&screen)).await.unwrap().unwrap();
    transfer.chain_id
}

/// A coin of a test chain, which is worth nothing, is not taken for one of the primary chain.
#[tokio::test(flavor = "multi_thread")]
async fn money_of_another_chain_is_shown_with_the_name_of_its_chain() {
    let mut world = world().await;
    let bob = world.account(&world.bob).await;
    world.stage.faucet_on_second(bob.address, coins("5")).await.unwrap();
    world.bob.bot_with("notice-received", &["5 ETH on Second"]).await;
    world.stage.faucet(bob.address, coins("3")).await.unwrap();
    world.bob.bot_with("notice-received", &["3 ETH on Sandbox"]).await;

    // A client that names the chain quotes a payment on it; the chat quotes it again there.
    let quote = QuoteTransfer {
        id: TransferId::random(),
        from: id(&world.ann).into(),
        to: "@bob".parse().unwrap(),
        amount: "2".to_owned().try_into().unwrap(),
        asset: Asset::Native,
        chain_id: Some(SECOND),
        client_ref: None,
    };
    let old = world.stage.client.quote(&quote).await.unwrap();
    world.ann.says("/balance");
    let message = world.ann.bot("balance-coin").await.id;
    let data = format!("send:r:{}", old.id);
    world.ann.person().forges(world.ann.person().id(), message, &data).unwrap();
    let screen = world.ann.bot_with("send-quote", &["2 ETH", "Second"]).await;
    let renewed = world.stage.client.transfer(transfer_of(&screen)).await.unwrap().unwrap();
    assert_ne!(renewed.id, old.id);
    assert_eq!(renewed.chain_id, SECOND);
    world.ann.press("send-confirm-button");
    world.ann.bot("send-ask-password").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["2 ETH on Second"]).await;
    world.bob.bot_with("notice-arriving", &["2 ETH on Second"]).await;

    world.bob.says("/history");
    let shown = world.bob.bot_with("history-title", &["5 ETH on Second", "2 ETH on Second"]).await;
    assert!(texts::is("history-received", &shown.text), "{}", shown.text);
    assert!(shown.text.contains("3 ETH on Sandbox"), "{}", shown.text);
    let page = world.stage.client.transfers(id(&world.bob).into(), Page::Newest, 10).await.unwrap();
    assert_eq!(page.entries.len(), 3);
    world.stage.stop().await;
}
