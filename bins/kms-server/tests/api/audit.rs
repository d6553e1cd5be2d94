//! The audit: verified and exported by an operator, and required for every use of a key.

use std::process::Output;

use insta::assert_snapshot;
use kms_client::Client;
use kms_server_testing::commands::{kms_server, masked, output_text};
use kms_server_testing::requests::{confirm, create, quote, recover, telegram};
use kms_server_testing::{ServerProcess, Stores, TestEnv, TestServer};
use kms_types::ErrorCode;
use kms_types::TransferId;
use mongodb::bson::{Document, doc};
use serde_json::Value;

fn audit(env: &TestEnv, arguments: &str) -> Output {
    kms_server(env, &format!("audit {arguments}")).output().unwrap()
}

/// Verifies an audit that must be intact, whether there are checkpoints or not, and returns the
/// output.
fn verifies(env: &TestEnv) -> String {
    let verified = audit(env, "verify --without-checkpoints");
    assert!(verified.status.success(), "{}", output_text(&verified));
    masked(&output_text(&verified))
}

/// Verifies an audit that was tampered with, and returns the output.
fn tampered(env: &TestEnv) -> String {
    let verified = audit(env, "verify");
    assert_eq!(verified.status.code(), Some(1), "{}", output_text(&verified));
    masked(&output_text(&verified))
}

async fn mongo_checkpoints(env: &TestEnv) -> mongodb::Collection<Document> {
    let client = mongodb::Client::with_uri_str(&env.key_database).await.unwrap();
    client.database(&env.key_database_name).collection("audit_checkpoints")
}

/// Writes eight audit rows, of three wallets and a wrong password, and a checkpoint at the stop.
async fn write_rows(env: &TestEnv, token: &str) {
    let server = ServerProcess::start(env, None, "info");
    let client = server.client(env, token);
    for id in 1..=3 {
        client.create_account(&create(id, "ann", "right")).await.unwrap();
    }
    let wrong = client.create_account(&create(1, "ann", "wrong")).await.unwrap_err();
    assert_eq!(wrong.code(), Some(ErrorCode::AccountExists));
    server.terminate();
}

#[actix_web::test]
async fn an_operator_verifies_exports_and_shows_the_audit_log() {
    for stores in [Stores::Embedded, Stores::Servers] {
        let env = TestEnv::new(stores).unwrap();
        let database = env.migrate().await.unwrap();
        let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
        write_rows(&env, &token).await;
        assert_snapshot!("audit_of_eight_rows", verifies(&env));
        assert!(audit(&env, "verify").status.success());

        let exported = output_text(&audit(&env, "export"));
        let rows: Vec<Value> =
            exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        // The two verifications above and this export are audited too.
        let commands: Vec<_> =
            rows[8..].iter().map(|row| row["action"].as_str().unwrap()).collect();
        assert_eq!(commands, ["audit_verify", "audit_verify", "audit_export"]);
        for (number, row) in (1..).zip(&rows) {
            assert_eq!(row["chain"]["number"], number);
        }
        assert_eq!(rows[1]["chain"]["previous"], rows[0]["chain"]["hash"]);

        let shown = output_text(&audit(&env, "show --account telegram:1"));
        let codes: Vec<_> = shown.lines().map(|line| line.split('\t').nth(5).unwrap()).collect();
        assert_eq!(codes, ["-", "ok", "-", "account_exists"]);

        let lines = std::fs::read_to_string(env.checkpoint_path()).unwrap();
        let forged = lines.replace("v1 8 ", "v1 7 ");
        std::fs::write(env.checkpoint_path(), &forged).unwrap();
        assert_snapshot!("audit_with_a_forged_checkpoint", tampered(&env));
        std::fs::write(env.checkpoint_path(), format!("{lines}nonsense\n")).unwrap();
        assert_snapshot!("audit_with_an_unreadable_checkpoint", tampered(&env));
        std::fs::write(env.checkpoint_path(), lines).unwrap();
        verifies(&env);
    }
}

#[actix_web::test]
async fn tampering_with_the_audit_log_is_reported() {
    let env = TestEnv::new(Stores::Servers).unwrap();
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
    write_rows(&env, &token).await;
    env.sql("create table kept as select * from audit").unwrap();
    for (name, change) in [
        ("modified_row_8", "update audit set outcome = 'ok' where chain_seq = 8"),
        ("removed_row_3", "delete from audit where chain_seq = 3"),
        ("missing_row_7", "delete from audit where chain_seq >= 7"),
    ] {
        env.sql(change).unwrap();
        assert_snapshot!(format!("audit_with_a_{name}"), tampered(&env));
        env.sql("delete from audit").unwrap();
        env.sql("insert into audit overriding system value select * from kept").unwrap();
        verifies(&env);
    }
    // Either copy of the checkpoints is enough to notice the truncation.
    env.sql("delete from audit where chain_seq >= 7").unwrap();
    let lines = std::fs::read_to_string(env.checkpoint_path()).unwrap();
    std::fs::write(env.checkpoint_path(), "").unwrap();
    assert_snapshot!("audit_with_a_missing_row_7_by_the_key_database", tampered(&env));
    let checkpoints = mongo_checkpoints(&env).await;
    checkpoints.delete_many(doc! {}).await.unwrap();
    assert_snapshot!("audit_without_checkpoints", verifies(&env));
    tampered(&env);
    // Removes the row that the verification itself added.
    env.sql("delete from audit where chain_seq >= 7").unwrap();
    std::fs::write(env.checkpoint_path(), lines).unwrap();
    assert_snapshot!("audit_with_a_missing_row_7_by_the_file", tampered(&env));
    let forged = doc! { "sequence": 6_i64, "line": "v1 6 me" };
    checkpoints.insert_one(forged).await.unwrap();
    assert_snapshot!("audit_with_a_forged_checkpoint_in_the_key_database", tampered(&env));
    // A server that continues from there builds another chain than the one in the checkpoint.
    write_rows(&env, &token).await;
    assert_snapshot!("audit_of_another_chain", tampered(&env));
}

