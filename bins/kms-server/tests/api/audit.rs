//! The audit: verified and exported by an operator, and required for every use of a key.

use std::process::Output;

use insta::assert_snapshot;
use kms_client::Client;
use kms_core::audit::Details;
use kms_server_testing::commands::{kms_server, masked, output_text};
use kms_server_testing::requests::{confirm, create, quote, recover, telegram};
use kms_server_testing::{ServerProcess, Stores, TestEnv, TestServer};
use kms_testkit::Postgres;
use kms_types::wire::{ChangeMobile, LimitAmount, SeenUsernames, SetLimit};
use kms_types::{Asset, ErrorCode};
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
    let client = mongodb::Client::with_uri_str(env.key_database_of_admin().unwrap()).await.unwrap();
    client.database(&env.key_database_name).collection("audit_checkpoints")
}

/// Changes the table as an attacker does who may write every table: its recorded end follows.
fn tamper(env: &TestEnv, sql: &str) {
    env.sql(sql).unwrap();
    env.sql(
        "update audit_head set (chain_seq, hash) = \
         (select chain_seq, hash from audit order by chain_seq desc limit 1)",
    )
    .unwrap();
}

/// Writes eight audit rows, of three wallets and a wrong password, and a checkpoint at the stop.
async fn write_rows(env: &TestEnv, token: &str) {
    let server = ServerProcess::start(env, None, "info");
    let client = server.client(env, token);
    for id in 1..=3 {
        client.create_account(&create(id, &format!("name{id}"), "right")).await.unwrap();
    }
    let wrong = client.create_account(&create(1, "name1", "wrong")).await.unwrap_err();
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
        let forged = lines.replace("v2 8 ", "v2 7 ");
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
        tamper(&env, change);
        assert_snapshot!(format!("audit_with_a_{name}"), tampered(&env));
        env.sql("delete from audit").unwrap();
        tamper(&env, "insert into audit overriding system value select * from kept");
        verifies(&env);
    }
    // Either copy of the checkpoints is enough to notice the truncation.
    tamper(&env, "delete from audit where chain_seq >= 7");
    let lines = std::fs::read_to_string(env.checkpoint_path()).unwrap();
    std::fs::write(env.checkpoint_path(), "").unwrap();
    assert_snapshot!("audit_with_a_missing_row_7_by_the_key_database", tampered(&env));
    let checkpoints = mongo_checkpoints(&env).await;
    checkpoints.delete_many(doc! {}).await.unwrap();
    assert_snapshot!("audit_without_checkpoints", verifies(&env));
    tampered(&env);
    // Removes the row that the verification itself added.
    tamper(&env, "delete from audit where chain_seq >= 7");
    std::fs::write(env.checkpoint_path(), lines).unwrap();
    assert_snapshot!("audit_with_a_missing_row_7_by_the_file", tampered(&env));
    // A number is before every id that a client makes, which in one second have no order.
    let forged = doc! { "_id": 0_i64, "sequence": 6_i64, "line": "v2 6 me" };
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
    tamper(&env, "delete from audit where chain_seq >= 7");
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
    let (owner, serving) = Postgres::shared().unwrap().create_database_with_roles().unwrap();
    let env = TestEnv::new(Stores::Servers).unwrap();
    let env = TestEnv { owner: Some(owner), database: serving, ..env };
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
    let server = kms_server::Server::start(env.settings().unwrap()).await.unwrap();
    let client = env.client(server.address().port(), &token).unwrap();
    let test = TestServer { env, server, client, token, database };
    let (ann, _) = test.ann_and_bob().await;
    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    let rows = test.database.audit_after(0, 100).await.unwrap();

    test.env.sql("revoke insert on audit from kms").unwrap();
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

    test.env.sql("grant insert on audit to kms").unwrap();
    test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
    verifies(&test.env);
}

/// The details of the first record of this action with this phase.
async fn details(test: &TestServer, action: &str, phase: &str) -> Details {
    let rows = test.database.audit_after(0, 1_000).await.unwrap();
    let row = rows.iter().find(|row| row.action == action && row.phase == phase);
    let row = row.unwrap_or_else(|| panic!("no {action} {phase}: {rows:#?}"));
    row.details.parse().unwrap()
}

