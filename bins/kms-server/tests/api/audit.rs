//! The audit as an operator verifies it, and what happens when it can not be written.

use std::process::{Command, Output};

use kms_client::Client;
use kms_server_testing::requests::{confirm, create, quote, recover, telegram};
use kms_server_testing::{ServerProcess, Stores, TestEnv, TestServer};
use kms_testkit::Postgres;
use kms_types::ErrorCode;
use kms_types::TransferId;
use mongodb::bson::{Document, doc};

fn audit(env: &TestEnv, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kms-server"))
        .arg("audit")
        .args(arguments)
        .envs(env.environment("127.0.0.1:0"))
        .current_dir(env.directory.path())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap()
}

fn whole(env: &TestEnv) -> String {
    let verified = audit(env, &["verify", "--without-checkpoints"]);
    assert!(verified.status.success(), "{}", said(&verified));
    let plain = audit(env, &["verify"]);
    let bare = said(&plain).contains("no checkpoint to compare with");
    assert_eq!(plain.status.success(), !bare, "{}", said(&plain));
    said(&verified)
}

/// What it says of an audit that somebody got at.
fn broken(env: &TestEnv) -> String {
    let verified = audit(env, &["verify"]);
    assert_eq!(verified.status.code(), Some(1), "{}", said(&verified));
    said(&verified)
}

fn sql(env: &TestEnv, sql: &str) -> String {
    let name = env.database.rsplit('/').next().unwrap();
    Postgres::shared().unwrap().execute(name, sql).unwrap()
}

async fn mongo_checkpoints(env: &TestEnv) -> mongodb::Collection<Document> {
    let client = mongodb::Client::with_uri_str(&env.key_database).await.unwrap();
    client.database(&env.key_database_name).collection("audit_checkpoints")
}

