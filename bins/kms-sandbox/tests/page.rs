//! Clicks and types on the page in a real browser. Leaves screenshots in `target/tmp`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kms_sandbox::texts::{self, label};
use kms_sandbox::{Page, Stage, StageOptions};
use kms_testkit::{Chromedriver, TestkitError};
use kms_types::{TelegramId, Wei};
use serde_json::json;
use thirtyfour::common::capabilities::chromium::ChromiumLikeCapabilities;
use thirtyfour::prelude::*;

/// How often the page is checked for an element.
const POLL: Duration = Duration::from_millis(50);

/// A visitor of the page, in a browser of its own.
struct Visitor(WebDriver);

impl Visitor {
    async fn at(driver: &Chromedriver, url: &str) -> Self {
        let (binary, arguments) = driver.browser();
        let mut chrome = DesiredCapabilities::chrome();
        chrome.set_binary(&binary).unwrap();
        for argument in arguments {
            chrome.add_arg(argument).unwrap();
        }
        let browser = WebDriver::new(driver.url(), chrome).await.unwrap();
        browser.goto(url).await.unwrap();
        Self(browser)
    }

    async fn find(&self, css: &str) -> WebElement {
        self.0.query(By::Css(css)).wait(Duration::from_secs(30), POLL).first().await.unwrap()
    }

    async fn types(&self, phone: &str, text: &str) {
        let box_ = self.find(&format!("#{phone} textarea")).await;
        box_.send_keys(text).await.unwrap();
        box_.send_keys(Key::Enter + "").await.unwrap();
    }

    async fn waits(&self, path: &str) -> WebElement {
        let found = self.0.query(By::XPath(path)).wait(Duration::from_secs(30), POLL);
        match found.first().await {
            Ok(element) => element,
            Err(_) => {
                let page = self.find("body").await.text().await.unwrap();
                panic!("{path} did not appear; the page was:\n{page}");
            }
        }
    }

    /// Waits until this text is gone from the page: deleted messages fade out first.
    async fn no_longer_sees(&self, text: &str) {
        let path = format!("//*[contains(text(), '{text}')]");
        let found = self.0.query(By::XPath(path)).wait(Duration::from_secs(30), POLL);
        assert!(found.not_exists().await.unwrap(), "{text:?} is still there");
    }

