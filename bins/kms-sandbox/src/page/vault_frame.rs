//! The vault page once more, for a frame on a phone.
//!
//! Telegram's web client shows the page in a frame, and the page permits no other. Here the
//! sandbox is that client: the page is served with the sandbox's origin in place of the client's,
//! and by plain HTTP, because a browser shows no frame with a certificate that it does not trust.
//! Like the sandbox, it listens on loopback and answers to loopback host names alone.

use std::net::{SocketAddr, TcpListener};

use actix_web::dev::ServerHandle;
use actix_web::guard;
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use anyhow::Context;
use tokio::task::JoinHandle;

use super::is_local;

/// The origin of Telegram's web client.
const CLIENT: &str = "https://web.telegram.org";
/// The headers of a request that the page's server reads.
const ASKED: [&str; 3] = ["authorization", "content-type", "accept-language"];
/// The headers of an answer that would be wrong here: the connection has its own, and is no TLS.
const OWN: [&str; 4] = ["strict-transport-security", "content-length", "transfer-encoding", "date"];

/// The page in a frame, being served.
#[derive(Debug)]
pub(super) struct VaultFrame {
    address: SocketAddr,
    handle: ServerHandle,
    server: JoinHandle<std::io::Result<()>>,
}

/// Where the page is, and who shows it.
struct Upstream {
    client: reqwest::Client,
    page: String,
    origin: String,
}

impl VaultFrame {
    /// Serves the page at this URL, which has this certificate, for frames of this origin.
    pub(super) fn open(page: String, certificate: &str, origin: String) -> anyhow::Result<Self> {
        let certificate = reqwest::Certificate::from_pem(certificate.as_bytes())?;
        let client = reqwest::Client::builder().tls_certs_only([certificate]).build()?;
        let upstream = Data::new(Upstream { client, page, origin });
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let server = HttpServer::new(move || {
            let all = web::scope("").guard(guard::fn_guard(is_local));
            App::new().app_data(upstream.clone()).service(all.default_service(web::to(forward)))
        })
        .workers(1)
        .disable_signals()
        .shutdown_timeout(1)
        .listen(listener)
        .context("serving the vault page in a frame")?
        .run();
        let handle = server.handle();
        Ok(Self { address, handle, server: tokio::spawn(server) })
    }

    /// The origin of the frame.
    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) async fn close(self) {
        self.handle.stop(true).await;
        // An error would only say that the task panicked.
        let _ = self.server.await;
    }
}

async fn forward(request: HttpRequest, body: Bytes, to: Data<Upstream>) -> HttpResponse {
    match to.ask(&request, body).await {
        Ok(answer) => answer,
        Err(error) => HttpResponse::BadGateway().body(error.to_string()),
    }
}

impl Upstream {
    async fn ask(&self, request: &HttpRequest, body: Bytes) -> anyhow::Result<HttpResponse> {
        let url = format!("{}{}", self.page, request.uri());
        let mut asked = self.client.request(request.method().as_str().parse()?, url).body(body);
        for name in ASKED {
            if let Some(value) = request.headers().get(name) {
                asked = asked.header(name, value.as_bytes());
            }
        }
        let answer = asked.send().await?;
        let status = actix_web::http::StatusCode::from_u16(answer.status().as_u16())?;
        let mut shown = HttpResponse::build(status);
        for (name, value) in answer.headers() {
            if !OWN.contains(&name.as_str()) {
                shown.append_header((name.as_str(), value.to_str()?.replace(CLIENT, &self.origin)));
            }
        }
        let text = answer.text().await?;
        Ok(shown.body(text.replace(CLIENT, &self.origin)))
    }
}
