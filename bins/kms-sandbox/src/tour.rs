//! A story of two users in the terminal.
//!
//! They get wallets, are paid on two chains, send coins and tokens by username while the server
//! restarts, and change a password. Then one gives an e-mail address, forgets the password and
//! recovers the wallet. Every password is given on the vault page, which [`Vault`] plays here in
//! place of a browser; the bot sees none. Every step is checked on the chain and in the stores; the
//! first that fails ends the tour with an error.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bot_api_sim::{Message, Phone};
use kms_client::{ClientError, Page, Vault, hash_password};
use kms_core::ports::{AccountStore, SckStore};
use kms_testkit::Mail;
use kms_types::wire::{
    Account, ChangeEmail, ChangePassword, CompleteRecovery, ConfirmCode, ConfirmShown,
    HistoryEntry, NewWallet, RequestRecovery, Transfer, TransferState,
};
use kms_types::{
    ErrorCode, EthAddress, EventStream, PasswordHash, RecoveryId, TelegramId, U256, Wei,
};
use serde_json::json;

use crate::stage::{SECOND_CHAIN, Stage, StageOptions};
use crate::texts::{self, label};

const ANNS_ADDRESS: &str = "ann@example.org";
const ANNS_FIRST: &str = "orange ladder seldom sings";
const ANNS_SECOND: &str = "seven quiet harbours at dawn";
const ANNS_THIRD: &str = "velvet tractor ate my homework";
const BOBS_ONLY: &str = "marmalade for the night train";
/// How long the tour waits for an e-mail or an acknowledgement.
const PATIENCE: Duration = Duration::from_secs(120);

/// Plays the story.
///
/// # Errors
/// When a step fails.
#[expect(clippy::print_stdout, reason = "the terminal is where people read it")]
pub async fn play() -> anyhow::Result<()> {
    let started = Instant::now();
    // Each of its steps is shown before the next one.
    let recovery_wait = Duration::from_secs(18);
    let options = StageOptions {
        chat_passwords: false,
        recovery_wait,
        second_chain: Some(SECOND_CHAIN),
        ..StageOptions::default()
    };
    let stage = Stage::start(options).await?;
    println!("The wallet KMS, on this machine\n");
    println!("  chain   {} at {}", stage.anvil.version(), stage.anvil.url());
    if let Some(second) = &stage.second {
        println!("  chain   {} at {}", second.version(), second.url());
    }
    println!("  server  {} (TLS 1.3, SQLite, local KMS key)", stage.url());
    println!("  bot     connected to a simulated Bot API at {}", stage.sim.api_url());
    let ann = stage.sim.phone(4711, "Ann", Some("ann"));
    let bob = stage.sim.phone(4712, "Bob", Some("bob"));
    let mut tour = Tour { stage, ann, bob };
    let (ann, bob) = tour.onboarding().await?;
    tour.faucet(&ann).await?;
    tour.second_chain(&bob).await?;
    tour.refusals(&bob).await?;
    tour.send_across_a_restart().await?;
    tour.send_tokens(&ann, &bob).await?;
    tour.change_of_password().await?;
    let code = tour.e_mail_address().await?;
    tour.recovery(&ann, &code).await?;
    tour.records(&ann).await?;
    tour.stage.stop().await;
    println!("\nEvery step succeeded, in {:.1} s.", started.elapsed().as_secs_f64());
    Ok(())
}

/// The stage and its two users.
struct Tour {
    stage: Stage,
    ann: Phone,
    bob: Phone,
}

/// The acts, in their order.
impl Tour {
    async fn onboarding(&mut self) -> anyhow::Result<(Account, Account)> {
        title("Ann and Bob create their wallets, on the vault page");
        self.ann.says("/start");
        hears(&mut self.ann, "start-welcome-on-page", &[]).await?;
        // Out of habit.
        self.ann.says(ANNS_FIRST);
        hears(&mut self.ann, "page-password-deleted", &[]).await?;
        let ann = onboard(&self.stage, &mut self.ann, ANNS_FIRST).await?;
        self.bob.says("/start");
        hears(&mut self.bob, "start-welcome-on-page", &[]).await?;
        let bob = onboard(&self.stage, &mut self.bob, BOBS_ONLY).await?;
        ensure!(ann.address != bob.address, "both wallets have the same address");
        Ok((ann, bob))
    }

