//! Rehearses on one machine what an operator does when something is lost or replaced, while users
//! go on, and measures how long they wait and which acknowledged acts are gone.
//!
//! Real are PostgreSQL (TLS, roles, a synchronous standby), mongod (access control), anvil, the
//! programs of this repository as processes of their own, and the manual's commands. moto is S3,
//! IAM and STS, and enforces the policies of deploy/aws. AWS KMS, Telegram and the load balancer
//! are stand-ins.
//!
//! `just rehearse` builds the programs and starts it. It fails if a step does, if an acknowledged
//! act is gone that the table of docs/operating/aws.md does not name, or if users wait longer than
//! it says. Stopping it at any moment leaves no file and no process.

#![expect(clippy::print_stdout, reason = "the terminal is where people read it")]

mod aws;
mod door;
mod load;
mod steps;
mod world;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};

use load::{Load, Outage};
use world::World;

const PAGE: &str = include_str!("../../../../docs/operating/aws.md");

/// Runs steps, and notes what users noticed of them.
#[derive(Default)]
struct Report {
    passed: u32,
    table: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let (started, mut report) = (Instant::now(), Report::default());
    let played = play(&mut report).await;
    println!("\nuntil served   failed   lost   of");
    report.table.iter().for_each(|line| println!("{line}"));
    let (passed, seconds) = (report.passed, started.elapsed().as_secs_f64());
    match played {
        Ok(()) => {
            println!("\n{passed} passed, 0 failed, in {seconds:.0} s");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("\n{error:#}\n{passed} passed, 1 failed, in {seconds:.0} s");
            ExitCode::FAILURE
        }
    }
}

async fn play(report: &mut Report) -> anyhow::Result<()> {
    let mut world = report.step("databases, roles, AWS, chain", World::new()).await?;
    report.step("migrate, check-config, two servers, the bot", steps::deploy(&mut world)).await?;
    report.step("a wallet in the chat, and a payment", steps::onboard(&mut world)).await?;
    let load = Load::start(&world.client);
    let world = &mut world;

    let seen = report.step("rolling upgrade", steps::upgrade(world, &load)).await?;
    report.measure("a server, for another release", seen, world, &load).await?;
    let seen = report.step("a new certificate", steps::rotate_certificate(world, &load)).await?;
    report.measure("a certificate", seen, world, &load).await?;
    let seen = report.step("a new password", steps::rotate_password(world, &load)).await?;
    report.measure("a password of PostgreSQL", seen, world, &load).await?;
    let seen = report.step("a server is killed", steps::lose_server(world, &load)).await?;
    report.measure("a server", seen, world, &load).await?;
    let seen = report.step("PostgreSQL fails over", steps::fail_over(world, &load)).await?;
    report.measure("the primary of PostgreSQL", seen, world, &load).await?;
    let seen = report.step("mongod is killed", steps::lose_mongod(world, &load)).await?;
    report.measure("mongod, which is started again", seen, world, &load).await?;
    let seen = report.step("an RPC endpoint is lost", steps::lose_endpoint(world, &load)).await?;
    report.measure("the first of three RPC endpoints", seen, world, &load).await?;
    let restored = steps::restore(world, &load);
    let (seen, age) =
        report.step("everything but S3 and KMS is lost, and restored", restored).await?;
    report.measure("both databases and every server", seen, world, &load).await?;
    report.table.push(format!("{:36}the backup was {:.1} s old", "", age.as_secs_f64()));
    report.step("a newer release shuts the servers out", steps::fence(world, &load)).await
}

impl Report {
    async fn step<T>(
        &mut self,
        what: &str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        let done = work.await.with_context(|| format!("failed: {what}"))?;
        self.passed += 1;
        println!("{:6.1} s  {what}", started.elapsed().as_secs_f64());
        Ok(done)
    }

    /// Records what users noticed of a loss, which must not exceed what the manual allows, and
    /// verifies what they were acknowledged.
    async fn measure(
        &mut self,
        what: &str,
        seen: Outage,
        world: &mut World,
        load: &Load,
    ) -> anyhow::Result<()> {
        let Outage { took, failed, lost } = seen;
        let took = took.as_secs_f64();
        self.table.push(format!("{took:10.1} s {failed:8} {lost:6}   {what}"));
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| {what} |")));
        let row = row.with_context(|| format!("docs/operating/aws.md has no row: {what}"))?;
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, _, _, limit, losses, _] = cells[..] else { anyhow::bail!("other columns: {row}") };
        let limit: f64 = limit.strip_suffix(" s").context("it has seconds")?.parse()?;
        ensure!(took <= limit, "{what}: {took:.1} s, and the manual says {limit} s");
        ensure!(lost == 0 || !losses.starts_with("none"), "{what}: {lost} acts are lost");
        let started = Instant::now();
        let acts = steps::verify(world, load).await;
        let acts = acts.with_context(|| format!("after losing {what}"))?;
        println!("{:6.1} s  {acts} acknowledged acts verified", started.elapsed().as_secs_f64());
        Ok(())
    }
}