/// Three wallets, a wrong password, and a server that stops regularly.
async fn used(env: &TestEnv, token: &str) {
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
async fn an_operator_verifies_exports_and_shows() {
    for stores in [Stores::Embedded, Stores::Servers] {
        let env = TestEnv::new(stores).unwrap();
        let database = env.migrate().await.unwrap();
        let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
        used(&env, &token).await;
        let text = whole(&env);
        assert!(text.contains("8 rows in the chain"), "{text}");
        assert!(text.contains("checkpoints vouch for rows up to 8"), "{text}");
        assert!(!text.contains("without an outcome"), "{text}");

        let exported = said(&audit(&env, &["export"]));
        let rows: Vec<serde_json::Value> =
            exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        // Two looks at it by `verify`, and this one.
        let looks: Vec<_> = rows[8..].iter().map(|row| row["action"].as_str().unwrap()).collect();
        assert_eq!(looks, ["audit_verify", "audit_verify", "audit_export"]);
        for (number, row) in (1..).zip(&rows) {
            assert_eq!(row["chain"]["number"], number);
        }
        assert_eq!(rows[1]["chain"]["previous"], rows[0]["chain"]["hash"]);

        let shown = said(&audit(&env, &["show", "--account", "telegram:1"]));
        let codes: Vec<_> = shown.lines().map(|line| line.split('\t').nth(5).unwrap()).collect();
        assert_eq!(codes, ["-", "ok", "-", "account_exists"]);

        let lines = std::fs::read_to_string(env.checkpoint_path()).unwrap();
        let forged = lines.replace("v1 8 ", "v1 7 ");
        std::fs::write(env.checkpoint_path(), &forged).unwrap();
        let text = broken(&env);
        assert!(text.contains("checkpoint 1 in ") && text.contains("of row 7"), "{text}");
        std::fs::write(env.checkpoint_path(), format!("{lines}nonsense\n")).unwrap();
        assert!(broken(&env).contains("checkpoint 2 in "), "{}", broken(&env));
        std::fs::write(env.checkpoint_path(), lines).unwrap();
        whole(&env);
    }
}

#[actix_web::test]
async fn what_was_done_to_the_audit_is_named() {
    let env = TestEnv::new(Stores::Servers).unwrap();
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
    used(&env, &token).await;
    sql(&env, "create table kept as select * from audit");
    for (change, named) in [
        ("update audit set outcome = 'ok' where chain_seq = 8", "row 8 of the chain was changed"),
        ("delete from audit where chain_seq = 3", "row 3 of the chain was removed"),
        ("delete from audit where chain_seq >= 7", "row 7 is gone"),
    ] {
        sql(&env, change);
        let text = broken(&env);
        assert!(text.contains(named), "{change}: {text}");
        sql(&env, "delete from audit");
        sql(&env, "insert into audit overriding system value select * from kept");
        whole(&env);
    }
    // Either place alone misses what was cut.
    sql(&env, "delete from audit where chain_seq >= 7");
    let lines = std::fs::read_to_string(env.checkpoint_path()).unwrap();
    std::fs::write(env.checkpoint_path(), "").unwrap();
    assert!(broken(&env).contains("row 7 is gone"));
    let checkpoints = mongo_checkpoints(&env).await;
    checkpoints.delete_many(doc! {}).await.unwrap();
    assert!(whole(&env).contains("no checkpoint"));
    // What that look was noted by.
    sql(&env, "delete from audit where chain_seq >= 7");
    std::fs::write(env.checkpoint_path(), lines).unwrap();
    assert!(broken(&env).contains("row 7 is gone"));
    let forged = doc! { "sequence": 6_i64, "line": "v1 6 me" };
    checkpoints.insert_one(forged).await.unwrap();
    let text = broken(&env);
    assert!(text.contains("checkpoint 1 in the key database"), "{text}");
    // A server that goes on from there builds another chain than the one that was seen.
    used(&env, &token).await;
    let text = broken(&env);
    assert!(text.contains("row 8 of the chain is not the one that a checkpoint saw"), "{text}");
}

#[actix_web::test]
async fn two_servers_write_one_chain() {
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
    let text = whole(&env);
    assert!(text.contains("40 rows in the chain"), "{text}");
    assert!(text.contains("checkpoints vouch for rows up to 40"), "{text}");
}

#[actix_web::test]
async fn what_was_cut_while_no_server_ran_is_missed_at_the_next_start() {
    let env = TestEnv::new(Stores::Servers).unwrap();
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
    used(&env, &token).await;
    sql(&env, "delete from audit where chain_seq >= 7");
    let written = std::fs::read_to_string(env.checkpoint_path()).unwrap();
    let log = ServerProcess::start(&env, None, "info").terminate();
    assert!(log.contains("the chain ends at row 6, and row 8 was there before"), "{log}");
    assert_eq!(std::fs::read_to_string(env.checkpoint_path()).unwrap(), written);
}

#[test]
fn looking_for_keys_makes_no_file_for_them() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kms-server"));
        command.args(arguments).envs(env.environment("127.0.0.1:0"));
        command.current_dir(env.directory.path()).output().unwrap()
    };
    assert!(run(&["migrate"]).status.success());
    let file = env.directory.path().join("keys.db");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(env.checkpoint_path(), "").unwrap();
    for arguments in [["keys", "verify"], ["keys", "list"], ["audit", "verify"]] {
        let refused = run(&arguments);
        assert!(
            !refused.status.success() && said(&refused).contains("key_database"),
            "{arguments:?}: {}",
            said(&refused)
        );
        assert!(!file.exists(), "{arguments:?}");
    }
}

/// The roles of `docs/operating.md`.
#[actix_web::test]
async fn without_insert_on_the_audit_nothing_is_opened_and_reads_go_on() {
    let mut env = TestEnv::new(Stores::Servers).unwrap();
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
    let role = format!("service_{}", TransferId::random().to_string().replace('-', ""));
    sql(&env, &format!("create role {role} login"));
    sql(
        &env,
        &format!("grant select, insert, update, delete on all tables in schema public to {role}"),
    );
    sql(&env, &format!("revoke update, delete on audit from {role}"));
    env.database = env.database.replace("postgres@", &format!("{role}@"));
    let server = kms_server::Server::start(env.settings().unwrap()).await.unwrap();
    let client = env.client(server.address().port(), &token).unwrap();
    let test = TestServer { env, server, client, token, database };
    let (ann, _) = test.ann_and_bob().await;
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    let rows = test.database.audit_after(0, 100).await.unwrap();

    sql(&test.env, &format!("revoke insert on audit from {role}"));
    let unavailable = Some(ErrorCode::StoreUnavailable);
    // However often: none of it counts as a wrong password.
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

    sql(&test.env, &format!("grant insert on audit to {role}"));
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    whole(&test.env);
}