    /// Waits for a message of the bot with this id, with these values in it.
    async fn reads(&self, phone: &str, id: &str, values: &[&str]) {
        let bubbles = format!("#{phone} [class^=bubble]");
        let script = "return [...document.querySelectorAll(arguments[0])].map(b => b.innerText)";
        for _ in 0..600 {
            let shown = self.0.execute(script, vec![json!(bubbles)]).await.unwrap();
            let shown: Vec<String> = shown.convert().unwrap();
            if shown.iter().any(|text| texts::is_with(id, values, text)) {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
        let page = self.find("body").await.text().await.unwrap();
        panic!("{id} {values:?} did not appear; the page was:\n{page}");
    }

    /// Presses the last button of the bot with this label.
    async fn presses(&self, phone: &str, id: &str) {
        let path = format!("(//*[@id='{phone}']//button[contains(., '{}')])[last()]", label(id));
        self.waits(&path).await.click().await.unwrap();
    }

    /// Opens the vault page by the last button with this label, and goes into its frame.
    async fn opens(&self, phone: &str, button: &str) {
        self.presses(phone, button).await;
        self.find(&format!("#{phone} .sheet iframe")).await.enter_frame().await.unwrap();
    }

    /// Presses a button of the vault page, or the label of a box.
    async fn touches(&self, words: &str) {
        let path = format!("//*[self::button or self::label][contains(., '{words}')]");
        self.waits(&path).await.click().await.unwrap();
    }

    /// Leaves the frame. The page closes itself, or is closed by the phone.
    async fn is_back(&self, phone: &str) {
        self.0.enter_default_frame().await.unwrap();
        let sheet = format!("#{phone} .sheet");
        if let Ok(close) = self.0.find(By::Css(format!("{sheet} .bar button"))).await {
            // It may have closed meanwhile.
            let _ = close.click().await;
        }
        let gone = self.0.query(By::Css(sheet)).wait(Duration::from_secs(30), POLL);
        assert!(gone.not_exists().await.unwrap(), "the page is still open");
    }

    /// Makes a wallet on the page, and returns the password that the page proposed.
    async fn creates(&self, phone: &str) -> String {
        self.types(phone, "/start").await;
        self.reads(phone, "start-welcome-on-page", &[]).await;
        self.opens(phone, "page-create-button").await;
        self.find(".phrase").await;
        let phrase = "return document.querySelector('.phrase').textContent";
        let phrase = self.0.execute(phrase, Vec::new()).await.unwrap();
        self.touches(&page_text("phrase.written")).await;
        self.touches(&page_text("onboard.create")).await;
        self.waits(&format!("//h1[contains(., '{}')]", page_text("onboard.done"))).await;
        self.touches(&page_text("tochat")).await;
        self.is_back(phone).await;
        self.reads(phone, "start-created", &[]).await;
        phrase.json().as_str().unwrap().to_owned()
    }

    /// Confirms the payment that the phone shows last, on the page.
    async fn pays(&self, phone: &str, password: &str) {
        self.opens(phone, "page-confirm-button").await;
        self.find("input[type=password]").await.send_keys(password).await.unwrap();
        self.find("form button[type=submit]").await.click().await.unwrap();
        self.find("[data-final]").await;
        self.is_back(phone).await;
    }

    async fn clicks(&self, css: &str) {
        self.find(css).await.click().await.unwrap();
    }

    /// Takes a screenshot in this window size and colour scheme, and checks that the page fits.
    async fn screenshots(&self, name: &str, (width, height): (u32, u32), scheme: &str) {
        let tools = self.0.cdp();
        let scheme = json!({"features": [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]});
        tools.send_raw("Emulation.setEmulatedMedia", scheme).await.unwrap();
        let mobile = width < 600;
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile,
        });
        tools.send_raw("Emulation.setDeviceMetricsOverride", size).await.unwrap();
        let wider = "return document.documentElement.scrollWidth > window.innerWidth";
        let wider = self.0.execute(wider, Vec::new()).await.unwrap();
        assert_eq!(wider.json(), &json!(false), "{name} scrolls sideways");
        let end = "for (const chat of document.querySelectorAll('.chat')) chat.scrollTop = 1e6";
        self.0.execute(end, Vec::new()).await.unwrap();
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name).with_extension("png");
        self.0.screenshot(&file).await.unwrap();
    }
}

