//! A person on the page: reads, clicks, types and tabs.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use thirtyfour::prelude::*;

use crate::world::{World, texts};

const POLL: Duration = Duration::from_millis(50);
const POLLS: usize = 600;

/// How a person uses the page.
#[derive(Clone, Copy)]
pub(crate) struct Habits {
    pub(crate) user: i64,
    pub(crate) name: &'static str,
    pub(crate) language: &'static str,
    pub(crate) width: u32,
    pub(crate) scheme: &'static str,
    /// Without a mouse.
    pub(crate) by_keys: bool,
    /// Over a connection that loses the answer of each act.
    pub(crate) loses_answers: bool,
}

/// A person on the page.
pub(crate) struct Visit<'a> {
    pub(crate) world: &'a World,
    pub(crate) habits: Habits,
    texts: BTreeMap<String, String>,
    axe: String,
    checked: RefCell<BTreeSet<String>>,
}

impl<'a> Visit<'a> {
    pub(crate) async fn new(world: &'a World, habits: Habits) -> Self {
        let tools = world.browser.cdp();
        let media = json!({"features": [
            {"name": "prefers-color-scheme", "value": habits.scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]});
        tools.send_raw("Emulation.setEmulatedMedia", media).await.unwrap();
        let size = json!({
            "width": habits.width, "height": 844, "deviceScaleFactor": 1,
            "mobile": habits.width < 600,
        });
        tools.send_raw("Emulation.setDeviceMetricsOverride", size).await.unwrap();
        let axe = kms_testkit::axe().unwrap();
        Self { world, habits, texts: texts(habits.language), axe, checked: RefCell::default() }
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.texts.get(key).unwrap_or_else(|| panic!("no text {key}"))
    }

    pub(crate) async fn run(&self, script: &str, values: Vec<Value>) -> Value {
        self.world.browser.execute(script, values).await.unwrap().json().clone()
    }

    /// Opens the page for a start parameter, in this person's language.
    pub(crate) async fn open(&self, start_param: &str) {
        let url = self.world.opened(self.habits.user, self.habits.name, start_param);
        self.go(&url).await;
        let tag = self.habits.language;
        if self.run("return document.documentElement.lang", vec![]).await != json!(tag) {
            self.press_css(&format!("footer button[lang={tag}]")).await;
            let is_spoken = format!("return document.documentElement.lang === '{tag}'");
            self.until(&is_spoken, "the other language").await;
            self.until(READY, "a screen in the other language").await;
        }
    }

    pub(crate) async fn go(&self, url: &str) {
        // Of two addresses that differ in their fragments alone, the second would load nothing.
        self.world.browser.goto("about:blank").await.unwrap();
        self.world.browser.goto(url).await.unwrap();
        self.until(READY, "a screen").await;
        assert_eq!(self.run("return location.href", vec![]).await, json!(self.world.url));
    }

    /// Waits for the screen with this heading, checks it, and takes its picture.
    pub(crate) async fn sees(&self, key: &str) {
        let condition = format!("return document.querySelector('h1')?.textContent === {}", {
            json!(self.text(key))
        });
        self.until(&condition, key).await;
        self.check(key).await;
    }

    async fn until(&self, condition: &str, what: &str) {
        for _ in 0..POLLS {
            if self.run(condition, vec![]).await == json!(true) {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
        let shown = self.run("return document.body.innerText", vec![]).await;
        panic!("{what} did not appear; the page was:\n{}", shown.as_str().unwrap_or_default());
    }

    /// Waits for a text anywhere on the screen.
    pub(crate) async fn reads(&self, text: &str) {
        let condition = format!("return document.body.innerText.includes({})", json!(text));
        self.until(&condition, text).await;
    }

    /// Nothing scrolls sideways, nothing was refused by the policy, and axe finds nothing serious.
    async fn check(&self, name: &str) {
        let name = format!("{name}-{}-{}", self.habits.language, self.habits.width);
        let wide = "return document.documentElement.scrollWidth > innerWidth";
        assert_eq!(self.run(wide, vec![]).await, json!(false), "{name} scrolls sideways");
        assert_eq!(self.run("return window.noted", vec![]).await, json!([]), "{name}");
        let focused = "return document.activeElement !== document.body";
        assert_eq!(self.run(focused, vec![]).await, json!(true), "{name} lost the focus");
        if !self.checked.borrow_mut().insert(name.clone()) {
            return;
        }
        let script = format!(
            "{}; const done = arguments[arguments.length - 1];
             axe.run({{ resultTypes: ['violations'] }}).then(({{ violations }}) => done(violations
                 .filter(({{ impact }}) => ['serious', 'critical'].includes(impact))
                 .map(({{ id, nodes }}) => `${{id}}: ${{nodes.map((n) => n.html).join(' ')}}`)))",
            self.axe
        );
        let found = self.world.browser.execute_async(&script, vec![]).await.unwrap();
        assert_eq!(found.json(), &json!([]), "{name}");
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}.png"));
        self.world.browser.screenshot(&file).await.unwrap();
    }

    /// Types into the field with this label.
    pub(crate) async fn types(&self, label: &str, text: &str) {
        let find = "return [...document.querySelectorAll('label')]
            .find((label) => label.textContent === arguments[0] && label.offsetParent)?.htmlFor";
        let id = self.finds(find, self.text(label)).await;
        let css = format!("#{}", id.as_str().unwrap());
        if self.habits.by_keys {
            self.reach(&format!("document.activeElement.matches('{css}')")).await;
        } else {
            self.world.browser.find(By::Css(&css)).await.unwrap().click().await.unwrap();
        }
        let field = self.world.browser.active_element().await.unwrap();
        field.send_keys(Key::Control + "a").await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Presses the button or the box with this label.
    pub(crate) async fn presses(&self, label: &str) {
        self.presses_text(self.text(label)).await;
    }

    pub(crate) async fn presses_text(&self, text: &str) {
        let find = "
            const of = (e) => e.labels?.[0]?.textContent ?? e.textContent;
            const all = document.querySelectorAll('button, a, summary, input');
            const found = [...all].find((e) =>
                of(e).trim() === arguments[0] && (e.offsetParent || e.labels));
            document.querySelectorAll('[data-sought]').forEach((e) => delete e.dataset.sought);
            if (found) found.dataset.sought = '';
            return found ? true : null;";
        self.finds(find, text).await;
        self.press_css("[data-sought]").await;
    }

    /// What this script answers for a text, once it is not null: a screen may still be loading.
    async fn finds(&self, script: &str, text: &str) -> Value {
        for _ in 0..POLLS {
            let found = self.run(script, vec![json!(text)]).await;
            if !found.is_null() {
                return found;
            }
            tokio::time::sleep(POLL).await;
        }
        let shown = self.run("return document.body.innerText", vec![]).await;
        panic!("there is no {text}; the page was:\n{}", shown.as_str().unwrap_or_default());
    }

    async fn press_css(&self, css: &str) {
        if !self.habits.by_keys {
            let script = "const e = document.querySelector(arguments[0]);
                e.scrollIntoView({ block: 'center' });
                return e.type === 'radio'";
            let is_radio = self.run(script, vec![json!(css)]).await == json!(true);
            let css = if is_radio { format!("{css} + label") } else { css.to_owned() };
            self.world.browser.find(By::Css(&css)).await.unwrap().click().await.unwrap();
            return;
        }
        // The keys of a group of radio buttons are the arrows.
        let radio = format!(
            "const e = document.querySelector('{css}'); return e.type === 'radio' ? e.name : null"
        );
        if let Value::String(group) = self.run(&radio, vec![]).await {
            self.reach(&format!("document.activeElement.name === '{group}'")).await;
            let field = self.world.browser.active_element().await.unwrap();
            field.send_keys(Key::Right + "").await.unwrap();
            return;
        }
        self.reach(&format!("document.activeElement.matches('{css}')")).await;
        let is_box = "return document.activeElement.type === 'checkbox'";
        let is_box = self.run(is_box, vec![]).await == json!(true);
        let field = self.world.browser.active_element().await.unwrap();
        let key = if is_box { Key::Space + "" } else { Key::Enter + "" };
        field.send_keys(key).await.unwrap();
    }

    /// Presses Tab until this is true. Everything that has the focus on the way can be seen.
    async fn reach(&self, condition: &str) {
        for _ in 0..80 {
            if self.run(&format!("return {condition}"), vec![]).await == json!(true) {
                return;
            }
            let focused = self.world.browser.active_element().await.unwrap();
            focused.send_keys(Key::Tab + "").await.unwrap();
        }
        panic!("no way by keys to {condition}");
    }

    /// Sends the form. The connection may lose the answer.
    pub(crate) async fn sends(&self, label: &str) {
        self.sends_text(self.text(label)).await;
    }

    pub(crate) async fn sends_text(&self, text: &str) {
        if self.habits.loses_answers {
            self.world.proxy.cut();
        }
        self.presses_text(text).await;
    }
}

/// Whether a screen is shown.
const READY: &str = "
    return document.querySelector('main')?.getAttribute('aria-busy') === 'false'
        && document.querySelector('footer') !== null";
