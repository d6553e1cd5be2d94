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

/// The widths at which each screen is checked, in both schemes.
pub(crate) const WIDTHS: &[u32] = &[320, 390, 1_440];
const SCHEMES: [&str; 2] = ["light", "dark"];

/// How a person uses the page.
#[derive(Clone, Copy)]
pub(crate) struct Habits {
    pub(crate) user: i64,
    pub(crate) name: &'static str,
    pub(crate) language: &'static str,
    pub(crate) width: u32,
    /// At which each screen is checked.
    pub(crate) widths: &'static [u32],
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
        let axe = kms_testkit::axe().unwrap();
        let (texts, checked) = (texts(habits.language), RefCell::default());
        let visit = Self { world, habits, texts, axe, checked };
        visit.is_shown(habits.width, habits.scheme).await;
        visit
    }

    /// Shows the page at this width and in this scheme.
    async fn is_shown(&self, width: u32, scheme: &str) {
        self.prefers(scheme, "reduce").await;
        let tools = self.world.browser.cdp();
        // As on a phone, where bars take no room.
        let bars = json!({ "hidden": true });
        tools.send_raw("Emulation.setScrollbarsHidden", bars).await.unwrap();
        // Not as a phone, which widens its viewport for what does not fit.
        let size = json!({
            "width": width, "height": 844, "deviceScaleFactor": 1, "mobile": false,
        });
        tools.send_raw("Emulation.setDeviceMetricsOverride", size).await.unwrap();
    }

    /// Sets what the person prefers of schemes and of motion.
    pub(crate) async fn prefers(&self, scheme: &str, motion: &str) {
        let media = json!({"features": [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]});
        let tools = self.world.browser.cdp();
        tools.send_raw("Emulation.setEmulatedMedia", media).await.unwrap();
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

    /// Checks a state of the screen that has no heading of its own.
    pub(crate) async fn looks_at(&self, name: &str) {
        self.check(name).await;
    }

    /// Nothing was refused by the policy, nothing moves, the focus is somewhere. Once for each
    /// screen, at each width and in each scheme: nothing scrolls sideways, and axe finds nothing
    /// serious. Takes its picture.
    async fn check(&self, name: &str) {
        let name = format!("{name}-{}", self.habits.language);
        assert_eq!(self.run("return window.noted", vec![]).await, json!([]), "{name}");
        let focused = "return document.activeElement !== document.body";
        assert_eq!(self.run(focused, vec![]).await, json!(true), "{name} lost the focus");
        let moving = "return document.getAnimations().length";
        assert_eq!(self.run(moving, vec![]).await, json!(0), "{name} moves");
        if !self.checked.borrow_mut().insert(name.clone()) {
            return;
        }
        let widths = self.habits.widths.iter();
        for (width, scheme) in widths.flat_map(|width| SCHEMES.map(|scheme| (*width, scheme))) {
            self.is_shown(width, scheme).await;
            self.fits(&format!("{name}-{width}-{scheme}")).await;
        }
        self.is_shown(self.habits.width, self.habits.scheme).await;
    }

    async fn fits(&self, name: &str) {
        let wide = "const { scrollWidth, clientWidth } = document.documentElement;
            return scrollWidth > clientWidth";
        assert_eq!(self.run(wide, vec![]).await, json!(false), "{name} scrolls sideways");
        let known = self.run("return Boolean(window.axe)", vec![]).await;
        if known != json!(true) {
            // Not by the page's own scripts, which its policy binds.
            self.run(&format!("{}; window.axe = axe;", self.axe), vec![]).await;
        }
        let script = "const done = arguments[arguments.length - 1];
            axe.run({ resultTypes: ['violations'] }).then(({ violations }) => done(violations
                .filter(({ impact }) => ['serious', 'critical'].includes(impact))
                .map(({ id, nodes }) => `${id}: ${nodes.map((n) => n.html).join(' ')}`)))";
        let found = self.world.browser.execute_async(script, vec![]).await.unwrap();
        assert_eq!(found.json(), &json!([]), "{name}");
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}.png"));
        self.world.browser.screenshot(&file).await.unwrap();
    }

    /// Types into the field with this label: into that of an opened part, if there is one.
    pub(crate) async fn types(&self, label: &str, text: &str) {
        self.types_into(self.text(label), text).await;
    }

    pub(crate) async fn types_into(&self, label: &str, text: &str) {
        let find = "const all = ['details[open] label', 'label']
                .flatMap((css) => [...document.querySelectorAll(css)]);
            return all.find((label) => label.textContent === arguments[0] && label.offsetParent
                && !label.closest('details:not([open])'))?.htmlFor";
        let id = self.finds(find, label).await;
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
                of(e).trim() === arguments[0] && (e.offsetParent || e.labels)
                    && (e.matches('summary') || !e.closest('details:not([open])')));
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
        self.loses();
        self.presses_text(text).await;
    }

    /// Sends the form whose button this selector finds.
    pub(crate) async fn sends_css(&self, css: &str) {
        self.loses();
        self.press_css(css).await;
    }

    fn loses(&self) {
        if self.habits.loses_answers {
            self.world.proxy.cut();
        }
    }
}

/// Whether a screen is shown.
const READY: &str = "
    return document.querySelector('main')?.getAttribute('aria-busy') === 'false'
        && document.querySelector('footer') !== null";
