//! Benchmarks of the stores against a real PostgreSQL that writes to its disk: `just
//! bench-custody`. A missed target fails the run. The figures are written to
//! `target/bench-custody.json`.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kms_core::audit::{
    Action, AuditRecord, Caller, Chaining, Checkpoint, CheckpointKeys, Details, Entry, Evidence,
    Leniency, Phase, Tip, Verifier,
};
use kms_core::ports::AuditLog;
use kms_core::{
    CreateWallet, Custody, CustodyError, KdfParams, KdfPool, KeyRing, MasterKey, Ports, ServerKeys,
};
use kms_key_local::LocalMasterKey;
use kms_store::{Database, RateLimit, SqliteKeyDatabase};
use kms_testkit::Postgres;
use kms_types::{AccountRef, PasswordHash, Timestamp, TransferId};
use serde_json::json;

const PEM: &str = include_str!("../../kms-core/vectors/test-kms-key.txt");
const PASSPHRASE: &str = include_str!("../../kms-core/vectors/test-kms-key-passphrase.txt");
const AT_ONCE: u32 = 64;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A measurement and its target.
struct Row {
    name: &'static str,
    measured: f64,
    /// The divisor of `measured`.
    limit: f64,
    unit: &'static str,
    target: f64,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.measured / self.limit
    }

    fn is_ok(&self) -> bool {
        self.ratio() >= self.target
    }
}

/// Measures the rate per second.
async fn rate<T>(count: u32, work: impl Future<Output = Outcome<T>>) -> Outcome<f64> {
    let started = Instant::now();
    work.await?;
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}

fn caller() -> Caller {
    Caller::new("bench", TransferId::random().to_string())
}

fn record() -> AuditRecord {
    let (at, caller, action) = (Timestamp(1), caller(), Action::Send(TransferId::random()));
    // As those of a payment.
    let details = Details::default()
        .with("asset", "native")
        .with("chain", 1)
        .with("to", "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266")
        .with("value", 1_000_000_000_000_000_000_u64);
    let phase = Phase::Intent;
    AuditRecord { at, caller, action, phase, account: None, telegram_id: None, details }
}

