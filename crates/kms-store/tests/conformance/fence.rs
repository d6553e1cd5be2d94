//! The writer fence, and `migrate` in several processes at once.

use std::sync::Arc;

use kms_store::{ConnectError, Database, WRITER};

#[cfg(feature = "postgres")]
use crate::fixtures::Subject;
use crate::fixtures::server_keys;

async fn empty(url: &str, connections: u32) -> Database {
    Database::connect(url, connections, Arc::new(server_keys())).await.unwrap()
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn an_older_server_is_disconnected_before_the_schema_changes() {
    let subject = Subject::postgres().await;
    let (old, idle) = (empty(&subject.url, 1).await, empty(&subject.url, 1).await);
    let new = empty(&subject.url, 1).await;
    old.check_writer().await.unwrap();
    idle.ping().await.unwrap();
    let refused = new.require_writer(WRITER + 1).await.unwrap_err();
    assert!(matches!(refused, ConnectError::OlderServer { older: WRITER, .. }), "{refused}");
    // It finds out by its open connection, or when it opens the next one.
    assert!(matches!(old.check_writer().await, Err(ConnectError::Fenced(_))));
    drop((old, idle, subject.database));
    new.require_writer(WRITER + 1).await.unwrap();
    let late = empty(&subject.url, 1).await;
    assert!(matches!(late.check_writer().await, Err(ConnectError::Fenced(_))));
    late.ping().await.unwrap_err();
    late.migrate().await.unwrap_err();
}

#[tokio::test]
async fn an_older_program_cannot_use_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("kms.db").display());
    let database = empty(&url, 1).await;
    database.check_writer().await.unwrap();
    database.migrate().await.unwrap();
    database.require_writer(WRITER + 1).await.unwrap();
    assert!(matches!(database.check_writer().await, Err(ConnectError::Fenced(_))));
    database.require_writer(WRITER).await.unwrap();
    assert!(matches!(database.check_writer().await, Err(ConnectError::Fenced(_))));
}

#[tokio::test]
async fn migrations_at_once_all_succeed() {
    let directory = tempfile::tempdir().unwrap();
    let file = format!("sqlite:{}", directory.path().join("kms.db").display());
    #[cfg(feature = "postgres")]
    let urls = [file, kms_testkit::Postgres::shared().unwrap().create_database().unwrap()];
    #[cfg(not(feature = "postgres"))]
    let urls = [file];
    for url in urls {
        let (one, two, three) = (empty(&url, 1).await, empty(&url, 1).await, empty(&url, 1).await);
        assert!(!one.migration_plan().await.unwrap().is_empty(), "{url}");
        let done = tokio::join!(one.migrate(), two.migrate(), three.migrate());
        for migrated in [done.0, done.1, done.2] {
            migrated.unwrap();
        }
        assert!(one.schema_is_current().await.unwrap());
        assert_eq!(two.migration_plan().await.unwrap(), []);
    }
}
