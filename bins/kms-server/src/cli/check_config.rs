//! `kms-server check-config`: tries everything that the configured server will need.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use kms_chain::{Chain, ChainError, Endpoint, Need};
use kms_core::{Custody, ServerKeys};
use kms_process::ErrorChain;
use kms_store::{Database, KeyDatabase};

use super::operator::operator;
use super::{open_keys, say};
use crate::checkpoint_archive::CheckpointArchive;
use crate::clock::{self, MAX_SKEW};
use crate::config::{AuditSettings, ChainSettings, DatabaseSettings, Profile, Settings};
use crate::mail::Mailer;
use crate::{database_url, key_ring, startup, tls};

/// A certificate that expires sooner is reported as a failure.
const CERTIFICATE_LEFT: Duration = Duration::from_secs(24 * 60 * 60);

/// Prints each check, with what to do if it failed, and counts those that failed.
#[derive(Default)]
struct Report {
    failed: u32,
}

impl Report {
    fn add<T>(&mut self, what: &str, next: &str, result: anyhow::Result<T>) -> Option<T> {
        match result {
            Ok(found) => {
                say(&format!("ok      {what}"));
                Some(found)
            }
            Err(error) => {
                self.failed += 1;
                say(&format!("failed  {what}: {}", ErrorChain(&*error)));
                say(&format!("        {next}"));
                None
            }
        }
    }
}

pub(super) async fn run(settings: Settings) -> anyhow::Result<()> {
    say(&format!("{settings:#?}"));
    for weakness in settings.weaknesses() {
        say(&format!("weak    {weakness}"));
    }
    let mut report = Report::default();
    let replace = "replace the files of tls.certificate and tls.key; a running server reads them";
    report.add("tls", replace, check_certificate(&settings));
    for (name, chain) in &settings.chains {
        check_chain(&mut report, name, chain).await?;
    }
    if let Some(mail) = &settings.mail {
        let next = "check host, port, user and password of mail.url, and that the port is open";
        report.add("mail", next, Mailer::accepts_login(mail).await);
    }
    check_archive(&mut report, &settings.audit).await;
    let next = "check host, user, password and TLS of key_database.url";
    let keys = report.add("key_database", next, open_key_database(&settings).await);
    if let Some(keys) = &keys {
        check_key_grants(&mut report, &**keys, settings.profile).await;
    }
    let ring = key_ring::open(settings.kms_key, settings.older_kms_keys).await;
    let next = "check provider, key, public key and passphrase of kms_key and older_kms_keys";
    let ring = report.add("kms_key.open", next, ring.map_err(Into::into));
    let server_keys = Arc::new(settings.server_keys);
    let database = connect(settings.database, Arc::clone(&server_keys)).await;
    let next = "check host, role, password and TLS of database.url, and that it can be reached";
    if let Some(database) = report.add("database", next, database)
        && check_database(&mut report, &database, settings.profile).await
        && let Some(keys) = keys
        && check_owner(&mut report, &database, &*keys).await
        && let Some(ring) = ring
    {
        let custody = startup::custody(&database, &keys, ring, server_keys, settings.password)?;
        probe(&mut report, &custody).await;
    } else {
        say("skipped kms_key: a use of it is recorded in the audit, which the checks above need");
    }
    ensure!(report.failed == 0, "{} checks failed", report.failed);
    Ok(())
}

fn check_certificate(settings: &Settings) -> anyhow::Result<()> {
    let left = tls::remaining(&settings.tls, clock::system_time())?;
    ensure!(left >= CERTIFICATE_LEFT, "the certificate has expired, or expires within a day");
    Ok(())
}

async fn check_chain(
    report: &mut Report,
    name: &str,
    settings: &ChainSettings,
) -> anyhow::Result<()> {
    let next = "check this URL of rpc_urls and the chain_id, or remove the endpoint";
    for (position, endpoint) in (1..).zip(settings.open_each()) {
        let what = format!("chains.{name}.rpc_urls {position}");
        let answer = async {
            let chain = endpoint?;
            chain.first(Endpoint::block_number).await?;
            Ok(chain)
        };
        if let Some(chain) = report.add(&what, next, answer.await) {
            check_needs(report, &what, &chain, settings).await;
        }
    }
    let chain = settings.open()?;
    let finality = chain.check_finality(settings.finality).await;
    let next = "set finality to a number of blocks, or use an endpoint that has the tag";
    report.add(&format!("chains.{name}.finality"), next, finality.map_err(Into::into));
    let next = "compare the address and decimals with the announcement of the token's issuer";
    for token in &settings.tokens {
        let check = chain.check_token(token, false).await;
        let other = check.as_ref().ok().and_then(|it| it.other_symbol.as_deref());
        let other = other.map(|symbol| format!(", which calls itself {symbol:?}"));
        let what = format!("chains.{name}.tokens {}{}", token.symbol, other.unwrap_or_default());
        report.add(&what, next, check.map(drop).map_err(Into::into));
    }
    Ok(())
}