    #[expect(clippy::print_stdout, reason = "the terminal is where people read it")]
    async fn faucet(&mut self, ann: &Account) -> anyhow::Result<()> {
        title("The faucet funds Ann's wallet");
        let hash = self.stage.faucet(ann.address, coins(10)).await?;
        println!("  10 ETH in transaction {hash}");
        hears(&mut self.ann, "notice-received", &["10 ETH"]).await?;
        let hash = self.stage.faucet_tokens(ann.address, 100_000_000)?;
        println!("  100 TUSD, an ERC-20 token, in transaction {hash}");
        hears(&mut self.ann, "notice-received", &["100 TUSD"]).await?;
        self.ann.presses(&label("balance-button"))?;
        hears(&mut self.ann, "balance-coin", &["10 ETH"]).await?;
        show(&mut self.ann);
        Ok(())
    }

    #[expect(clippy::print_stdout, reason = "the terminal is where people read it")]
    async fn second_chain(&mut self, bob: &Account) -> anyhow::Result<()> {
        title("Bob is paid on a second chain, whose coin has the same symbol");
        let hash = self.stage.faucet_on_second(bob.address, coins(5)).await?;
        println!("  5 ETH in transaction {hash}");
        hears(&mut self.bob, "notice-received", &["5 ETH on Second"]).await?;
        self.bob.presses(&label("balance-button"))?;
        hears(&mut self.bob, "balance-coin", &["0 ETH", "5 ETH", "Second"]).await?;
        show(&mut self.bob);
        Ok(())
    }

    async fn refusals(&mut self, bob: &Account) -> anyhow::Result<()> {
        title("The bot explains why a payment is not possible");
        for (says, id, values) in [
            ("/send @bob 1,5", "input-amount-comma", [].as_slice()),
            ("/send @nobody 0.5", "send-unknown-name", &["@nobody"]),
            ("/send @bob 11", "problem-insufficient-coin", &[]),
            ("/send @bob 101 TUSD", "problem-insufficient-token", &["1 TUSD"]),
            ("/send @bob 0.0000000000000000001", "problem-other", &["this asset has 18"]),
            ("/send @ann 1", "problem-self-transfer", &[]),
        ] {
            self.ann.says(says);
            hears(&mut self.ann, id, values).await?;
        }
        show(&mut self.ann);
        let balance = self.stage.chain_balance(bob.address)?;
        ensure!(balance == Wei::default(), "a refused payment was made");
        Ok(())
    }

    #[expect(clippy::print_stdout, reason = "the terminal is where people read it")]
    async fn send_across_a_restart(&mut self) -> anyhow::Result<()> {
        title("Ann sends 0.5 ETH to @bob, and the server restarts before she confirms");
        self.ann.says("/send @bob 0.5");
        hears(&mut self.ann, "send-quote", &[]).await?;
        self.stage.stop_server().await;
        self.ann.says("/balance");
        hears(&mut self.ann, "problem-unreachable", &[]).await?;
        self.stage.start_server().await?;
        show(&mut self.ann);
        println!("  (the server was stopped and started again)");
        self.refused("not my password").await?;
        self.pay("0.5", ANNS_FIRST).await
    }

    async fn send_tokens(&mut self, ann: &Account, bob: &Account) -> anyhow::Result<()> {
        title("Ann sends 25 TUSD to @bob; the network fee is in ETH");
        self.ann.says("/send @bob 25 TUSD");
        hears(&mut self.ann, "send-quote", &["25 TUSD"]).await?;
        self.confirm(ANNS_FIRST).await?;
        hears(&mut self.ann, "transfer-confirmed", &["25 TUSD"]).await?;
        hears(&mut self.bob, "notice-arriving", &["25 TUSD", "@ann"]).await?;
        show(&mut self.ann);
        show(&mut self.bob);
        let anns = self.stage.chain_tokens(ann.address)?;
        let bobs = self.stage.chain_tokens(bob.address)?;
        ensure!((anns, bobs) == (75_000_000, 25_000_000), "the balances are {anns} and {bobs}");
        Ok(())
    }

