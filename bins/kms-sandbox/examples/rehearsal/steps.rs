//! What an operator does, by the manual.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kms_client::{BearerToken, Client, Trust, hash_password};
use kms_server_testing::commands::kms_server;
use kms_server_testing::requests::{COIN, confirm, create, quote, telegram};
use kms_store::{Database, WRITER};
use kms_testkit::Mongod;
use kms_types::wire::{ConfirmTransfer, TransferState};
use kms_types::{TransferId, U256, Wei};

use crate::load::{self, Load, Outage};
use crate::world::{World, start_postgres};

const PASSWORD: &str = "orange ladder seldom sings";
const RESTORE: &str = include_str!("../../../../docs/operating/restore.md");
/// How many wallets are made after a backup, and lost with what comes after it.
const AFTER_THE_BACKUP: usize = 10;

pub(crate) async fn deploy(world: &mut World) -> anyhow::Result<()> {
    let plan = world.run(world.aws.server(), "migrate --plan")?;
    ensure!(plan.contains("0001"), "{plan}");
    // As two operators at once.
    let migrate = || kms_server(&world.env, "migrate").stdout(Stdio::null()).spawn();
    for migration in [migrate(), migrate()] {
        ensure!(migration?.wait()?.success(), "migrate failed");
    }
    world.check_config()?;
    for _ in 0..2 {
        world.start_server().await?;
    }
    world.start_bot()
}

