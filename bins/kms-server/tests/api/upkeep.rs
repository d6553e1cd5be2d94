//! Background maintenance: checks of KMS keys and wallets, and deletion of what is not needed.

use std::time::Duration;

use kms_store::{AuditRow, Database, KeyDatabaseOwner, RateLimit, Scope, open_key_database};
use kms_testkit::AwsFault;
use kms_types::wire::ChangePassword;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Document, doc};
use rsa::PrivateKey;

use crate::aws;
use kms_server_testing::requests::{create, hash, recover, telegram};
use kms_server_testing::{ServerProcess, Stores, TestEnv, TestServer};

/// Waits until the audit has this many such rows, and returns them.
async fn rows(database: &Database, count: usize, wanted: fn(&AuditRow) -> bool) -> Vec<AuditRow> {
    for _ in 0..1_200 {
        let rows = database.audit_after(0, 1_000).await.unwrap();
        let found: Vec<_> = rows.into_iter().filter(wanted).collect();
        if found.len() >= count {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("there were never {count} such rows");
}

/// The body of a path of the operations listener.
async fn get(server: &ServerProcess, path: &str) -> String {
    server.ops(path).await.text().await.unwrap()
}

/// Waits until readiness reports this about the KMS keys: the audit records a probe first.
async fn until_kms_keys(server: &ServerProcess, state: &str) {
    let wanted = format!(r#""kms_keys":"{state}""#);
    let mut ready = String::new();
    for _ in 0..600 {
        ready = get(server, "/readyz").await;
        if ready.contains(&wanted) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{ready}");
}

#[actix_web::test]
async fn an_unusable_kms_key_raises_an_alarm() {
    let (aws, arn, mut env) = aws::env_with_aws();
    env.variables.push(("KMS_SERVER__UPKEEP__PROBE_INTERVAL".to_owned(), "5s".to_owned()));
    let database = env.migrate().await.unwrap();
    // Both the check at startup and the first probe fail.
    aws.fail_next(vec![AwsFault::AccessDenied; 2]);
    let server = ServerProcess::start(&env, None, "info");
    let ready = get(&server, "/readyz").await;
    assert!(ready.contains(r#""kms_keys":"unknown""#), "{ready}");
    let is_probe = |row: &AuditRow| row.action == "probe_kms_key" && row.phase != "intent";
    let first = rows(&database, 1, is_probe).await;
    assert_eq!(
        (&*first[0].phase, first[0].outcome.as_deref()),
        ("alarm", Some("kms_key_unavailable"))
    );
    assert_eq!(first[0].actor, "kms-server probe of kms-test");
    // The key works again without a restart of the server.
    let second = rows(&database, 2, is_probe).await;
    assert_eq!((&*second[1].phase, second[1].outcome.as_deref()), ("outcome", Some("ok")));
    until_kms_keys(&server, "ok").await;
    let metrics = get(&server, "/metrics").await;
    assert!(metrics.contains(r#"kms_key_works{key="kms-test"} 1"#), "{metrics}");
    // An alert on a number that is missing would never fire.
    for zero in [
        r#"kms_transfers{chain="31337",state="mined"} 0"#,
        r#"kms_transfer_oldest_seconds{chain="31337",state="signed"} 0"#,
        r#"kms_transfer_waits{chain="31337",reason="funds"} 0"#,
    ] {
        assert!(metrics.contains(zero), "{metrics}");
    }

    let other = aws.import(PrivateKey::new(&mut getrandom::SysRng, 3_072).unwrap());
    aws.alias("alias/kms", &other);
    let differs = |row: &AuditRow| row.outcome.as_deref() == Some("kms_key_differs");
    rows(&database, 1, differs).await;
    until_kms_keys(&server, "down").await;
    let metrics = get(&server, "/metrics").await;
    assert!(metrics.contains(r#"kms_key_works{key="kms-test"} 0"#), "{metrics}");
    aws.alias("alias/kms", &arn);
    let log = server.terminate();
    assert!(log.contains("kms_key_probe_failed") && log.contains("AccessDenied"), "{log}");
}

#[actix_web::test]
async fn one_server_at_a_time_raises_alarms_for_unrecoverable_wallets() {
    let mut env = TestEnv::new(Stores::Servers).unwrap();
    env.variables.push(("KMS_SERVER__UPKEEP__CHECK_INTERVAL".to_owned(), "10s".to_owned()));
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, Scope::Bot).await.unwrap();
    let servers = [(); 2].map(|()| ServerProcess::start(&env, None, "info"));
    let client = servers[0].client(&env, &token);
    let ann = client.create_account(&create(1, "ann", "ann's")).await.unwrap();
    let bob = client.create_account(&create(2, "bob", "bob's")).await.unwrap();
    let carl = client.create_account(&create(3, "carl", "carl's")).await.unwrap();
    let dora = client.create_account(&create(4, "dora", "dora's")).await.unwrap();
    let mongo = mongodb::Client::with_uri_str(env.key_database_of_admin().unwrap()).await.unwrap();
    let scks = mongo.database(&env.key_database_name).collection::<Document>("wrapped_scks");
    let of = |account: &kms_types::wire::Account| doc! { "account": account.id.to_string() };
    scks.delete_one(of(&ann)).await.unwrap();
    scks.update_one(of(&bob), doc! { "$set": { "master_key": "kms-gone" } }).await.unwrap();
    let stored = scks.find_one(of(&dora)).await.unwrap().unwrap();
    let mut bytes = stored.get_binary_generic("bytes").unwrap().clone();
    bytes[7] ^= 1;
    let damaged = Binary { subtype: BinarySubtype::Generic, bytes };
    scks.update_one(of(&dora), doc! { "$set": { "bytes": damaged } }).await.unwrap();
    scks.update_one(of(&carl), doc! { "$set": { "account": bob.id.to_string() } }).await.unwrap();

    // The second alarm for a wallet comes from the next round, not from the other server.
    for account in [&ann, &bob, &carl, &dora].map(|account| account.id.to_string()) {
        let mut of = Vec::new();
        for count in 1.. {
            let alarms = rows(&database, count, |row| row.phase == "alarm").await;
            of = alarms.into_iter().filter(|row| row.account.as_ref() == Some(&account)).collect();
            if of.len() >= 2 {
                break;
            }
        }
        let (first, second) = (of[0].at.0, of[1].at.0);
        assert!(second - first > 5_000, "{first} and {second}");
    }
    let mut metrics = String::new();
    for server in &servers {
        metrics.push_str(&get(server, "/metrics").await);
    }
    assert!(metrics.contains("kms_wallets_not_recoverable 4"), "{metrics}");
    for server in servers {
        server.terminate();
    }
}

/// The number of wrapped SCKs in the key database.
async fn wrapped(env: &TestEnv) -> u64 {
    let keys = open_key_database(&env.key_database, &env.key_database_name).await.unwrap();
    keys.scks_after("", 10_000).await.unwrap().len().try_into().unwrap()
}

async fn change(test: &TestServer, id: i64, old: &str, new: &str) {
    let body = ChangePassword { old_password_hash: hash(old), new_password_hash: hash(new) };
    test.client.change_password(telegram(id), &body).await.unwrap();
}

#[actix_web::test]
async fn the_sweeper_deletes_only_unreferenced_keys_after_their_retention() {
    for stores in [Stores::Embedded, Stores::Servers] {
        let mut env = TestEnv::new(stores).unwrap();
        env.upkeep.check_interval = Duration::from_millis(200);
        env.upkeep.retention = Some(Duration::from_secs(2));
        env.limits.password_changes = "1000/day".parse().unwrap();
        let test = TestServer::start(env).await;
        test.onboard(1, "ann", "0").await;
        test.onboard(2, "bob", "bob's").await;
        // Keys are replaced while the sweeper runs.
        for n in 0..40 {
            change(&test, 1, &n.to_string(), &(n + 1).to_string()).await;
        }
        let swept = |row: &AuditRow| row.action == "sweep" && row.outcome.as_deref() == Some("ok");
        let rows = rows(&test.database, 40, swept).await;
        assert_eq!(rows.len(), 40, "one row for each replaced key, and no more");
        let mut subjects: Vec<_> = rows.iter().map(|row| row.subject.clone().unwrap()).collect();
        subjects.sort();
        subjects.dedup();
        assert_eq!(subjects.len(), 40);
        assert_eq!(wrapped(&test.env).await, 2);
        let first = test.database.audit_after(0, 1_000).await.unwrap();
        let changed = first.iter().find(|row| row.action == "change_password").unwrap().at.0;
        assert!(rows[0].at.0 - changed >= 2_000, "{changed} and {rows:?}");
        for id in [1, 2] {
            recover(&test.client, id, "new").await.unwrap();
        }
    }
}

#[actix_web::test]
async fn the_sweeper_stops_while_the_key_database_has_another_owner() {
    let mut env = TestEnv::new(Stores::Servers).unwrap();
    env.upkeep.check_interval = Duration::from_millis(200);
    env.upkeep.retention = Some(Duration::from_millis(500));
    let test = TestServer::start(env).await;
    test.onboard(1, "ann", "ann's").await;
    // A server of another account database took it over while this one runs.
    let env = &test.env;
    let keys = open_key_database(&env.key_database, &env.key_database_name).await.unwrap();
    let owner = keys.owner().await.unwrap().unwrap();
    let other = KeyDatabaseOwner { identity: "other".to_owned(), ..owner.clone() };
    assert!(keys.replace_owner(Some(&owner), &other).await.unwrap());
    change(&test, 1, "ann's", "new").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(wrapped(env).await, 2);
    assert!(keys.replace_owner(Some(&other), &owner).await.unwrap());
    rows(&test.database, 1, |row| row.action == "sweep" && row.outcome.as_deref() == Some("ok"))
        .await;
    assert_eq!(wrapped(env).await, 1);
}

#[actix_web::test]
async fn rate_limit_rows_with_a_refilled_bucket_are_deleted() {
    let mut env = TestEnv::new(Stores::Servers).unwrap();
    env.upkeep.check_interval = Duration::from_millis(200);
    let test = TestServer::start(env).await;
    let limit = |period| RateLimit { burst: 1, period };
    let (moment, hour) = (Duration::from_millis(1), Duration::from_secs(3_600));
    for id in 0..10 {
        test.database.take(&format!("soon:{id}"), limit(moment)).await.unwrap().unwrap();
    }
    test.database.take("late", limit(hour)).await.unwrap().unwrap();
    let refilled =
        "select count(*) from rate_limits where tat < 1000 * extract(epoch from now()) - 2000";
    tokio::time::sleep(Duration::from_secs(3)).await;
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if test.env.sql(refilled).unwrap().trim() == "0" {
            assert!(test.database.take("late", limit(hour)).await.unwrap().is_err());
            return;
        }
    }
    panic!("rows of refilled buckets were not deleted");
}