    async fn change_of_password(&mut self) -> anyhow::Result<()> {
        title("Ann changes her password");
        self.ann.says("/password");
        hears(&mut self.ann, "password-on-page", &[]).await?;
        let change = ChangePassword {
            old_password_hash: hash(&self.ann, ANNS_FIRST).await?,
            new_password_hash: hash(&self.ann, ANNS_SECOND).await?,
        };
        self.open("page-button").await?.change_password(&change).await?;
        hears(&mut self.ann, "notice-password-changed", &[]).await?;
        self.pay_after_a_wrong_password("0.25", ANNS_FIRST, ANNS_SECOND).await
    }

    /// Returns the code from the e-mail.
    async fn e_mail_address(&mut self) -> anyhow::Result<String> {
        title("Ann adds an e-mail address");
        self.ann.says("/contact");
        hears(&mut self.ann, "contact-none", &[]).await?;
        self.ann.presses(&label("contact-add-button"))?;
        hears(&mut self.ann, "contact-on-page", &[]).await?;
        let page = self.open("page-button").await?;
        let password_hash = hash(&self.ann, ANNS_SECOND).await?;
        let email = Some(ANNS_ADDRESS.parse()?);
        page.change_email(&ChangeEmail { email, password_hash }).await?;
        hears(&mut self.ann, "notice-email-change-requested", &[]).await?;
        let code = code(&mail(&self.stage, 1).await?)?;
        page.confirm_email(&ConfirmCode { code: code.parse()? }).await?;
        hears(&mut self.ann, "notice-email-changed", &[]).await?;
        mail(&self.stage, 2).await?;
        show(&mut self.ann);
        Ok(code)
    }

    async fn recovery(&mut self, ann: &Account, used_code: &str) -> anyhow::Result<()> {
        title("Ann forgets her password, and recovers her wallet without a seed phrase");
        self.ann.says("/recover");
        hears(&mut self.ann, "recover-ask", &[]).await?;
        let page = self.open("recover-start-button").await?;
        page.request_recovery(&RequestRecovery { id: RecoveryId::random() }).await?;
        hears(&mut self.ann, "notice-recovery-code-on-page", &[]).await?;
        show(&mut self.ann);
        let requested = mail(&self.stage, 3).await?;
        show_mail(&requested);
        let page = self.open("page-recover-button").await?;
        let wrong = if used_code == "0000 0000" { "1111 1111" } else { "0000 0000" };
        let refused = page.confirm_recovery(&ConfirmCode { code: wrong.parse()? }).await;
        ensure!(code_of(refused) == Some(ErrorCode::WrongCode), "a wrong code was accepted");
        page.confirm_recovery(&ConfirmCode { code: code(&requested)?.parse()? }).await?;
        hears(&mut self.ann, "notice-recovery-confirmed", &[]).await?;
        hears(&mut self.ann, "notice-recovery-ready", &[]).await?;
        // A step that a later one overtakes has no e-mail.
        let sent = self.stage.mailbox.mails_to(ANNS_ADDRESS).len();
        let new_password_hash = hash(&self.ann, ANNS_THIRD).await?;
        let page = self.open("page-recover-button").await?;
        page.complete_recovery(&CompleteRecovery { new_password_hash }).await?;
        hears(&mut self.ann, "notice-recovery-completed", &[]).await?;
        ensure!(page.account().await?.address == ann.address, "the address changed");
        mail(&self.stage, sent + 1).await?;
        show(&mut self.ann);
        self.pay_after_a_wrong_password("0.125", ANNS_SECOND, ANNS_THIRD).await
    }