#[actix_web::test]
async fn records_state_what_was_done() {
    for stores in [Stores::Embedded, Stores::Servers] {
        let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
        let (ann, bob) = test.ann_and_bob().await;
        let created = details(&test, "create", "outcome").await;
        assert_eq!(created.get("address"), Some(&*ann.address.to_string()));
        assert_eq!(created.get("public_key").unwrap().len(), 66);
        assert_eq!(created.get("names"), Some("ann"));

        let quoted = test.client.quote(&quote(1, "@bob", "0.5")).await.unwrap();
        let sent =
            test.client.confirm(quoted.id, &confirm(&quoted, "ann's password")).await.unwrap();
        let before = details(&test, "send", "intent").await;
        let to = bob.address.to_string();
        for (name, value) in
            [("asset", "native"), ("chain", "31337"), ("to", &*to), ("value", "500000000000000000")]
        {
            assert_eq!(before.get(name), Some(value));
        }
        assert_eq!(before.get("nonce"), None, "it is not known yet");
        let after = details(&test, "send", "outcome").await;
        assert_eq!(after.get("nonce"), Some("0"));
        let payments = after.get("payments").unwrap();
        assert!(payments.contains(&*sent.tx_hash.unwrap()), "{payments}");
        assert!(after.get("cancellation").unwrap().starts_with("0x"));

        let body = ChangeMobile { mobile: Some("+4915112345678".parse().unwrap()) };
        test.client.change_mobile(telegram(1), &body).await.unwrap();
        let changed = details(&test, "change_contact", "intent").await;
        assert_eq!((changed.get("contact"), changed.get("step")), (Some("mobile"), Some("set")));
        assert_eq!(changed.get("sealed").unwrap().len(), 64);

        let amount = LimitAmount::try_from("2".to_owned()).unwrap();
        test.client
            .set_limit(telegram(1), &SetLimit { asset: Asset::Native, chain_id: None, amount })
            .await
            .unwrap();
        let limit = details(&test, "change_limit", "outcome").await;
        assert_eq!(limit.get("limit"), Some("2000000000000000000"));
        assert_eq!(limit.get("asset"), Some("31337/native"));

        let seen = SeenUsernames {
            usernames: vec!["anna".parse().unwrap()].try_into().unwrap(),
            seen_at: kms_types::Timestamp(4_000_000_000_000),
        };
        test.client.seen_usernames(telegram(1), &seen).await.unwrap();
        let rows = test.database.audit_after(0, 1_000).await.unwrap();
        let claims = rows.iter().filter(|row| row.action == "claim_names");
        let claims: Vec<_> = claims.map(|row| row.details.as_str()).collect();
        assert_eq!(claims, ["ended=ann:1\nrevision=2", "claimed=anna\nrevision=1"]);

        recover(&test.client, 1, "new").await.unwrap();
        let recovered = details(&test, "recover", "intent").await;
        assert_eq!(
            (recovered.get("code"), recovered.get("wait_seconds")),
            (Some("none"), Some("0"))
        );

        let frozen = kms_server(&test.env, "account freeze telegram:2 --reason ticket-7").output();
        assert!(frozen.unwrap().status.success());
        let freeze = details(&test, "freeze", "intent").await;
        assert!(freeze.get("person").unwrap().contains("uid"), "{freeze}");
        assert!(freeze.get("host").is_some());
    }
}

/// A flood of requests with bad tokens is one record a minute for each.
#[actix_web::test]
async fn refused_tokens_and_rows_that_failed_their_check_are_recorded() {
    let test = TestServer::start(TestEnv::new(Stores::Servers).unwrap()).await;
    test.onboard(1, "ann", "ann").await;
    let port = test.server.address().port();
    let reader = test.env.issue_token(&test.database, kms_store::Scope::Read).await.unwrap();
    let unknown = kms_core::PlainToken::generate();
    for _ in 0..3 {
        let client = test.env.client(port, unknown.expose()).unwrap();
        let refused = client.account(telegram(1)).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::Unauthorized));
        let client = test.env.client(port, &reader).unwrap();
        let refused = client.create_account(&create(2, "bob", "b")).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::Forbidden));
    }
    test.env.sql("update accounts set state = 'frozen'").unwrap();
    for _ in 0..3 {
        let refused = test.client.account(telegram(1)).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::Internal));
    }
    let found = async || {
        let rows = test.database.audit_after(0, 1_000).await.unwrap();
        let rows =
            rows.into_iter().filter(|row| ["authenticate", "read_row"].contains(&&*row.action));
        rows.map(|row| (row.phase, row.outcome.unwrap())).collect::<Vec<_>>()
    };
    // The alarm of a row is written in the background.
    for _ in 0..1_500 {
        if found().await.len() == 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let expected = [("outcome", "unauthorized"), ("outcome", "forbidden"), ("alarm", "tampered")];
    assert_eq!(found().await, expected.map(|(phase, code)| (phase.to_owned(), code.to_owned())));
}

/// An auditor has an export, the checkpoints and the public keys, and nothing else.
#[actix_web::test]
async fn an_auditor_verifies_an_export_without_a_secret() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, kms_store::Scope::Bot).await.unwrap();
    write_rows(&env, &token).await;
    let printed = |arguments: &str| output_text(&audit(&env, arguments));
    let (public_keys, rows) = (printed("public-keys"), printed("export"));
    let directory = env.directory.path();
    let (rows_path, checkpoints) = (directory.join("rows"), directory.join("published"));
    std::fs::write(&checkpoints, printed("checkpoints")).unwrap();
    let verify = |rows: &str, keys: &str| {
        std::fs::write(&rows_path, rows).unwrap();
        kms_server(&env, "audit verify-export --checkpoints")
            .env_clear()
            .current_dir(directory)
            .args([&checkpoints, &rows_path])
            .args(["--public-keys", keys.trim()])
            .output()
            .unwrap()
    };
    let intact = verify(&rows, &public_keys);
    assert!(intact.status.success(), "{}", output_text(&intact));
    assert_snapshot!("export_of_eight_rows", output_text(&intact));
    let others = format!("1:{}", "11".repeat(32));
    for (rows, keys) in [
        (rows.replacen("\"ok\"", "\"no\"", 1), &public_keys),
        (rows.lines().skip(1).map(|line| format!("{line}\n")).collect(), &public_keys),
        (rows.lines().take(7).map(|line| format!("{line}\n")).collect(), &public_keys),
        (rows.clone(), &others),
    ] {
        let refused = verify(&rows, keys);
        assert_eq!(refused.status.code(), Some(1), "{}", output_text(&refused));
    }
}
