//! The story, as a transcript: two people get wallets, money is sent by name, a password is
//! changed, another is forgotten and recovered. Every step is checked on the chain and in the
//! stores; the first that did not happen ends the tour with an error.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use kms_client::{ClientError, hash_password};
use kms_core::ports::{AccountStore, SckStore};
use kms_types::wire::{
    Account, ChangePassword, ConfirmTransfer, CreateAccount, EventKind, QuoteAmount, QuoteTransfer,
    Recover, Transfer, TransferState,
};
use kms_types::{
    AccountRef, Amount, ErrorCode, Recipient, RecoveryId, TelegramId, Timestamp, TransferId, U256,
    Wei,
};
use serde_json::json;

use crate::stage::Stage;

/// Somebody with a phone.
struct Person {
    id: TelegramId,
    name: &'static str,
}

impl Person {
    fn account(&self) -> AccountRef {
        self.id.into()
    }
}

/// Plays it.
pub(crate) async fn play() -> anyhow::Result<()> {
    let started = Instant::now();
    let stage = Stage::set().await?;
    println!("The wallet KMS, on this machine\n");
    println!("  chain   {} at {}", stage.anvil.version(), stage.anvil.url());
    println!("  server  {} (TLS 1.3, SQLite, local KMS key)", stage.url());
    let ann = Person { id: 4711.try_into()?, name: "ann" };
    let bob = Person { id: 4712.try_into()?, name: "bob" };

    act("Two people get a wallet each");
    let anns = onboard(&stage, &ann, "Ann's first password").await?;
    let bobs = onboard(&stage, &bob, "Bob's only password").await?;
    ensure!(anns.address != bobs.address, "two people have one address");
    faucet(&stage, &anns, 10).await?;

    act("What can not be done is answered");
    let comma = "1,5".parse::<Amount>().err().context("1,5 was taken for an amount")?;
    println!("  /send @bob 1,5       {comma}");
    refused(&stage, &ann, "@nobody", "0.5", ErrorCode::UnknownName).await?;
    refused(&stage, &ann, "@bob", "11", ErrorCode::InsufficientFunds).await?;
    refused(&stage, &ann, "@bob", "0.0000000000000000001", ErrorCode::InvalidField).await?;
    refused(&stage, &ann, "@ann", "1", ErrorCode::SelfTransfer).await?;
    ensure!(chain_balance(&stage, &bobs)? == Wei::default(), "money moved without a password");

    act("Ann sends 0.5 to @bob, and the server is restarted in the middle");
    let quoted = quote(&stage, &ann, "@bob", "0.5").await?;
    let stage = stage.restart().await?;
    println!("  the server was restarted");
    let wrong = confirm(&stage, &ann, &quoted, "not Ann's password").await;
    expect_refusal(wrong, ErrorCode::WrongPassword)?;
    send(&stage, &ann, &bobs, quoted, "Ann's first password").await?;

    act("Ann changes her password");
    let body = ChangePassword {
        old_password_hash: hash_password(ann.id, "Ann's first password").await,
        new_password_hash: hash_password(ann.id, "Ann's second password").await,
    };
    stage.client.change_password(ann.account(), &body).await?;
    println!("  changed");
    let again = stage.client.change_password(ann.account(), &body).await;
    expect_refusal(again, ErrorCode::WrongPassword)?;
    let quoted = quote(&stage, &ann, "@bob", "0.25").await?;
    send(&stage, &ann, &bobs, quoted, "Ann's second password").await?;

    act("Ann forgets her password, and recovers without a seed phrase");
    let body = Recover {
        id: RecoveryId::random(),
        new_password_hash: hash_password(ann.id, "Ann's third password").await,
    };
    let recovered = stage.client.recover(ann.account(), &body).await?;
    ensure!(recovered.address == anns.address, "the recovery changed the address");
    println!("  recovered, the same address: {}", recovered.address);
    let quoted = quote(&stage, &ann, "@bob", "0.125").await?;
    let old = confirm(&stage, &ann, &quoted, "Ann's second password").await;
    expect_refusal(old, ErrorCode::WrongPassword)?;
    send(&stage, &ann, &bobs, quoted, "Ann's third password").await?;

    act("What the records say");
    tell_events(&stage, &ann, &bob).await?;
    check_records(&stage, &ann, &anns).await?;
    stage.clear().await;
    println!("\nAll of it happened, in {:.1} s.", started.elapsed().as_secs_f64());
    Ok(())
}