    async fn records(&mut self, ann: &Account) -> anyhow::Result<()> {
        title("The records agree");
        self.ann.says("/history");
        hears(&mut self.ann, "history-title", &[]).await?;
        show(&mut self.ann);
        let stored = self.stage.sim.stored();
        let passwords = [ANNS_FIRST, ANNS_SECOND, ANNS_THIRD, BOBS_ONLY];
        let leaked = passwords.iter().any(|password| stored.contains(password));
        ensure!(!leaked, "a password is still in a chat");
        check_records(&self.stage, ann).await
    }
}

/// Steps that several acts share.
impl Tour {
    /// Opens the vault page by Ann's last button with this label.
    async fn open(&self, button: &str) -> anyhow::Result<Vault> {
        open(&self.stage, &self.ann, button).await
    }

    /// Confirms the quote that is shown, on the page.
    async fn confirm(&self, password: &str) -> anyhow::Result<()> {
        let page = self.open("page-confirm-button").await?;
        let view = page.transfer().await?.view;
        let password_hash = hash(&self.ann, password).await?;
        page.confirm(&ConfirmShown { password_hash, view }).await?;
        Ok(())
    }

    /// Tries to confirm the quote that is shown with a wrong password.
    async fn refused(&self, password: &str) -> anyhow::Result<()> {
        let tried = self.confirm(password).await;
        let error = tried.err().context("a wrong password was accepted")?;
        let code = error.downcast_ref().and_then(ClientError::code);
        ensure!(code == Some(ErrorCode::WrongPassword), "refused for another reason: {error}");
        Ok(())
    }

    /// Sends coins to Bob: the old password is refused, the new one is accepted.
    async fn pay_after_a_wrong_password(
        &mut self,
        amount: &str,
        old: &str,
        new: &str,
    ) -> anyhow::Result<()> {
        self.ann.says(&format!("/send @bob {amount}"));
        hears(&mut self.ann, "send-quote", &[]).await?;
        self.refused(old).await?;
        self.pay(amount, new).await
    }

    /// Confirms with the correct password, and compares what both users are shown with the chain.
    async fn pay(&mut self, amount: &str, password: &str) -> anyhow::Result<()> {
        let (sender, recipient) = (id(&self.ann)?, id(&self.bob)?);
        let account = self.stage.client.account(recipient.into()).await?;
        let address = account.context("the recipient has no account")?.address;
        let before = self.stage.chain_balance(address)?;
        self.confirm(password).await?;
        hears(&mut self.ann, "transfer-confirmed", &[]).await?;
        hears(&mut self.bob, "notice-arriving", &[&format!("{amount} ETH"), "@ann"]).await?;
        show(&mut self.ann);
        show(&mut self.bob);
        let after = self.stage.chain_balance(address)?;
        let received = after.checked_sub(before).context("the recipient's balance fell")?;
        ensure!(received.to_coins() == amount, "the recipient received {}", received.to_coins());
        let sent = last_transfer(&self.stage, sender, address).await?;
        let receipt = self.stage.anvil.rpc("eth_getTransactionReceipt", json!([sent.tx_hash]))?;
        ensure!(receipt.get("status") == Some(&json!("0x1")), "the transaction did not succeed");
        let balances = self.stage.client.balances(recipient.into()).await?;
        let shown = balances.chains.first().and_then(|chain| chain.balance.as_ref());
        ensure!(
            shown.is_some_and(|it| it.wei == after),
            "the server reports another balance than the chain"
        );
        Ok(())
    }
}

/// Waits until the bot sends the message with this id, with these values in it.
async fn hears(phone: &mut Phone, id: &str, values: &[&str]) -> anyhow::Result<Option<Message>> {
    let expected = format!("{id} {values:?}");
    Ok(phone.hears_matching(&expected, |text| texts::is_with(id, values, text)).await?)
}

/// Opens the vault page by the last button with this label, as the user's phone does.
#[expect(clippy::print_stdout, reason = "the terminal is where people read it")]
async fn open(stage: &Stage, phone: &Phone, button: &str) -> anyhow::Result<Vault> {
    let page = stage.open_page(&phone.opens(&label(button))?).await?;
    println!("  🔐 Telegram signs who opens the page, and for what; the password is typed there");
    Ok(page)
}

