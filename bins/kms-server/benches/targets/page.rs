//! The vault page: what it costs the server to open it, and a confirmation on it.

use crate::measure::cpu;
use crate::row::Row;
use crate::secrets::{TIMES, beside_kdf, row, sign};
use crate::stage::{Stage, WORDS};
use futures::future::join_all;
use kms_server_testing::requests::{COIN, hash, quote};
use kms_types::LaunchKey;
use kms_types::wire::{ConfirmShown, OpenLaunch, TransferView};
use reqwest::{Client, Method};
use serde::Serialize;
use serde_json::Value;

/// The first of the accounts that are created here.
const FIRST: i64 = 2_000;
/// The openings that are in flight together.
const AT_ONCE: usize = 4;

/// A page that was opened, or is to be.
struct Opened {
    init_data: String,
    key: LaunchKey,
}

impl Opened {
    fn by(stage: &Stage, user: i64, start_param: &str) -> Self {
        Self { init_data: stage.opened(user, start_param), key: LaunchKey::random() }
    }
}

pub(crate) async fn rows(stage: &Stage) -> Vec<Row> {
    let page = Page::new(stage);
    for id in FIRST..=FIRST + TIMES {
        stage.env.fund(&stage.account(id).await, COIN).unwrap();
    }
    let mut pages = Vec::new();
    for id in FIRST + 1..=FIRST + TIMES {
        let quoted = stage.client.quote(&quote(id, &format!("@person{FIRST}"), "0.001")).await;
        pages.push(Opened::by(stage, id, &format!("c{}", quoted.unwrap().id)));
    }
    // Connections, which a page has from loading its files.
    page.open_all(stage, &[Opened::by(stage, FIRST, "")]).await;
    // The first opening of an owner also stores that Telegram signed the username.
    let looks: Vec<_> = (FIRST + 1..=FIRST + TIMES).map(|id| Opened::by(stage, id, "")).collect();
    let first = page.open_all(stage, &looks).await;
    let again = page.open_all(stage, &pages).await;
    let mut views = Vec::new();
    for opened in &pages {
        let shown = page.send(Method::GET, "transfer", opened, &()).await;
        views.push(serde_json::from_value::<TransferView>(shown).unwrap().view);
    }
    stage.mine_every(Some(0));
    let (confirm, kdf) = beside_kdf(stage, async |id| {
        let at = usize::try_from(id).unwrap();
        let body = ConfirmShown { password_hash: hash(WORDS), view: views[at].clone() };
        page.send(Method::POST, "transfer/confirm", &pages[at], &body).await;
    })
    .await;
    stage.settle().await;
    stage.mine_every(None);
    let parts = kdf + 4.0 * sign();
    let name = "confirm on the page: server CPU / KDF + four signatures";
    vec![
        row("open the page for the first time: server CPU", first, 1.0, 1.0),
        row("open the page again: server CPU", again, 1.0, 1.0),
        row(name, confirm, parts, 1.15),
    ]
}

/// The page's requests, over connections that stay open.
struct Page {
    client: Client,
    url: String,
}

impl Page {
    fn new(stage: &Stage) -> Self {
        let certificate = stage.env.certificate.as_bytes();
        let certificate = reqwest::Certificate::from_pem(certificate).unwrap();
        let client = Client::builder().add_root_certificate(certificate).build().unwrap();
        let url = format!("https://localhost:{}/app/v1", stage.server.page_port);
        Self { client, url }
    }

    /// Opens these pages, some at once, and returns the server's CPU milliseconds for each.
    async fn open_all(&self, stage: &Stage, pages: &[Opened]) -> f64 {
        let before = cpu(stage.server.id());
        for some in pages.chunks(AT_ONCE) {
            join_all(some.iter().map(|opened| self.open(opened))).await;
        }
        (cpu(stage.server.id()) - before) / pages.len() as f64
    }

    async fn open(&self, opened: &Opened) {
        let key = LaunchKey::fill(|bytes| bytes.copy_from_slice(opened.key.expose()));
        let body = OpenLaunch { init_data: opened.init_data.clone(), key };
        self.send(Method::POST, "launches", opened, &body).await;
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        opened: &Opened,
        body: &impl Serialize,
    ) -> Value {
        let request = self.client.request(method, format!("{}/{path}", self.url));
        let authorization = format!("Launch {}", *opened.key.to_hex());
        let request = request.header("Authorization", authorization).json(body);
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }
}