fn act(title: &str) {
    println!("\n{title}");
}

async fn onboard(stage: &Stage, who: &Person, password: &str) -> anyhow::Result<Account> {
    let body = CreateAccount {
        telegram_id: who.id,
        password_hash: hash_password(who.id, password).await,
        username: Some(who.name.parse()?),
        seen_at: Some(Timestamp(1)),
        mobile: None,
        email: None,
    };
    let account = stage.client.create_account(&body).await?;
    let again = stage.client.create_account(&body).await?;
    ensure!(account == again, "onboarding twice made two wallets");
    let stored = stage.database.account(who.account()).await?.context("no account is stored")?;
    ensure!(stored.wallet.address == account.address, "another address is stored");
    let wrapped = stage.scks.sck(stored.wallet.sck_id).await?;
    ensure!(wrapped.is_some_and(|sck| sck.account == account.id), "no wrapped key is stored");
    println!("  @{} has the wallet {}", who.name, account.address);
    Ok(account)
}

/// Sends from an account of the chain's own, as a faucet does.
async fn faucet(stage: &Stage, to: &Account, coins: u64) -> anyhow::Result<()> {
    let accounts = stage.anvil.rpc("eth_accounts", json!([]))?;
    let wei = U256::from(coins) * U256::from(10).pow(U256::from(18));
    let transaction = json!({
        "from": accounts.get(0),
        "to": to.address.to_string(),
        "value": format!("{wei:#x}"),
    });
    let hash = stage.anvil.rpc("eth_sendTransaction", json!([transaction]))?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while chain_balance(stage, to)? != Wei(wei) {
        ensure!(Instant::now() < deadline, "the faucet's money did not arrive");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("  the faucet sent {coins} ETH, transaction {}", hash.as_str().unwrap_or_default());
    Ok(())
}

fn chain_balance(stage: &Stage, of: &Account) -> anyhow::Result<Wei> {
    let balance = stage.anvil.rpc("eth_getBalance", json!([of.address.to_string(), "latest"]))?;
    let digits = balance.as_str().and_then(|text| text.strip_prefix("0x")).context("no balance")?;
    Ok(Wei(U256::from_str_radix(digits, 16)?))
}

fn request(from: &Person, to: &str, amount: &str) -> anyhow::Result<QuoteTransfer> {
    let to: Recipient = to.parse()?;
    let amount = QuoteAmount::try_from(amount.to_owned())?;
    Ok(QuoteTransfer {
        id: TransferId::random(),
        from: from.account(),
        to,
        amount,
        client_ref: None,
    })
}

async fn quote(stage: &Stage, from: &Person, to: &str, amount: &str) -> anyhow::Result<Transfer> {
    let quoted = stage.client.quote(&request(from, to, amount)?).await?;
    println!(
        "  /send {to} {amount}   to {}, fee at most {} ETH, warnings {:?}",
        quoted.to.address,
        quoted.max_fee.to_coins(),
        quoted.warnings
    );
    Ok(quoted)
}

async fn refused(
    stage: &Stage,
    from: &Person,
    to: &str,
    amount: &str,
    code: ErrorCode,
) -> anyhow::Result<()> {
    print!("  /send {:<15}", format!("{to} {amount}"));
    expect_refusal(stage.client.quote(&request(from, to, amount)?).await, code)
}

fn expect_refusal<T>(result: Result<T, ClientError>, code: ErrorCode) -> anyhow::Result<()> {
    match result {
        Ok(_) => bail!("what had to be refused as {} was done", code.as_str()),
        Err(ClientError::Problem(problem)) if problem.code == code => {
            let missing = problem.missing.map(|wei| format!(" ({} ETH missing)", wei.to_coins()));
            println!("  refused: {}{}", problem.detail, missing.unwrap_or_default());
            Ok(())
        }
        Err(error) => Err(error).context(format!("expected {}", code.as_str())),
    }
}

async fn confirm(
    stage: &Stage,
    from: &Person,
    quoted: &Transfer,
    password: &str,
) -> Result<Transfer, ClientError> {
    let body = ConfirmTransfer {
        password_hash: hash_password(from.id, password).await,
        to_address: quoted.to.address,
        value: quoted.value,
        max_fee: quoted.max_fee,
    };
    stage.client.confirm(quoted.id, &body).await
}

/// Confirms, waits until it is mined, and compares the chain's balances before and after.
async fn send(
    stage: &Stage,
    from: &Person,
    to: &Account,
    quoted: Transfer,
    password: &str,
) -> anyhow::Result<()> {
    let before = chain_balance(stage, to)?;
    let sent = confirm(stage, from, &quoted, password).await?;
    let hash = sent.tx_hash.context("a sent transfer has no hash")?;
    let deadline = Instant::now() + Duration::from_secs(30);
    let mined = loop {
        let now = stage.client.transfer(quoted.id).await?.context("the transfer is gone")?;
        if matches!(now.state, TransferState::Mined | TransferState::Final) {
            break now;
        }
        ensure!(Instant::now() < deadline, "the transfer was not mined");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let receipt = stage.anvil.rpc("eth_getTransactionReceipt", json!([hash]))?;
    ensure!(receipt.get("status") == Some(&json!("0x1")), "the chain has no such success");
    let after = chain_balance(stage, to)?;
    let grown = after.checked_sub(before).context("the receiver has less than before")?;
    ensure!(grown == quoted.value, "the receiver's balance grew by {} wei", grown);
    // Again, as an impatient person does: nothing more is sent.
    let again = confirm(stage, from, &quoted, password).await?;
    ensure!(again.tx_hash.as_ref() == Some(&hash), "confirming again sent again");
    ensure!(chain_balance(stage, to)? == after, "confirming again moved money");
    println!(
        "  mined in block {}, transaction {hash}\n  the receiver has {} ETH now, {} more",
        mined.block.unwrap_or_default(),
        after.to_coins(),
        grown.to_coins()
    );
    Ok(())
}

async fn tell_events(stage: &Stage, ann: &Person, bob: &Person) -> anyhow::Result<()> {
    let page = stage.client.events(None, Duration::ZERO).await?;
    let mut received = 0;
    for event in &page.events {
        let who = if event.telegram_id == ann.id { ann.name } else { bob.name };
        match &event.what {
            EventKind::AccountCreated => println!("  @{who}: your wallet is ready"),
            EventKind::PasswordChanged => println!("  @{who}: your password was changed"),
            EventKind::Recovered => println!("  @{who}: your wallet was recovered"),
            EventKind::Received { transfer } => {
                received += 1;
                let from = transfer.from.username.as_ref().map(ToString::to_string);
                let from = from.unwrap_or_else(|| transfer.from.address.to_string());
                println!("  @{who}: {} ETH came from {from}", transfer.value.to_coins());
            }
            _ => {}
        }
    }
    ensure!(received == 3, "the receiver was told of {received} payments, not of 3");
    let rest = stage.client.events(Some(page.next), Duration::ZERO).await?;
    ensure!(rest.events.is_empty(), "events came twice after they were acknowledged");
    Ok(())
}

async fn check_records(stage: &Stage, ann: &Person, account: &Account) -> anyhow::Result<()> {
    let page = stage.client.transfers(ann.account(), None, 10).await?;
    ensure!(page.transfers.len() == 3, "the history has {} transfers", page.transfers.len());
    let stored = stage.database.account(ann.account()).await?.context("the account is gone")?;
    ensure!(stored.wallet.address == account.address, "the wallet's address changed");
    ensure!(stored.wallet.version == 3, "the wallet was not sealed three times");
    let audit = stage.database.audit_after(0, 1_000).await?;
    let count = |phase: &str| audit.iter().filter(|row| row.phase == phase).count();
    let (intents, outcomes) = (count("intent"), count("outcome"));
    ensure!(
        intents == outcomes && count("alarm") == 0,
        "the audit has {intents} intents and {outcomes} outcomes"
    );
    println!("  3 transfers in Ann's history; {intents} uses of a key audited, before and after");
    Ok(())
}