/// A text of the vault page, in English.
fn page_text(key: &str) -> String {
    let texts = include_str!("../../kms-server/page/texts/en.json");
    let texts: serde_json::Value = serde_json::from_str(texts).unwrap();
    texts[key].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn ann_onboards_and_sends_to_bob() {
    let driver = match Chromedriver::start() {
        Ok(driver) => driver,
        Err(error @ TestkitError::Missing { .. }) => {
            // Not by a macro, whose output the test runner captures when the test passes.
            let loud = format!("\n*** THE PAGE WAS NOT TESTED: {error} ***\n\n");
            std::io::stderr().write_all(loud.as_bytes()).unwrap();
            return;
        }
        Err(error) => panic!("{error}"),
    };
    println!("testing the page in {}", driver.version());
    let options = StageOptions { chat_passwords: false, ..StageOptions::default() };
    let stage = Arc::new(Stage::start(options).await.unwrap());
    let page = Page::open(Arc::clone(&stage), 0).unwrap();
    let visitor = Visitor::at(&driver, &page.url()).await;

    // She has no wallet yet.
    visitor.clicks("#ann .faucet").await;
    visitor.find(".toast.shown").await;
    let anns = visitor.creates("ann").await;
    let bobs = visitor.creates("bob").await;
    assert_ne!(anns, bobs);
    visitor.clicks("#ann .faucet").await;
    visitor.find("#written .blocks .hash").await;
    visitor.reads("ann", "notice-received", &["10 ETH"]).await;
    visitor.presses("bob", "receive-button").await;
    let picture = visitor.find("#bob .bubble img").await;
    let wide = "return arguments[0].decode().then(() => arguments[0].naturalWidth)";
    let wide = visitor.0.execute(wide, vec![picture.to_json().unwrap()]).await.unwrap();
    assert!(wide.json().as_u64().unwrap() > 100, "the QR code is an image");

    visitor.types("ann", "/send @bob 0.5").await;
    visitor.reads("ann", "send-quote", &[]).await;
    // Out of habit.
    visitor.types("ann", &anns).await;
    visitor.reads("ann", "page-password-deleted", &[]).await;
    visitor.no_longer_sees(&anns).await;
    visitor.pays("ann", &anns).await;
    visitor.reads("ann", "transfer-confirmed", &["0.5 ETH"]).await;
    visitor.reads("bob", "notice-arriving", &["0.5 ETH", "@ann"]).await;
    visitor.presses("bob", "balance-button").await;
    visitor.reads("bob", "balance-coin", &["0.5 ETH"]).await;
    let bob = stage.client.account(TelegramId::try_from(4712).unwrap().into()).await.unwrap();
    let balance = stage.chain_balance(bob.unwrap().address).unwrap();
    assert_eq!(balance, Wei::try_from(&"0.5".parse().unwrap()).unwrap());
    visitor.clicks("#written .mining[aria-pressed=false]").await;
    visitor.find("#written .mining[aria-pressed=true]").await;
    visitor.find(".toast:not(.shown)").await;
    visitor.clicks("#bob .faucet").await;
    visitor.find(".toast.shown").await;
    visitor.types("ann", "/send @bob 0.125").await;
    visitor.reads("ann", "send-quote", &["0.125"]).await;
    visitor.pays("ann", &anns).await;
    visitor.reads("ann", "transfer-pending", &["0.125 ETH"]).await;
    visitor.reads("ann", "transfer-waits-for-network", &[]).await;
    visitor.clicks("#written .mining").await;
    visitor.reads("ann", "transfer-confirmed", &["0.125 ETH"]).await;
    visitor.reads("bob", "notice-arriving", &["0.125 ETH", "@ann"]).await;

    // The bot is stolen: its token reads, and nothing else.
    visitor.clicks("#written .steal[aria-pressed=false]").await;
    visitor.find("#written .thief li").await;
    let tried = "return [...document.querySelectorAll('.thief span')].map(s => s.textContent)";
    let tried = visitor.0.execute(tried, Vec::new()).await.unwrap();
    let tried: Vec<String> = tried.convert().unwrap();
    let refused = tried.iter().filter(|came| came.starts_with("refused")).count();
    assert_eq!((tried.len(), refused), (6, 5), "{tried:?}");
    assert_eq!(tried[5], "done", "what is left: reading");
    let stranger = TelegramId::try_from(4713).unwrap();
    assert!(stage.client.account(stranger.into()).await.unwrap().is_none());
    assert!(
        stage.client.recovery(TelegramId::try_from(4712).unwrap().into()).await.unwrap().is_none()
    );

    visitor.types("ann", "/send 0.25 @bob").await;
    visitor.reads("ann", "send-quote", &["0.25"]).await;
    visitor.find(".toast:not(.shown)").await;
    visitor.opens("ann", "page-confirm-button").await;
    visitor.find("input[type=password]").await;
    visitor.0.enter_default_frame().await.unwrap();
    for scheme in ["light", "dark"] {
        visitor.screenshots(&format!("laptop-{scheme}"), (1440, 900), scheme).await;
        visitor.screenshots(&format!("phone-{scheme}"), (390, 844), scheme).await;
    }
    visitor.0.clone().quit().await.unwrap();
    page.close().await;
    if let Some(stage) = Arc::into_inner(stage) {
        stage.stop().await;
    }
}