/// Runs concurrent tasks, each of which repeats `work` in sequence.
async fn at_once<F>(work: impl Fn(u32) -> F) -> Outcome<()>
where
    F: Future<Output = Outcome<()>> + Send + 'static,
{
    let tasks: Vec<_> = (0..AT_ONCE).map(|task| tokio::spawn(work(task))).collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn audit(database: &Database) -> Outcome<[Row; 2]> {
    let alone = 300;
    let one_by_one = rate(alone, async {
        for _ in 0..alone {
            database.append(record()).await?;
        }
        Ok(())
    });
    let one_by_one = one_by_one.await?;
    let each = 300;
    let together = rate(
        AT_ONCE * each,
        at_once(|_| {
            let database = database.clone();
            async move {
                for _ in 0..each {
                    database.append(record()).await?;
                }
                Ok(())
            }
        }),
    );
    let together = together.await?;
    let rows = alone + AT_ONCE * each;
    let mut read = 0.0_f64;
    let mut verified = 0.0_f64;
    // The best of three, so that a cold cache or a busy machine does not count.
    for _ in 0..3 {
        let bare = rate(rows, async {
            let mut place = i64::MIN;
            while let Some(last) = database.audit_after(place, 2_000).await?.last() {
                place = last.sequence;
            }
            Ok(())
        });
        read = read.max(bare.await?);
        let whole = async { Ok(database.verify_audit(&[], Leniency::default()).await?) };
        verified = verified.max(rate(rows, whole).await?);
    }
    Ok([
        Row {
            name: "audit appends, 64 at once / one by one",
            measured: together,
            limit: one_by_one,
            unit: "rows/s",
            target: 5.0,
        },
        Row {
            name: "audit verify / reading the rows",
            measured: verified,
            limit: read,
            unit: "rows/s",
            target: 1.0 / 3.0,
        },
    ])
}

/// An auditor recomputes a year's chain with the public keys alone: 30 seconds for a million rows.
fn auditor() -> Outcome<Row> {
    let (count, keys) = (1_000_000_u32, ServerKeys::random());
    let details = record().details.to_string();
    let entry = Entry {
        at: Timestamp(1),
        actor: "bench",
        request_id: "6f1c5f0a-3c0e-4d52-9a3e-0f6b7c9d1e2f",
        action: "send",
        subject: Some("5f0c0b44-6a5e-4a3e-9d0a-0f6a5c1f7a10"),
        account: Some("1a2b0b44-6a5e-4a3e-9d0a-0f6a5c1f7a10"),
        telegram_id: Some(1),
        phase: "outcome",
        outcome: Some("ok"),
        details: &details,
    };
    let mut tip = Tip::default();
    let links: Vec<_> = (0..count).map(|_| tip.append(&entry, &keys.audit)).collect();
    let checkpoint_keys = &CheckpointKeys::of(&keys.checkpoint);
    let checkpoints = &[Checkpoint::sign(tip, Timestamp(1), &keys.checkpoint)];
    let (audit_keys, head, leniency) = (None, Tip::default(), Leniency::default());
    let evidence = Evidence { audit_keys, checkpoints, checkpoint_keys, head, leniency };
    let started = Instant::now();
    let mut verifier = Verifier::new(evidence);
    for (place, link) in (1..).zip(links) {
        verifier.push(place, &entry, Chaining::Linked(link))?;
    }
    verifier.finish()?;
    let measured = f64::from(count) / started.elapsed().as_secs_f64();
    let (name, limit) = ("an auditor verifies 1,000,000 rows", f64::from(count) / 30.0);
    Ok(Row { name, measured, limit, unit: "rows/s", target: 1.0 })
}

async fn limiter(database: &Database) -> Outcome<Row> {
    let each = 100;
    let limit = RateLimit { burst: 1_000_000, period: Duration::from_millis(1) };
    let taken = rate(
        AT_ONCE * each,
        at_once(|task| {
            let database = database.clone();
            async move {
                for _ in 0..each {
                    database
                        .take(&format!("bench:{task}"), limit)
                        .await?
                        .map_err(|_wait| "limited")?;
                }
                Ok(())
            }
        }),
    );
    let (name, measured) = ("limiter, 64 accounts at once", taken.await?);
    Ok(Row { name, measured, limit: 200.0, unit: "takes/s", target: 1.0 })
}

fn master_key(id: &str) -> Outcome<Arc<dyn MasterKey>> {
    Ok(Arc::new(LocalMasterKey::from_pem(id.parse()?, PEM, PASSPHRASE)?))
}

async fn rewrap(database: &Database, keys: &Arc<ServerKeys>) -> Outcome<Row> {
    let store = Arc::new(database.clone());
    let scks = Arc::new(SqliteKeyDatabase::open(":memory:").await?);
    let ports = Ports::new(store.clone(), scks);
    let custody = |ring| {
        let pool = KdfPool::new(std::num::NonZeroUsize::MIN, 64)?;
        let keys = Arc::clone(keys);
        Outcome::Ok(Custody::new(ports.clone(), ring, keys, pool, KdfParams::ARGON2ID))
    };
    let before = custody(KeyRing::new(master_key("kms-1")?, [])?)?;
    let wallets = 40_u32;
    for id in 1..=wallets {
        let request = CreateWallet {
            telegram_id: i64::from(id).try_into()?,
            password: PasswordHash::fill(|bytes| bytes.fill(7)),
            names: None,
            mobile: None,
            email: None,
        };
        let admit = || async { Ok::<_, CustodyError>(()) };
        before.create(request, &caller(), Timestamp(1), admit).await?;
    }
    let after = custody(KeyRing::new(master_key("kms-2")?, [master_key("kms-1")?])?)?;
    let moved = rate(wallets, async {
        for id in 1..=wallets {
            let account = AccountRef::Telegram(i64::from(id).try_into()?);
            after.rewrap(account, &caller(), Timestamp(1)).await?;
        }
        Ok(())
    });
    let measured = moved.await?;
    Ok(Row { name: "rewrap, local keys", measured, limit: 10.0, unit: "wallets/s", target: 1.0 })
}

#[expect(clippy::print_stdout, reason = "this is where people read it")]
fn show(rows: &[Row]) -> Outcome<bool> {
    println!(
        "{:40} {:>10} {:>10} {:10} {:>7} {:>7} ok",
        "name", "measured", "limit", "unit", "ratio", "target"
    );
    let mut json = Vec::new();
    for row in rows {
        let Row { name, measured, limit, unit, target } = row;
        let (ratio, ok) = (row.ratio(), row.is_ok());
        println!("{name:40} {measured:10.0} {limit:10.0} {unit:10} {ratio:7.2} {target:7.2} {ok}");
        json.push(json!({
            "name": name, "measured": measured, "limit": limit, "unit": unit,
            "ratio": ratio, "target": target, "ok": ok,
        }));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench-custody.json");
    std::fs::write(file, serde_json::to_string_pretty(&json)?)?;
    Ok(rows.iter().all(Row::is_ok))
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let postgres = Postgres::start_durable()?;
    let keys = Arc::new(ServerKeys::random());
    let url = postgres.create_database()?;
    let database = Database::connect(&url, 16, Arc::clone(&keys)).await?;
    database.migrate().await?;
    let mut rows = Vec::from(audit(&database).await?);
    rows.push(auditor()?);
    rows.push(limiter(&database).await?);
    rows.push(rewrap(&database, &keys).await?);
    if show(&rows)? { Ok(()) } else { Err("a target was missed".into()) }
}
