//! A proxy in front of the public listener that can lose answers: the server acts, and the page
//! never learns of it.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};

/// The running proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    upstream: String,
    http: reqwest::Client,
    cuts: Arc<AtomicBool>,
    cuts_opening: Arc<AtomicBool>,
    lost: Arc<Mutex<BTreeSet<String>>>,
}

impl Proxy {
    /// Starts one, and returns its URL: `http://localhost` is a secure context, without the
    /// server's certificate.
    pub(crate) fn start(upstream: String, http: reqwest::Client) -> (Self, String) {
        let (cuts, cuts_opening, lost) = Default::default();
        let proxy = Self { upstream, http, cuts, cuts_opening, lost };
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let data = Data::new(proxy.clone());
        let app = move || App::new().app_data(data.clone()).default_service(web::to(forward));
        let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap();
        actix_web::rt::spawn(server.run());
        (proxy, format!("http://localhost:{port}/"))
    }

    /// Loses the answer of the next act.
    pub(crate) fn cut(&self) {
        self.cuts.store(true, Ordering::SeqCst);
    }

    /// Loses the answer of the next opening.
    pub(crate) fn cut_opening(&self) {
        self.cuts_opening.store(true, Ordering::SeqCst);
    }

    /// The operations of which an answer was lost.
    pub(crate) fn lost(&self) -> BTreeSet<String> {
        self.lost.lock().unwrap().clone()
    }
}

async fn forward(request: HttpRequest, body: Bytes, proxy: Data<Proxy>) -> HttpResponse {
    let url = format!("{}{}", proxy.upstream, request.uri());
    let method = request.method().as_str().parse().unwrap();
    let mut forwarded = proxy.http.request(method, url).body(body.to_vec());
    for name in ["authorization", "content-type"] {
        if let Some(value) = request.headers().get(name) {
            forwarded = forwarded.header(name, value.to_str().unwrap());
        }
    }
    let answer = forwarded.send().await.unwrap();
    let mut response = HttpResponse::build(StatusCode::from_u16(answer.status().as_u16()).unwrap());
    for (name, value) in answer.headers() {
        if !["content-length", "transfer-encoding", "connection"].contains(&name.as_str()) {
            response.insert_header((name.as_str(), value.to_str().unwrap()));
        }
    }
    let is_read = request.method() == Method::GET;
    let cuts = match request.uri().path().ends_with("/launches") {
        true => &proxy.cuts_opening,
        false => &proxy.cuts,
    };
    let content = answer.bytes().await.unwrap();
    if !is_read && cuts.swap(false, Ordering::SeqCst) {
        let operation = format!("{} {}", request.method(), request.uri().path());
        proxy.lost.lock().unwrap().insert(operation);
        // Not with the status of an answer without a body, which would be complete.
        let cut = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("cut"))]);
        return HttpResponse::Ok().streaming(cut);
    }
    response.body(content)
}
