//! The story in two chats: two people get wallets, money is sent by name, the server is restarted
//! in the middle, a password is changed, an e-mail address given, the password forgotten and
//! recovered. Every step is checked
//! on the chain and in the stores; the first that did not happen ends the tour with an error.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bot_api_sim::Phone;
use kms_client::Turn;
use kms_core::ports::{AccountStore, SckStore};
use kms_testkit::Mail;
use kms_types::wire::{Account, HistoryEntry, Transfer, TransferState};
use kms_types::{EthAddress, TelegramId, U256, Wei};
use serde_json::json;

use crate::stage::{Stage, StageOptions};

const ANNS_ADDRESS: &str = "ann@example.org";
const ANNS_FIRST: &str = "orange ladder seldom sings";
const ANNS_SECOND: &str = "seven quiet harbours at dawn";
const ANNS_THIRD: &str = "velvet tractor ate my homework";
const BOBS_ONLY: &str = "marmalade for the night train";

/// Plays it.
///
/// # Errors
/// When anything did not happen.
#[expect(clippy::print_stdout, reason = "the terminal is where people read it")]
pub async fn play() -> anyhow::Result<()> {
    let started = Instant::now();
    let mut stage = Stage::start(StageOptions::default()).await?;
    println!("The wallet KMS, on this machine\n");
    println!("  chain   {} at {}", stage.anvil.version(), stage.anvil.url());
    println!("  server  {} (TLS 1.3, SQLite, local KMS key)", stage.url());
    println!("  bot     against a Bot API of our own at {}", stage.sim.api_url());
    let mut ann = stage.sim.phone(4711, "Ann", Some("ann"));
    let mut bob = stage.sim.phone(4712, "Bob", Some("bob"));

    act("Two people get a wallet each");
    ann.says("/start");
    ann.hears("Choose a password").await?;
    ann.says("password123");
    ann.hears("too easy to guess").await?;
    let anns = onboard(&stage, &mut ann, ANNS_FIRST).await?;
    bob.says("/start");
    bob.hears("Choose a password").await?;
    let bobs = onboard(&stage, &mut bob, BOBS_ONLY).await?;
    ensure!(anns.address != bobs.address, "two people have one address");

    act("The faucet fills Ann's wallet");
    let hash = stage.faucet(anns.address, coins(10)).await?;
    println!("  10 ETH by transaction {hash}");
    ann.hears("You received 10 ETH from 0x").await?;
    let hash = stage.faucet_tokens(anns.address, 100_000_000)?;
    println!("  100 TUSD, a token, by transaction {hash}");
    ann.hears("You received 100 TUSD from 0x").await?;
    ann.presses("💰 Balance")?;
    ann.hears("💰 10 ETH").await?;
    tell(&mut ann);

    act("What can not be done is answered");
    for (says, hears) in [
        ("/send @bob 1,5", "without commas"),
        ("/send @nobody 0.5", "has no wallet here"),
        ("/send @bob 11", "short, including the network fee"),
        ("/send @bob 101 TUSD", "You are 1 TUSD short"),
        ("/send @bob 0.0000000000000000001", "decimals"),
        ("/send @ann 1", "your own wallet"),
    ] {
        ann.says(says);
        ann.hears(hears).await?;
    }
    tell(&mut ann);
    ensure!(stage.chain_balance(bobs.address)? == Wei::default(), "money moved unasked");

    act("Ann sends 0.5 to @bob, and the server is restarted in the middle");
    ann.says("/send @bob 0.5");
    ann.hears("Total: at most").await?;
    stage.stop_server().await;
    ann.says("/balance");
    ann.hears("can not reach the wallet service").await?;
    stage.start_server().await?;
    tell(&mut ann);
    println!("  (the server was stopped, and is back)");
    ann.presses("✅ Confirm")?;
    ann.hears("Send your password").await?;
    ann.says("not my password");
    ann.hears("That password is wrong").await?;
    pay(&stage, &mut ann, &mut bob, "0.5", ANNS_FIRST).await?;

    act("Ann sends 25 TUSD to @bob; the fee is in ETH");
    ann.says("/send @bob 25 TUSD");
    ann.hears("Total: at most 25 TUSD and").await?;
    ann.presses("✅ Confirm")?;
    ann.hears("Send your password").await?;
    ann.says(ANNS_FIRST);
    ann.hears("Paid 25 TUSD").await?;
    bob.hears("You received 25 TUSD from @ann").await?;
    tell(&mut ann);
    tell(&mut bob);
    let (left, came) = (stage.chain_tokens(anns.address)?, stage.chain_tokens(bobs.address)?);
    ensure!((left, came) == (75_000_000, 25_000_000), "the chain has {left} and {came} of TUSD");

    act("Ann changes her password");
    ann.says("/password");
    ann.hears("Write both passwords").await?;
    ann.says(&format!("{ANNS_FIRST}\n{ANNS_SECOND}"));
    ann.hears("Your new password works").await?;
    ann.hears("Your password was changed on").await?;
    ann.says("/send @bob 0.25");
    ann.hears("Total: at most").await?;
    ann.presses("✅ Confirm")?;
    ann.hears("Send your password").await?;
    ann.says(ANNS_FIRST);
    ann.hears("That password is wrong").await?;
    pay(&stage, &mut ann, &mut bob, "0.25", ANNS_SECOND).await?;

    act("Ann gives an e-mail address");
    ann.says("/contact");
    ann.hears("You have given no e-mail address").await?;
    ann.presses("✉️ Give an address")?;
    ann.hears("Which e-mail address").await?;
    ann.says(ANNS_ADDRESS);
    ann.hears("Send your password").await?;
    ann.says(ANNS_SECOND);
    ann.hears("I sent a code").await?;
    let code = code(&mail(&stage, 1).await?)?;
    ann.says(&code);
    ann.hears("Your e-mail address was changed").await?;
    tell(&mut ann);

    act("Ann forgets her password, and recovers without a seed phrase");
    ann.says("/recover");
    ann.hears("You forgot your password?").await?;
    ann.presses("🛟 Ask for a new password")?;
    ann.hears("I sent a code to a").await?;
    tell(&mut ann);
    let asked = mail(&stage, 3).await?;
    for line in asked.body.lines().take(6) {
        println!("  ✉️ {line}");
    }
    let wrong = if code == "0000 0000" { "1111 1111" } else { "0000 0000" };
    ann.says(wrong);
    ann.hears("That code is wrong").await?;
    ann.says(&self::code(&asked)?);
    ann.hears("The code was right").await?;
    ann.hears("The wait is over").await?;
    ann.presses("🔑 Set the new password")?;
    ann.hears("Send the new password").await?;
    ann.says(ANNS_THIRD);
    let recovered = ann.hears("Your wallet is recovered").await?.context("no answer")?;
    ensure!(recovered.text.contains(&anns.address.to_string()), "the address changed");
    ann.hears("Your wallet was recovered").await?;
    mail(&stage, 6).await?;
    tell(&mut ann);
    ann.says("/send @bob 0.125");
    ann.hears("Total: at most").await?;
    ann.presses("✅ Confirm")?;
    ann.hears("Send your password").await?;
    ann.says(ANNS_SECOND);
    ann.hears("That password is wrong").await?;
    pay(&stage, &mut ann, &mut bob, "0.125", ANNS_THIRD).await?;

    act("What the records say");
    ann.says("/history");
    ann.hears("Your payments").await?;
    tell(&mut ann);
    let secrets = [ANNS_FIRST, ANNS_SECOND, ANNS_THIRD, BOBS_ONLY];
    let stored = stage.sim.stored();
    ensure!(!secrets.iter().any(|secret| stored.contains(secret)), "a password is in a chat");
    check_records(&stage, &anns).await?;
    stage.stop().await;
    println!("\nAll of it happened, in {:.1} s.", started.elapsed().as_secs_f64());
    Ok(())
}

