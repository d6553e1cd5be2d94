//! Certificates and passwords that are replaced while servers run, and passwords that are tokens.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kms_client::{BearerToken, Client, Trust};
use kms_server_testing::commands::{fails, kms_server, output_text};
use kms_server_testing::requests::{create, telegram};
use kms_server_testing::{ServerProcess, Stores, TestEnv};
use kms_store::Scope;
use kms_testkit::{Mongod, Postgres};

/// Replaces a file as `mv` does, so that no reader finds half of it.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    let mut file = std::fs::File::options();
    let file = file.write(true).create(true).truncate(true).mode(0o600).open(&new);
    file.unwrap().write_all(text.as_bytes()).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn file(env: &TestEnv, name: &str, text: &str) -> PathBuf {
    let path = env.directory.path().join(name);
    replace(&path, text);
    path
}

fn variable(name: &str, value: impl std::fmt::Display) -> (String, String) {
    (format!("KMS_SERVER__{name}"), value.to_string())
}

/// Waits until a request succeeds.
async fn until(what: &str, is_true: impl AsyncFn() -> bool) {
    for _ in 0..1_200 {
        if is_true().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}");
}

#[actix_web::test]
async fn a_new_certificate_is_used_without_a_restart_once_it_is_a_pair() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    let certificate = file(&env, "tls.pem", &env.certificate);
    let key = file(&env, "tls-key.pem", &env.certificate_key);
    env.variables = vec![
        variable("TLS__CERTIFICATE", ""),
        variable("TLS__KEY", ""),
        variable("TLS__CERTIFICATE_FILE", certificate.display()),
        variable("TLS__KEY_FILE", key.display()),
    ];
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, Scope::Bot).await.unwrap();
    let server = ServerProcess::start(&env, None, "info");
    let old = server.client(&env, &token);
    old.networks().await.unwrap();

    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pinned = Trust::Pinned(signed.cert.pem());
    let url = format!("https://localhost:{}", server.port);
    let new = || Client::new(&url, BearerToken::from(token.clone()), pinned.clone()).unwrap();
    // The certificate alone is no pair: the one before stays in use.
    replace(&certificate, &signed.cert.pem());
    until("the half was not reported", async || {
        server.log.lock().unwrap().contains("\"worker\":\"reload_certificate\"")
    })
    .await;
    server.client(&env, &token).networks().await.unwrap();
    new().networks().await.unwrap_err();
    replace(&key, &signed.signing_key.serialize_pem());
    until("the new certificate is not used", async || new().networks().await.is_ok()).await;
    server.client(&env, &token).networks().await.unwrap_err();
    // The connection from before is still open.
    old.networks().await.unwrap();
    let metrics = server.ops("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("kms_certificate_expires_timestamp_seconds 6"), "{metrics}");
    server.terminate();
}

#[actix_web::test]
async fn a_new_password_of_the_database_is_used_without_a_restart() {
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let postgres = Postgres::start_tls(&certificate, &key, Some("first")).unwrap();
    let url = postgres.create_database().unwrap();
    let with = |password: &str| url.replace("postgres@", &format!("postgres:{password}@"));
    let keys = Mongod::shared().unwrap().url();
    let directory = kms_testkit::Scratch::new("server").unwrap();
    let name = format!("kms_{}_rotation", std::process::id());
    let mut env = TestEnv::on(directory, with("first"), keys, name).unwrap();
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, Scope::Bot).await.unwrap();
    let path = file(&env, "database-url", &format!("{}\n", with("first")));
    env.variables =
        vec![variable("DATABASE__URL", ""), variable("DATABASE__URL_FILE", path.display())];
    let server = ServerProcess::start(&env, None, "info");
    let client = server.client(&env, &token);
    client.create_account(&create(1, "ann", "ann's")).await.unwrap();

    replace(&path, &with("hunter2"));
    let end_all = "select pg_terminate_backend(pid) from pg_stat_activity \
                   where backend_type = 'client backend' and pid <> pg_backend_pid()";
    // psql sends several statements as one transaction.
    let rotate = format!("alter role postgres password 'hunter2'; {end_all}");
    postgres.execute("postgres", &rotate).unwrap();
    until("the new password is not used", async || client.account(telegram(1)).await.is_ok()).await;
    for id in 2..6 {
        client.create_account(&create(id, &format!("user{id}"), "pw")).await.unwrap();
    }
    assert!(!server.terminate().contains("hunter2"));
}

/// Answers one connection of libpq as PostgreSQL asks for a password, returns the user and the
/// password that it sent, and refuses it.
fn refuse_a_login(connection: &mut TcpStream) -> (String, String) {
    let mut message = |has_type: bool| {
        let mut head = vec![0; if has_type { 5 } else { 4 }];
        connection.read_exact(&mut head).unwrap();
        let length = head.last_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes)).unwrap();
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        connection.read_exact(&mut body).unwrap();
        (body, connection.try_clone().unwrap())
    };
    const ENCRYPTION_REQUESTS: [u32; 2] = [80_877_103, 80_877_104];
    let startup = loop {
        let (body, mut answer) = message(false);
        let code = body.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes)).unwrap();
        if !ENCRYPTION_REQUESTS.contains(&code) {
            answer.write_all(b"R\0\0\0\x08\0\0\0\x03").unwrap();
            break body;
        }
        answer.write_all(b"N").unwrap();
    };
    let (password, mut answer) = message(true);
    let refusal = b"SFATAL\0C28000\0Mrefused\0\0";
    let length = u32::try_from(refusal.len() + 4).unwrap().to_be_bytes();
    answer.write_all(&[&b"E"[..], &length, refusal].concat()).unwrap();
    let texts: Vec<_> = startup[4..].split(|byte| *byte == 0).collect();
    let user = texts.iter().position(|text| *text == b"user").unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(texts[user + 1]), text(&password[..password.len() - 1]))
}

#[test]
fn with_iam_each_connection_has_a_token_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let logins = std::thread::spawn(move || {
        [(); 2].map(|()| {
            let (mut connection, _) = listener.accept().unwrap();
            refuse_a_login(&mut connection)
        })
    });
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    env.database = format!("postgres://kms@127.0.0.1:{port}/kms");
    env.variables = vec![
        variable("DATABASE__AUTH", "iam"),
        ("AWS_ACCESS_KEY_ID".to_owned(), "AKIDEXAMPLE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), "only signs".to_owned()),
        ("AWS_REGION".to_owned(), "eu-central-1".to_owned()),
    ];
    let refused = fails(&env, "migrate");
    assert!(refused.contains("refused") && !refused.contains("X-Amz"), "{refused}");
    for (user, token) in logins.join().unwrap() {
        assert_eq!(user, "kms");
        let start = format!("127.0.0.1:{port}/?Action=connect&DBUser=kms&X-Amz-");
        assert!(token.starts_with(&start) && token.contains("X-Amz-Signature="), "{token}");
        assert!(token.contains("%2Feu-central-1%2Frds-db%2Faws4_request"), "{token}");
    }
    env.database = env.database.replace("kms@", "kms:hunter2@");
    let refused = output_text(&kms_server(&env, "migrate").output().unwrap());
    assert!(refused.contains("database.auth") && !refused.contains("hunter2"), "{refused}");
}