/// Ann makes a wallet in the chat, and pays Bob.
pub(crate) async fn onboard(world: &mut World) -> anyhow::Result<()> {
    world.ann.says("/start");
    world.ann.hears("").await?;
    world.ann.says(PASSWORD);
    let since = Instant::now();
    let account = loop {
        if let Some(account) = world.client.account(telegram(1)).await? {
            break account;
        }
        ensure!(since.elapsed() < Duration::from_secs(30), "the bot made no wallet");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    world.env.fund(&account, 100 * COIN)?;
    world.client.create_account(&create(2, "bob", "bob's")).await?;
    world.the_bot_answers().await?;
    pay(world).await
}

/// Ann pays Bob half a coin, and the payment is in a block.
async fn pay(world: &mut World) -> anyhow::Result<()> {
    let quoted = world.client.quote(&quote(1, "@bob", "0.5")).await?;
    let password_hash = hash_password(1.try_into()?, PASSWORD).await;
    let body = ConfirmTransfer { password_hash, ..confirm(&quoted, "") };
    world.client.confirm(quoted.id, &body).await?;
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(60) {
        if is_paid(world, quoted.id).await? {
            world.payments.push(quoted.id);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("the payment was not mined")
}

async fn is_paid(world: &World, id: TransferId) -> anyhow::Result<bool> {
    let transfer = world.client.transfer(id).await?.context("an acknowledged payment is gone")?;
    Ok(matches!(transfer.state, TransferState::Mined | TransferState::Final))
}

/// What users were acknowledged is there, except what a restore has lost: each wallet has an
/// account, whose key the KMS key opens, and the first and the last open by their passwords; each
/// payment is in a block and in Bob's balance; and the audit covers it. Returns how many acts.
pub(crate) async fn verify(world: &mut World, load: &Load) -> anyhow::Result<usize> {
    let _paused = load.pause().await;
    let users = load.acknowledged();
    let gone = missing(world, load)?;
    ensure!(gone == world.lost, "acknowledged wallets are gone: {gone:?}, not {:?}", world.lost);
    let mut kept = users.iter().filter(|user| !gone.contains(&user.telegram_id));
    for id in [kept.next(), kept.next_back()].into_iter().flatten().map(|user| user.telegram_id) {
        let user = create(id, &load::name(id), load::PASSWORD);
        let opened = world.client.create_account(&user).await;
        opened.with_context(|| format!("{id} does not open by the password"))?;
    }
    for id in &world.payments {
        ensure!(is_paid(world, *id).await?, "the payment {id} is not in a block");
    }
    let paid = u128::try_from(world.payments.len() + world.payments_lost)? * COIN / 2;
    let mut balances = world.client.balances(telegram(2)).await?.chains.into_iter();
    let balance = balances.find_map(|on_chain| on_chain.balance);
    let balance = balance.context("the chain does not answer")?.wei;
    ensure!(balance == Wei(U256::from(paid)), "Bob has {balance:?}, and was paid {paid}");
    world.run(world.aws.server(), "keys verify --decrypt")?;
    world.run(world.aws.auditor(), "audit verify --against-state")?;
    world.the_bot_answers().await?;
    Ok(users.len() - gone.len() + world.payments.len())
}

/// The acknowledged users without an account.
fn missing(world: &World, load: &Load) -> anyhow::Result<BTreeSet<i64>> {
    let users = load.acknowledged().into_iter().map(|user| user.telegram_id);
    let users: BTreeSet<_> = users.collect();
    let stored = world.accounts()?.into_iter().collect();
    Ok(users.difference(&stored).copied().collect())
}

/// Adds what is missing against what a restore has lost before.
fn with_lost(world: &World, load: &Load, outage: Outage) -> anyhow::Result<Outage> {
    let lost = missing(world, load)?.difference(&world.lost).count();
    Ok(Outage { lost, ..outage })
}

fn none_failed(load: &Load, Outage { failed, .. }: Outage) -> anyhow::Result<()> {
    ensure!(failed == 0, "{failed} requests failed, the last one: {:?}", load.last_failure());
    Ok(())
}

/// Replaces each server by a new one, as of another release, without a failed request.
pub(crate) async fn upgrade(world: &mut World, load: &Load) -> anyhow::Result<Outage> {
    load.more(5).await?;
    let began = Instant::now();
    let plan = world.run(world.aws.server(), "migrate --plan")?;
    ensure!(plan.contains("no migration is pending"), "{plan}");
    world.run(world.aws.server(), "migrate")?;
    for _ in 0..2 {
        world.start_server().await?;
        let log = world.stop_server();
        ensure!(!log.contains("checkpoint_failed"), "{log}");
    }
    let outage = load.served_after(began).await?;
    none_failed(load, outage)?;
    with_lost(world, load, outage)
}

/// The new certificate also names the address, by which its use is seen.
pub(crate) async fn rotate_certificate(world: &World, load: &Load) -> anyhow::Result<Outage> {
    let began = Instant::now();
    let (certificate, key) = world.authority.issue(&["localhost", "127.0.0.1"])?;
    world.replace("tls.pem", &certificate)?;
    world.replace("tls-key.pem", &key)?;
    for server in &world.servers {
        let trust = Trust::Pinned(world.authority.certificate.clone());
        let url = format!("https://127.0.0.1:{}", server.port);
        let client = Client::new(&url, BearerToken::from("none".to_owned()), trust)?;
        let since = Instant::now();
        while client.networks().await.is_err_and(|error| error.code().is_none()) {
            ensure!(since.elapsed() < Duration::from_secs(30), "the certificate is not used");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let outage = load.served_after(began).await?;
    none_failed(load, outage)?;
    with_lost(world, load, outage)
}

pub(crate) async fn rotate_password(world: &mut World, load: &Load) -> anyhow::Result<Outage> {
    world.replace("postgres-kms", "another-password-of-kms")?;
    world.use_database("kms")?;
    let rotated = Instant::now();
    // Sets the passwords of the files.
    world.make_roles()?;
    let end_all = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'kms'";
    world.postgres.execute("postgres", end_all)?;
    let outage = load.served_after(rotated).await?;
    with_lost(world, load, outage)
}

/// A server is killed; its replacement comes after users are served again.
pub(crate) async fn lose_server(world: &mut World, load: &Load) -> anyhow::Result<Outage> {
    load.more(1).await?;
    let killed = Instant::now();
    let port = world.kill_server();
    let outage = load.served_after(killed).await?;
    world.balancer.remove(port);
    world.start_server().await?;
    with_lost(world, load, outage)
}

/// The primary is killed, and the standby promoted.
pub(crate) async fn fail_over(world: &mut World, load: &Load) -> anyhow::Result<Outage> {
    let standby = world.standby.take().context("there is a standby")?;
    load.more(1).await?;
    let lost = Instant::now();
    world.postgres.kill()?;
    world.database.cut();
    standby.execute("postgres", "select pg_promote()")?;
    world.database.lead_to(&[standby.port()]);
    world.postgres = standby;
    let outage = load.served_after(lost).await?;
    with_lost(world, load, outage)
}

/// mongod is killed, Ann pays without it, and it is started again with its data.
pub(crate) async fn lose_mongod(world: &mut World, load: &Load) -> anyhow::Result<Outage> {
    load.more(1).await?;
    let lost = Instant::now();
    world.mongod.kill()?;
    pay(world).await.context("a payment needs no key database")?;
    world.mongod.start_again()?;
    let outage = load.served_after(lost).await?;
    with_lost(world, load, outage)
}

/// Returns how long a payment takes.
pub(crate) async fn lose_endpoint(world: &mut World, load: &Load) -> anyhow::Result<Outage> {
    let lost = Instant::now();
    world.providers[0].cut();
    pay(world).await?;
    let took = lost.elapsed();
    world.providers[0].lead_to(&[world.anvil]);
    with_lost(world, load, Outage { took, ..load.served_after(lost).await? })
}

/// By docs/operating/restore.md. Returns also how old the backup was.
pub(crate) async fn restore(world: &mut World, load: &Load) -> anyhow::Result<(Outage, Duration)> {
    let backed_up = Instant::now();
    by_the_manual(world, "kms_backup", "pg_dump -Fc -d kms -f accounts.dump")?;
    let keys = world.back_up_keys().await?;
    load.more(AFTER_THE_BACKUP).await?;
    // Ann's payments before it.
    let kept = world.payments.clone();
    pay(world).await?;

    let lost = Instant::now();
    world.bot = None;
    world.servers.clear();
    world.balancer.clear();
    world.database.cut();
    world.postgres.kill()?;
    world.mongod.kill()?;

    world.postgres = start_postgres(&world.authority)?;
    world.mongod = Mongod::start_with_roles()?;
    world.database.lead_to(&[world.postgres.port()]);
    world.env.key_database = world.mongod.serving_url();
    world.make_roles()?;
    by_the_manual(world, "postgres", "createdb kms_restored")?;
    let restore = "pg_restore --exit-on-error -d kms_restored accounts.dump";
    by_the_manual(world, "postgres", restore)?;
    world.restore_keys(&keys).await?;
    world.use_database("kms_restored")?;
    let server = world.aws.server();
    world.run(server, "migrate")?;
    world.run(server, "keys adopt --reason rehearsal")?;
    world.check_config()?;
    world.run(server, "keys verify --decrypt")?;
    world.finds(world.aws.auditor(), "audit verify", "a checkpoint covers")?;
    world.run(world.aws.operator(), "audit adopt --reason rehearsal")?;
    world.run(world.aws.auditor(), "audit verify --against-state")?;
    world.start_server().await?;
    let outage = load.served_after(lost).await?;
    world.start_server().await?;
    world.start_bot()?;
    // The chain has what the list of payments lost.
    world.payments_lost = world.payments.len() - kept.len();
    world.payments = kept;
    let outage = with_lost(world, load, outage)?;
    let outage = Outage { lost: outage.lost + world.payments_lost, ..outage };
    take_up_again(world, load, backed_up).await?;
    Ok((outage, lost.duration_since(backed_up)))
}

/// Only users who came after the backup have lost their wallets; one of them makes another one.
async fn take_up_again(world: &mut World, load: &Load, backed_up: Instant) -> anyhow::Result<()> {
    world.lost = missing(world, load)?;
    ensure!(world.lost.len() >= AFTER_THE_BACKUP, "the backup has what was made after it");
    let users = load.acknowledged();
    let gone = users.iter().filter(|user| world.lost.contains(&user.telegram_id));
    let early = gone.filter(|user| user.answered < backed_up).count();
    ensure!(early == 0, "{early} wallets from before the backup are lost");
    let id = *world.lost.first().context("wallets are lost")?;
    world.client.create_account(&create(id, &load::name(id), load::PASSWORD)).await?;
    world.lost.remove(&id);
    pay(world).await
}

/// Runs a command that the manual has.
fn by_the_manual(world: &World, role: &str, command: &str) -> anyhow::Result<()> {
    ensure!(RESTORE.contains(&format!("`{command}`")), "restore.md lacks: {command}");
    world.as_role(role, command)
}

/// `migrate` of a newer release, which this one cannot write beside.
pub(crate) async fn fence(world: &mut World, load: &Load) -> anyhow::Result<()> {
    let keys = Arc::new(world.env.server_keys()?);
    let owner = world.env.owner.as_ref().context("there is an owner")?;
    let newer = Database::connect(owner, 1, keys).await?;
    newer.require_writer(WRITER + 1).await?;
    let written = world.accounts()?.len();
    for server in world.servers.drain(..) {
        server.died();
    }
    world.balancer.clear();
    ensure!(world.accounts()?.len() == written, "an older server wrote");
    ensure!(missing(world, load)? == world.lost, "acknowledged wallets are gone");
    world.finds(world.aws.server(), "serve", "start the newer release")?;
    world.bot.take().context("the bot runs")?.terminate()
}