/// The mail to Ann that this many come to.
async fn mail(stage: &Stage, count: usize) -> anyhow::Result<Mail> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(mail) = stage.mailbox.mails_to(ANNS_ADDRESS).get(count - 1) {
            return Ok(mail.clone());
        }
        ensure!(Instant::now() < deadline, "mail {count} never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn code(mail: &Mail) -> anyhow::Result<String> {
    let line = mail.body.lines().find_map(|line| line.strip_prefix("    "));
    Ok(line.context("there is no code in the mail")?.to_owned())
}

fn coins(coins: u64) -> Wei {
    Wei(U256::from(coins) * U256::from(10).pow(U256::from(18)))
}

#[expect(clippy::print_stdout, reason = "the terminal is where people read it")]
fn act(title: &str) {
    println!("\n{title}");
}

/// Shows what was said since this was last called.
#[expect(clippy::print_stdout, reason = "the terminal is where people read it")]
fn tell(phone: &mut Phone) {
    for line in phone.news().lines() {
        println!("  {line}");
    }
}

async fn onboard(stage: &Stage, phone: &mut Phone, password: &str) -> anyhow::Result<Account> {
    phone.says(password);
    phone.hears("Your wallet is ready").await?;
    tell(phone);
    let id = id(phone)?;
    let account = stage.client.account(id.into()).await?.context("there is no account")?;
    let stored = stage.database.account(id.into()).await?.context("no account is stored")?;
    ensure!(stored.wallet.address == account.address, "another address is stored");
    let wrapped = stage.scks.sck(stored.wallet.sck_id).await?;
    ensure!(wrapped.is_some_and(|sck| sck.account == account.id), "no wrapped key is stored");
    Ok(account)
}

