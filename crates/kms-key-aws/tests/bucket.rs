//! A bucket against a stand-in that speaks S3's protocol and refuses what S3 refuses.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kms::config::{Credentials, SharedCredentialsProvider};
use kms_key_aws::{Bucket, BucketError, Contents};
use kms_testkit::{
    AWS_ACCESS_KEY_ID, AWS_AUDITOR_KEY_ID, AWS_REGION, AwsS3, S3_BUCKET, S3_PREFIX, S3Fault,
};

/// The bucket as the party with this access key uses it.
fn bucket(s3: &AwsS3, access_key_id: &str, prefix: &str) -> Bucket {
    let credentials = Credentials::new(access_key_id, "only signs", None, None, "tests");
    let aws = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(AWS_REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(s3.endpoint())
        .build();
    Bucket::new(format!("s3://{S3_BUCKET}/{prefix}").parse().unwrap(), &aws).unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, BucketError>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn a_server_adds_and_an_auditor_reads() {
    let s3 = AwsS3::start().unwrap();
    let server = bucket(&s3, AWS_ACCESS_KEY_ID, S3_PREFIX);
    server.check().await.unwrap();
    for (name, text) in [("3", "three"), ("1", "one"), ("2", "two"), ("4", "four")] {
        server.add(name, text).await.unwrap();
    }
    let auditor = bucket(&s3, AWS_AUDITOR_KEY_ID, S3_PREFIX);
    let texts = ["one", "two", "three", "four"].map(str::to_owned).to_vec();
    assert_eq!(
        auditor.read().await.unwrap(),
        Contents { texts: texts.clone(), deleted: Vec::new() }
    );
    // Neither a delete marker nor a second version hides the first.
    s3.hide(&format!("{S3_PREFIX}/2"));
    s3.plant(&format!("{S3_PREFIX}/3"), "other");
    s3.plant("elsewhere/5", "five");
    s3.plant(&format!("{S3_PREFIX}/6"), &"x".repeat(5_000));
    let found = auditor.read().await.unwrap();
    assert_eq!(found.deleted, [format!("{S3_PREFIX}/2")]);
    assert!(texts.iter().all(|text| found.texts.contains(text)), "{:?}", found.texts);
    assert!(found.texts.contains(&"other".to_owned()));
    assert_eq!(found.texts.iter().map(String::len).max(), Some(1_024));
    assert_eq!(found.texts.len(), 6);

    assert!(refusal(server.read().await).starts_with("ListObjectVersions: AccessDenied"));
    assert!(refusal(auditor.add("7", "x").await).starts_with("PutObject: AccessDenied"));
    let elsewhere = bucket(&s3, AWS_ACCESS_KEY_ID, "elsewhere");
    assert!(refusal(elsewhere.add("7", "x").await).starts_with("PutObject: AccessDenied"));
    let stranger = bucket(&s3, "AKIDSTRANGER", S3_PREFIX);
    assert!(refusal(stranger.read().await).contains("InvalidAccessKeyId"));
}

#[tokio::test]
async fn an_object_is_written_once_whatever_happens_to_the_answer() {
    let s3 = AwsS3::start().unwrap();
    let server = bucket(&s3, AWS_ACCESS_KEY_ID, S3_PREFIX);
    s3.fail_next([S3Fault::SlowDown, S3Fault::AnswerLost]);
    server.add("1", "one").await.unwrap();
    server.add("1", "one").await.unwrap();
    assert_eq!(s3.objects(), [(format!("{S3_PREFIX}/1"), "one".to_owned())]);
    // Retried three times, and a refusal not at all.
    s3.fail_next([S3Fault::Internal; 3]);
    assert!(refusal(server.add("2", "two").await).contains("InternalError"));
    s3.fail_next([S3Fault::AccessDenied]);
    assert!(refusal(server.add("2", "two").await).contains("AccessDenied"));
    assert_eq!(s3.objects().len(), 1);
}

#[tokio::test]
async fn a_check_leaves_one_empty_object_and_requires_object_lock() {
    let s3 = AwsS3::start().unwrap();
    let server = bucket(&s3, AWS_ACCESS_KEY_ID, S3_PREFIX);
    for _ in 0..3 {
        server.check().await.unwrap();
    }
    assert_eq!(s3.objects(), [(format!("{S3_PREFIX}/probe"), String::new())]);
    let auditor = bucket(&s3, AWS_AUDITOR_KEY_ID, S3_PREFIX);
    assert_eq!(auditor.read().await.unwrap(), Contents::default());
    s3.unlock();
    assert!(matches!(server.check().await, Err(BucketError::Unlocked)));
}