/// Tries everything that transfers need of one endpoint, as the settings of its chain want it.
async fn check_needs(report: &mut Report, what: &str, chain: &Chain, settings: &ChainSettings) {
    let needs = [
        (Need::Prices, "prices", "use an endpoint that answers eth_feeHistory"),
        (Need::Gas, "gas", "use an endpoint that answers eth_estimateGas"),
        (Need::Logs, "logs", "use an endpoint that answers eth_getLogs for the hash of a block"),
        (Need::Receipts, "receipts", "replace the endpoint, or set prove_receipts to false"),
        (
            Need::FinalBalances,
            "balances",
            "use one with the state of final blocks, or set compare_balances to false",
        ),
    ];
    for (need, name, next) in needs {
        let is_needed = match need {
            Need::Prices | Need::Gas => true,
            Need::Logs => !settings.tokens.is_empty(),
            Need::Receipts => settings.prove_receipts,
            Need::FinalBalances => settings.compare_balances,
        };
        if !is_needed {
            continue;
        }
        let what = format!("{what} {name}");
        match chain.first(|it| it.probe(need, settings.finality)).await {
            // A receipt that a second endpoint returns as well is believed.
            Err(error @ ChainError::NoReceipts) => say(&format!("weak    {what}: {error}")),
            answer => {
                report.add(&what, next, answer.map_err(Into::into));
            }
        }
    }
    let depth = chain.first(Endpoint::state_depth).await;
    let kept = depth.as_ref().map(|blocks| format!(" of the last {blocks} blocks"));
    let what = format!("{what} state{}", kept.unwrap_or_default());
    report.add(&what, "check whether the endpoint is overloaded", depth.map_err(Into::into));
}

/// Writes to the places of checkpoints as servers do, as far as it leaves nothing behind: the file
/// is opened for appending, and the bucket has one empty object for all checks.
async fn check_archive(report: &mut Report, settings: &AuditSettings) {
    let archive = CheckpointArchive::open(settings).await;
    let next = "let the server's user create and append to the file, and for S3 set AWS_REGION";
    let archive = report.add("audit.checkpoints", next, archive.map_err(Into::into));
    #[cfg(not(feature = "aws-kms"))]
    let _ = archive;
    #[cfg(feature = "aws-kms")]
    if let Some(archive) = archive
        && let Some(checked) = archive.check_bucket().await
    {
        let next = "permit s3:PutObject below the prefix and s3:GetBucketObjectLockConfiguration \
                    to this role, and check the bucket's name, region and policy";
        report.add("audit.checkpoint_s3", next, checked.map_err(Into::into));
    }
}

async fn open_key_database(settings: &Settings) -> anyhow::Result<Arc<dyn KeyDatabase>> {
    let keys = open_keys(settings).await?;
    keys.ping().await?;
    Ok(keys)
}

async fn connect(settings: DatabaseSettings, keys: Arc<ServerKeys>) -> anyhow::Result<Database> {
    let url = database_url::source(settings.url, settings.auth).await?;
    let database = Database::connect_by(url, settings.pool, keys).await?;
    database.check_durability().await?;
    Ok(database)
}

async fn check_key_grants(report: &mut Report, keys: &dyn KeyDatabase, profile: Profile) {
    let next = "give the user of key_database.url the role of deploy/mongodb/roles.js";
    match keys.grants().await {
        Ok(grants) if grants.changes_checkpoints && profile != Profile::Production => {
            say("weak    key_database: the user of key_database.url can remove checkpoints");
        }
        grants => {
            let is_right = grants.map_err(Into::into).and_then(|grants| {
                ensure!(!grants.changes_checkpoints, "the user can remove checkpoints");
                let missing = grants.missing.join(", ");
                ensure!(missing.is_empty(), "the user has no right to {missing}");
                Ok(())
            });
            report.add("key_database.grants", next, is_right);
        }
    }
}

/// Returns whether the database is ready for a server.
async fn check_database(report: &mut Report, database: &Database, profile: Profile) -> bool {
    let next = "synchronize both clocks, by NTP";
    report.add("clock", next, compare_clocks(database).await);
    let schema = async {
        database.check_writer().await?;
        ensure!(database.schema_is_current().await?, "the schema is not up to date");
        Ok(())
    };
    if report.add("database.schema", "run `kms-server migrate`", schema.await).is_none() {
        return false;
    }
    let next = "run `kms-server migrate` with database.migrate_url, as the owner of the tables";
    match database.grants().await {
        Ok(grants) if grants.changes_audit && profile != Profile::Production => {
            say("weak    database: the role of database.url can change the audit; use two roles");
        }
        grants => {
            let is_right = grants.map_err(Into::into).and_then(|grants| {
                ensure!(!grants.changes_audit, "the role of database.url can change the audit");
                let missing = grants.missing.join(", ");
                ensure!(missing.is_empty(), "the role of database.url cannot read {missing}");
                Ok(())
            });
            report.add("database.grants", next, is_right);
        }
    }
    let compared = database.compare_server_keys().await;
    let next = "use the server keys that the data was written with: docs/operating/keys.md";
    report.add("server_keys", next, compared.map_err(Into::into)).is_some()
}

async fn compare_clocks(database: &Database) -> anyhow::Result<()> {
    let skew = clock::compare(database).await?.skew;
    ensure!(
        skew <= MAX_SKEW,
        "the clocks of this machine and of the database differ by {} s",
        skew.as_secs()
    );
    Ok(())
}

async fn check_owner(report: &mut Report, database: &Database, keys: &dyn KeyDatabase) -> bool {
    let owns = database.check_key_database(keys).await;
    let next = "check that key_database.url and database.url belong together";
    report.add("key_database's owner", next, owns.map_err(Into::into)).is_some()
}

/// Wraps and unwraps a value with each KMS key, as running servers do every hour.
async fn probe(report: &mut Report, custody: &Custody) {
    let next = "for AWS KMS, permit kms:Decrypt and kms:GetPublicKey to this role, and check the \
                region; for a local key, check that its file belongs to this key";
    for (position, id) in custody.kms_keys().enumerate() {
        let probed = custody.probe_kms_key(id, &operator("check-config"), clock::now()).await;
        let what = if position == 0 { "kms_key" } else { "older_kms_keys" };
        report.add(what, next, probed.map_err(Into::into));
    }
}