/// Gives the right password, and compares what both are told with the chain.
async fn pay(
    stage: &Stage,
    from: &mut Phone,
    to: &mut Phone,
    amount: &str,
    password: &str,
) -> anyhow::Result<()> {
    let receiver = stage.client.account(id(to)?.into()).await?.context("no receiver")?.address;
    let before = stage.chain_balance(receiver)?;
    from.says(password);
    from.hears("Paid").await?;
    to.hears(&format!("You received {amount} ETH from @ann")).await?;
    tell(from);
    tell(to);
    let after = stage.chain_balance(receiver)?;
    let grown = after.checked_sub(before).context("the receiver has less than before")?;
    ensure!(grown.to_coins() == amount, "the receiver's balance grew by {}", grown.to_coins());
    let sent = last_transfer(stage, id(from)?, receiver).await?;
    let receipt = stage.anvil.rpc("eth_getTransactionReceipt", json!([sent.tx_hash]))?;
    ensure!(receipt.get("status") == Some(&json!("0x1")), "the chain has no such success");
    let balance = stage.client.balance(id(to)?.into()).await?;
    ensure!(balance.wei == after, "the server tells another balance than the chain");
    Ok(())
}

fn id(phone: &Phone) -> anyhow::Result<TelegramId> {
    Ok(phone.person().id().try_into()?)
}

async fn last_transfer(
    stage: &Stage,
    from: TelegramId,
    to: EthAddress,
) -> anyhow::Result<Transfer> {
    let page = stage.client.transfers(from.into(), Turn::Newest, 1).await?;
    let Some(HistoryEntry::Transfer { transfer: sent }) = page.entries.into_iter().next() else {
        bail!("the history does not begin with a transfer");
    };
    let paid = matches!(sent.state, TransferState::Mined | TransferState::Final);
    ensure!(paid && sent.to.address == to, "the history tells of another payment");
    Ok(*sent)
}

#[expect(clippy::print_stdout, reason = "the terminal is where people read it")]
async fn check_records(stage: &Stage, account: &Account) -> anyhow::Result<()> {
    let ann = account.telegram_id.into();
    let page = stage.client.transfers(ann, Turn::Newest, 10).await?;
    // Four that she sent, and the faucet's two.
    ensure!(page.entries.len() == 6, "the history has {} entries", page.entries.len());
    let deadline = Instant::now() + Duration::from_secs(30);
    // The bot acknowledges a page when it has told it.
    while !stage.client.events(None, Duration::ZERO).await?.events.is_empty() {
        ensure!(Instant::now() < deadline, "events are not acknowledged");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stored = stage.database.account(ann).await?.context("the account is gone")?;
    ensure!(stored.wallet.address == account.address, "the wallet's address changed");
    ensure!(stored.wallet.version == 3, "the wallet was not sealed three times");
    let audit = stage.database.audit_after(0, 1_000).await?;
    let count = |phase: &str| audit.iter().filter(|row| row.phase == phase).count();
    let (intents, outcomes) = (count("intent"), count("outcome"));
    ensure!(
        intents == outcomes && count("alarm") == 0,
        "the audit has {intents} intents and {outcomes} outcomes"
    );
    println!("  {intents} uses of a key audited, before and after; no password in any chat");
    Ok(())
}
