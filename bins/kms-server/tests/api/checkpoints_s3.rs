//! Checkpoints of the audit in S3, against a stand-in that refuses what the templates refuse.

use std::time::Duration;

use kms_server_testing::commands::{checks, fails, succeeds};
use kms_server_testing::requests::create;
use kms_server_testing::{ServerProcess, Stores, TestEnv};
use kms_testkit::{
    AWS_ACCESS_KEY_ID, AWS_AUDITOR_KEY_ID, AWS_REGION, AwsS3, S3_BUCKET, S3_PREFIX, S3Fault,
};
use mongodb::bson::{Document, doc};

/// An environment whose servers write checkpoints to S3, and to no file.
fn env_with_s3(stores: Stores) -> (AwsS3, TestEnv) {
    let s3 = AwsS3::start().unwrap();
    let mut env = TestEnv::new(stores).unwrap();
    let variable = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    env.variables = vec![
        variable("KMS_SERVER__AUDIT__CHECKPOINT_PATH", ""),
        variable("KMS_SERVER__AUDIT__CHECKPOINT_S3", &format!("s3://{S3_BUCKET}/{S3_PREFIX}")),
        variable("KMS_SERVER__AUDIT__CHECKPOINT_INTERVAL", "100ms"),
        variable("AWS_ENDPOINT_URL", &s3.endpoint()),
        variable("AWS_ACCESS_KEY_ID", AWS_ACCESS_KEY_ID),
        variable("AWS_SECRET_ACCESS_KEY", "only signs"),
        variable("AWS_REGION", AWS_REGION),
        variable("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    (s3, env)
}

/// Runs commands with the credentials of an auditor from now on.
fn as_auditor(env: &mut TestEnv) {
    env.variables.push(("AWS_ACCESS_KEY_ID".to_owned(), AWS_AUDITOR_KEY_ID.to_owned()));
}

/// Waits until a checkpoint of this row is in the bucket.
async fn checkpoint_of_row(s3: &AwsS3, row: i64) {
    let line = format!("v2 {row} ");
    for _ in 0..1_200 {
        if s3.objects().iter().any(|(_, text)| text.starts_with(&line)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no checkpoint of row {row}: {:?}", s3.objects());
}

#[actix_web::test]
async fn an_auditor_finds_by_the_bucket_what_an_attacker_cut_from_both_databases() {
    let (s3, mut env) = env_with_s3(Stores::Servers);
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
    let server = ServerProcess::start(&env, None, "info");
    let client = server.client(&env, &token);
    for (id, name) in (1..).zip(["ann", "bob", "carl"]) {
        client.create_account(&create(id, name, "right")).await.unwrap();
    }
    server.terminate();
    checkpoint_of_row(&s3, 6).await;
    // A server only adds.
    assert!(s3.calls().iter().all(|call| *call == "PutObject"), "{:?}", s3.calls());
    let refused = fails(&env, "audit verify");
    assert!(refused.contains("ListObjectVersions: AccessDenied"), "{refused}");
    as_auditor(&mut env);
    let verified = succeeds(&env, "audit verify");
    assert!(verified.contains("checkpoints cover rows up to 6"), "{verified}");

    // A copy, as `aws s3 sync` makes it, for an auditor with neither database nor role.
    let copy = env.directory.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for (key, text) in s3.objects() {
        std::fs::write(copy.join(key.rsplit_once('/').unwrap().1), text).unwrap();
    }
    let keys = succeeds(&env, "audit public-keys");
    let rows = env.directory.path().join("rows");
    std::fs::write(&rows, succeeds(&env, "audit export")).unwrap();
    for place in [copy.display().to_string(), format!("s3://{S3_BUCKET}/{S3_PREFIX}")] {
        let export = format!(
            "audit verify-export {} --public-keys {} --checkpoints {place}",
            rows.display(),
            keys.trim(),
        );
        assert!(succeeds(&env, &export).contains("intact and signed up to row 6"));
    }

    env.sql("delete from audit where chain_seq >= 5").unwrap();
    env.sql(
        "update audit_head set (chain_seq, hash) = \
         (select chain_seq, hash from audit order by chain_seq desc limit 1)",
    )
    .unwrap();
    let mongodb = mongodb::Client::with_uri_str(env.key_database_of_admin().unwrap());
    let mongodb = mongodb.await.unwrap().database(&env.key_database_name);
    mongodb.collection::<Document>("audit_checkpoints").delete_many(doc! {}).await.unwrap();
    let newest = s3.objects().into_iter().map(|(key, _)| key).max().unwrap();
    s3.hide(&newest);
    let found = fails(&env, "audit verify");
    assert!(found.contains(&format!("{newest} in s3://")), "{found}");
    assert!(found.contains("row 5 is missing, a checkpoint covers row 6"), "{found}");
    let by_the_copy = fails(&env, &format!("audit verify --checkpoints {}", copy.display()));
    assert!(by_the_copy.contains("row 5"), "{by_the_copy}");
}

#[actix_web::test]
async fn without_s3_requests_go_on_and_the_checkpoint_is_written_later() {
    let (s3, env) = env_with_s3(Stores::Embedded);
    s3.set_down(true);
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
    let server = ServerProcess::start(&env, None, "info");
    let client = server.client(&env, &token);
    client.create_account(&create(1, "ann", "right")).await.unwrap();
    for _ in 0..1_200 {
        if server.log.lock().unwrap().contains("checkpoint_failed") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client.create_account(&create(2, "bob", "right")).await.unwrap();
    assert_eq!(s3.objects(), []);
    s3.set_down(false);
    checkpoint_of_row(&s3, 4).await;
    let log = server.terminate();
    assert!(log.contains("checkpoint_failed") && log.contains("SlowDown"), "{log}");
    assert!(log.contains("worker_round_failed"), "{log}");
}

/// Waits until the log has had this many failed attempts at a checkpoint, and returns how many.
async fn failures(server: &ServerProcess, least: usize) -> usize {
    for _ in 0..3_000 {
        let count = server.log.lock().unwrap().matches("checkpoint_failed").count();
        if count >= least {
            return count;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{}", server.log.lock().unwrap());
}

#[actix_web::test]
async fn a_place_that_fails_adds_no_object_to_the_bucket() {
    let (s3, mut env) = env_with_s3(Stores::Embedded);
    let path = env.checkpoint_path();
    let setting = |key: &str, value: String| (format!("KMS_SERVER__AUDIT__{key}"), value);
    env.variables.push(setting("CHECKPOINT_PATH", path.display().to_string()));
    env.variables.push(setting("CHECKPOINT_INTERVAL", "10s".to_owned()));
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
    let server = ServerProcess::start(&env, None, "info");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let client = server.client(&env, &token);
    client.create_account(&create(1, "ann", "right")).await.unwrap();
    checkpoint_of_row(&s3, 2).await;
    // The chain grows between attempts, and each interval has five of them.
    let before = failures(&server, 1).await;
    client.create_account(&create(2, "bob", "right")).await.unwrap();
    failures(&server, before + 2).await;
    assert_eq!(s3.objects().len(), 1, "{:?}", s3.objects());
    checkpoint_of_row(&s3, 4).await;
    // Then it does not grow.
    let before = failures(&server, 1).await;
    failures(&server, before + 6).await;
    assert_eq!(s3.objects().len(), 2, "{:?}", s3.objects());
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    server.terminate();
    let file = std::fs::read_to_string(&path).unwrap();
    assert!(file.starts_with("v2 4 ") && file.lines().count() == 1, "{file}");
    assert_eq!(s3.objects().len(), 2, "{:?}", s3.objects());
}

#[actix_web::test]
async fn check_config_writes_to_the_bucket_and_reads_its_lock() {
    let (s3, env) = env_with_s3(Stores::Embedded);
    drop(env.migrate().await.unwrap());
    for _ in 0..2 {
        let report = succeeds(&env, "check-config");
        assert!(checks(&report).contains(&("audit.checkpoint_s3", true)), "{report}");
    }
    assert_eq!(s3.objects().len(), 1, "it leaves one object, however often it runs");
    s3.fail_next([S3Fault::AccessDenied]);
    let report = fails(&env, "check-config");
    assert!(checks(&report).contains(&("audit.checkpoint_s3", false)), "{report}");
    assert!(report.contains("AccessDenied") && report.contains("permit s3:PutObject"), "{report}");
    s3.unlock();
    let report = fails(&env, "check-config");
    assert!(report.contains("the bucket does not lock its objects"), "{report}");
}