#[actix_web::test]
async fn two_servers_append_to_one_chain() {
    let env = TestEnv::new(Stores::Servers).unwrap();
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
    let servers = [(); 2].map(|()| ServerProcess::start(&env, None, "info"));
    let clients = servers.each_ref().map(|server| server.client(&env, &token));
    let work = |client: Client, first: i64| async move {
        for id in first..first + 10 {
            client.create_account(&create(id, &format!("user{id}"), "right")).await.unwrap();
        }
    };
    let [one, two] = clients;
    futures::join!(work(one, 1), work(two, 101));
    for server in servers {
        server.terminate();
    }
    assert_snapshot!("audit_of_two_servers", verifies(&env));
}

#[actix_web::test]
async fn a_truncation_while_no_server_runs_is_noticed_at_the_next_start() {
    let env = TestEnv::new(Stores::Servers).unwrap();
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
    write_rows(&env, &token).await;
    env.sql("delete from audit where chain_seq >= 7").unwrap();
    let written = std::fs::read_to_string(env.checkpoint_path()).unwrap();
    let log = ServerProcess::start(&env, None, "info").terminate();
    let alarms = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let alarms = alarms.filter(|line| line["event"] == "integrity_alarm");
    let alarms: Vec<_> = alarms.map(|line| line["what"].as_str().unwrap().to_owned()).collect();
    assert_snapshot!("alarm_of_a_truncation", masked(&alarms.join("\n")));
    assert_eq!(std::fs::read_to_string(env.checkpoint_path()).unwrap(), written);
}

#[test]
fn commands_that_only_read_do_not_create_a_missing_key_database() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    let run = |arguments: &str| kms_server(&env, arguments).output().unwrap();
    assert!(run("migrate").status.success());
    let file = env.directory.path().join("keys.db");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(env.checkpoint_path(), "").unwrap();
    for arguments in ["keys verify", "keys list", "audit verify"] {
        let refused = run(arguments);
        assert!(!refused.status.success(), "{arguments}");
        assert_snapshot!("missing_key_database", masked(&output_text(&refused)));
        assert!(!file.exists(), "{arguments}");
    }
}

/// The database roles that the operator's manual recommends.
#[actix_web::test]
async fn without_insert_on_the_audit_table_no_key_is_used_and_reads_still_work() {
    let mut env = TestEnv::new(Stores::Servers).unwrap();
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
    let role = format!("service_{}", TransferId::random().to_string().replace('-', ""));
    env.sql(&format!("create role {role} login")).unwrap();
    env.sql(&format!(
        "grant select, insert, update, delete on all tables in schema public to {role}"
    ))
    .unwrap();
    env.sql(&format!("revoke update, delete on audit from {role}")).unwrap();
    env.database = env.database.replace("postgres@", &format!("{role}@"));
    let server = kms_server::Server::start(env.settings().unwrap()).await.unwrap();
    let client = env.client(server.address().port(), &token).unwrap();
    let test = TestServer { env, server, client, token, database };
    let (ann, _) = test.ann_and_bob().await;
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    let rows = test.database.audit_after(0, 100).await.unwrap();

    test.env.sql(&format!("revoke insert on audit from {role}")).unwrap();
    let unavailable = Some(ErrorCode::StoreUnavailable);
    // However often this happens, it does not count as a wrong password.
    for _ in 0..7 {
        let refused = test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await;
        assert_eq!(refused.unwrap_err().code(), unavailable);
    }
    let refused = recover(&test.client, 1, "new").await;
    assert_eq!(refused.unwrap_err().code(), unavailable);
    let refused = test.client.create_account(&create(3, "carl", "c")).await;
    assert_eq!(refused.unwrap_err().code(), unavailable);
    assert_eq!(test.client.account(telegram(1)).await.unwrap().unwrap(), ann);
    assert!(test.client.name(&"bob".parse().unwrap()).await.unwrap().is_some());
    test.client.quote(&quote(1, "@bob", "2")).await.unwrap();
    assert_eq!(test.database.audit_after(0, 100).await.unwrap(), rows);

    test.env.sql(&format!("grant insert on audit to {role}")).unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    verifies(&test.env);
}
