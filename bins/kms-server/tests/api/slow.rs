//! Slow clients are disconnected.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kms_server_testing::{Stores, TestEnv, TestServer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

fn connect(test: &TestServer) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(test.env.certificate.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(test.server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
}

/// Sends the beginning of a request, and returns the answer and how long the connection lasted.
fn begin(test: &TestServer, beginning: String) -> std::thread::JoinHandle<(String, Duration)> {
    let mut stream = connect(test);
    std::thread::spawn(move || {
        let started = Instant::now();
        stream.write_all(beginning.as_bytes()).unwrap();
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            answer.extend_from_slice(&buffer[..read]);
            if answer.ends_with(b"}") {
                break;
            }
        }
        (String::from_utf8(answer).unwrap(), started.elapsed())
    })
}

#[actix_web::test]
async fn slow_headers_and_bodies_time_out() {
    let test = TestServer::start(TestEnv::new(Stores::Embedded).unwrap()).await;
    let head = "POST /v1/accounts HTTP/1.1\r\nHost: localhost\r\n";
    let headers = begin(&test, head.to_owned());
    let token = &test.token;
    let body = begin(
        &test,
        format!(
            "{head}Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Content-Length: 100\r\n\r\n{{\"telegram_id\":"
        ),
    );
    let wait = |thread: std::thread::JoinHandle<_>| {
        tokio::task::spawn_blocking(move || thread.join().unwrap())
    };
    let (answer, after) = wait(headers).await.unwrap();
    assert!(answer.is_empty() || answer.contains(" 408 "), "{answer}");
    assert!((4..50).contains(&after.as_secs()), "{after:?}");
    let (answer, after) = wait(body).await.unwrap();
    assert!(answer.contains(" 408 ") && answer.contains("request_timeout"), "{answer}");
    assert!((9..50).contains(&after.as_secs()), "{after:?}");
}
