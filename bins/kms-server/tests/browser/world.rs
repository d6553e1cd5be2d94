//! A running server with Ann's and Bob's Telegram, behind a proxy, and a browser.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bot_api_sim::{MiniApps, Opening};
use kms_config::Secret;
use kms_server::config::MailSettings;
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_testkit::{Chromedriver, Mailbox, TestkitError};
use thirtyfour::common::capabilities::chromium::ChromiumLikeCapabilities;
use thirtyfour::prelude::*;

use crate::proxy::Proxy;

/// The link of the page at Telegram.
pub(crate) const APP: &str = "https://t.me/acme_vault_bot/wallet";
const VAULT_BOT: i64 = 7_000_000_002;

/// Everything that the page runs on.
pub(crate) struct World {
    pub(crate) test: TestServer,
    pub(crate) mailbox: Mailbox,
    pub(crate) proxy: Proxy,
    pub(crate) url: String,
    telegram: MiniApps,
    pub(crate) browser: WebDriver,
    _chromedriver: Chromedriver,
}

#[expect(clippy::disallowed_methods, reason = "Telegram has a clock of its own")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The texts of the page in a language.
pub(crate) fn texts(language: &str) -> BTreeMap<String, String> {
    let json = match language {
        "de" => include_str!("../../page/texts/de.json"),
        _ => include_str!("../../page/texts/en.json"),
    };
    serde_json::from_str(json).unwrap()
}

impl World {
    /// Starts it, or says loudly why the page cannot be tested on this machine.
    pub(crate) async fn new() -> Option<Self> {
        let chromedriver = match Chromedriver::start() {
            Ok(driver) => driver,
            Err(error @ TestkitError::Missing { .. }) => {
                // Not by a macro, whose output the test runner captures when the test passes.
                let loud = format!("\n*** THE VAULT PAGE WAS NOT TESTED: {error} ***\n\n");
                std::io::stderr().write_all(loud.as_bytes()).unwrap();
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let mut env = TestEnv::new(Stores::Embedded).unwrap();
        let mut telegram = MiniApps::new().unwrap();
        env.page.bots = vec![VAULT_BOT.try_into().unwrap()];
        env.page.telegram_key = telegram.public_key().parse().unwrap();
        env.page.app = Some(APP.parse().unwrap());
        env.limits.launches = "1000/minute".parse().unwrap();
        env.limits.email_codes = "100/day".parse().unwrap();
        env.limits.codes_to_an_address = "100/day".parse().unwrap();
        let mailbox = Mailbox::start().unwrap();
        env.mail = Some(MailSettings {
            url: Secret::from(mailbox.url()).try_into().unwrap(),
            from: "Wallet <wallet@example.org>".to_owned(),
            public_url: "https://kms.example.org".to_owned().try_into().unwrap(),
        });
        env.recovery.sends_codes = true;
        env.recovery.wait_with_code = Duration::from_millis(500);
        let test = TestServer::start(env).await;
        let (proxy, url) = Proxy::start(test.page_url(""), test.raw());
        telegram.register(VAULT_BOT, "acme_vault_bot", "wallet", &url);
        let browser = browser(&chromedriver).await;
        Some(Self { test, mailbox, proxy, url, telegram, browser, _chromedriver: chromedriver })
    }

    /// What a user's app opens for a start parameter.
    pub(crate) fn opened(&self, user: i64, name: &str, start_param: &str) -> String {
        let link = match start_param {
            "" => APP.to_owned(),
            given => format!("{APP}?startapp={given}"),
        };
        let opening = Opening {
            bot: VAULT_BOT,
            user,
            first_name: name,
            last_name: None,
            username: Some(name),
            start_param,
            at: now(),
        };
        self.telegram.open(&link, opening).unwrap().unwrap()
    }

    /// Closes the browser.
    pub(crate) async fn close(self) {
        self.browser.clone().quit().await.unwrap();
    }
}

/// A browser that notes what a page must not do: violations of its policy, and errors. Its clock is
/// half an hour fast: an opening, which lasts 15 minutes, does not end by it.
async fn browser(chromedriver: &Chromedriver) -> WebDriver {
    let (binary, arguments) = chromedriver.browser();
    let mut chrome = DesiredCapabilities::chrome();
    chrome.set_binary(&binary).unwrap();
    for argument in arguments {
        chrome.add_arg(argument).unwrap();
    }
    let browser = WebDriver::new(chromedriver.url(), chrome).await.unwrap();
    browser.set_script_timeout(Duration::from_secs(60)).await.unwrap();
    let listener = "
        const now = Date.now;
        Date.now = () => now() + 1_800_000;
        window.noted = [];
        addEventListener('securitypolicyviolation', (event) =>
            noted.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
        addEventListener('error', (event) => noted.push(String(event.message)));
        addEventListener('unhandledrejection', (event) => noted.push(String(event.reason)));";
    let source = serde_json::json!({ "source": listener });
    let tools = browser.cdp();
    tools.send_raw("Page.addScriptToEvaluateOnNewDocument", source).await.unwrap();
    browser
}