async fn hash(phone: &Phone, password: &str) -> anyhow::Result<PasswordHash> {
    Ok(hash_password(id(phone)?, password).await)
}

fn code_of<T>(result: Result<T, ClientError>) -> Option<ErrorCode> {
    result.err().and_then(|error| error.code())
}

/// Makes a wallet on the page, and finds the new account in both stores.
async fn onboard(stage: &Stage, phone: &mut Phone, password: &str) -> anyhow::Result<Account> {
    show(phone);
    let page = open(stage, phone, "page-create-button").await?;
    page.create(&NewWallet { password_hash: hash(phone, password).await? }).await?;
    hears(phone, "start-created", &[]).await?;
    show(phone);
    let id = id(phone)?;
    let account = stage.client.account(id.into()).await?.context("the server has no account")?;
    let stored = stage.database.account(id.into()).await?.context("no account is stored")?;
    ensure!(stored.wallet.address == account.address, "another address is stored");
    let wrapped = stage.scks.sck(stored.wallet.sck_id).await?;
    ensure!(wrapped.is_some_and(|sck| sck.account == account.id), "no wrapped SCK is stored");
    Ok(account)
}

async fn last_transfer(
    stage: &Stage,
    from: TelegramId,
    to: EthAddress,
) -> anyhow::Result<Transfer> {
    let page = stage.client.transfers(from.into(), Page::Newest, 1).await?;
    let Some(HistoryEntry::Transfer { transfer: sent }) = page.entries.into_iter().next() else {
        bail!("the newest entry of the history is no transfer");
    };
    let mined = matches!(sent.state, TransferState::Mined | TransferState::Final);
    ensure!(mined && sent.to.address == to, "the newest entry is another transfer");
    Ok(*sent)
}

#[expect(clippy::print_stdout, reason = "the terminal is where people read it")]
async fn check_records(stage: &Stage, account: &Account) -> anyhow::Result<()> {
    let ann = account.telegram_id.into();
    let page = stage.client.transfers(ann, Page::Newest, 10).await?;
    // Four that she sent, and two from the faucet.
    ensure!(page.entries.len() == 6, "the history has {} entries", page.entries.len());
    let deadline = Instant::now() + PATIENCE;
    // The bot acknowledges events after it has notified their user.
    for stream in [EventStream::Security, EventStream::Payments] {
        while !stage.client.events(stream, None, None, Duration::ZERO).await?.events.is_empty() {
            ensure!(Instant::now() < deadline, "the bot did not acknowledge all events");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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

/// Waits for the e-mail to Ann with this number, counted from 1.
async fn mail(stage: &Stage, number: usize) -> anyhow::Result<Mail> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(mail) = stage.mailbox.mails_to(ANNS_ADDRESS).get(number - 1) {
            return Ok(mail.clone());
        }
        ensure!(Instant::now() < deadline, "e-mail {number} did not arrive");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The code in an e-mail: the first indented line.
fn code(mail: &Mail) -> anyhow::Result<String> {
    let line = mail.body.lines().find_map(|line| line.strip_prefix("    "));
    Ok(line.context("the e-mail has no code")?.to_owned())
}

fn id(phone: &Phone) -> anyhow::Result<TelegramId> {
    Ok(phone.person().id().try_into()?)
}

fn coins(coins: u64) -> Wei {
    Wei(U256::from(coins) * U256::from(10).pow(U256::from(18)))
}

#[expect(clippy::print_stdout, reason = "the terminal is where people read it")]
fn title(title: &str) {
    println!("\n{title}");
}

/// Prints what was written in a chat since the last call.
#[expect(clippy::print_stdout, reason = "the terminal is where people read it")]
fn show(phone: &mut Phone) {
    for line in phone.news().lines() {
        println!("  {line}");
    }
}

/// Prints the beginning of an e-mail.
#[expect(clippy::print_stdout, reason = "the terminal is where people read it")]
fn show_mail(mail: &Mail) {
    for line in mail.body.lines().take(6) {
        println!("  ✉️ {line}");
    }
}
