//! The texts of the bot: Fluent messages of `i18n/en/kms-bot.ftl`, rendered in this one place.
//!
//! [`html!`] renders a message for a chat and escapes every variable, unless it is
//! [`Html`] itself. [`text!`] renders a button label, a notice or a description, which
//! Telegram does not parse. Both check the message id and the names of the variables at compile
//! time. No other code can make either type, so an unescaped name cannot reach a message.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::LazyLock;

use i18n_embed::fluent::FluentLanguageLoader;
use i18n_embed::{I18nAssets, LanguageLoader};

use crate::chat::html::escape;

/// The longest message of the Bot API.
const LONGEST_MESSAGE: usize = 4_096;
/// The longest text below a picture.
const LONGEST_CAPTION: usize = 1_024;

/// A message in Telegram's HTML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Html(String);

/// A plain text: a button label, a notice or the description of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text(String);

/// A number that a message selects a plural form by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count(pub(crate) u64);

impl Count {
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// A value that can be a variable of an HTML message.
pub(crate) trait Variable {
    /// What Fluent receives: a string or a number.
    type Value;

    fn into_html(self) -> Self::Value;
}

impl<T: Display> Variable for T {
    type Value = String;

    fn into_html(self) -> String {
        escape(&self.to_string())
    }
}

impl Variable for Count {
    type Value = u64;

    fn into_html(self) -> u64 {
        self.0
    }
}

impl Html {
    /// Wraps what [`html!`] rendered; nothing else calls this.
    pub(crate) fn from_rendered(markup: String) -> Self {
        Self(markup)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts each part on a line of its own; empty parts are left out.
    pub(crate) fn lines(parts: impl IntoIterator<Item = Self>) -> Self {
        Self::join(parts, "\n")
    }

    /// Separates the parts by empty lines; empty parts are left out.
    pub(crate) fn paragraphs(parts: impl IntoIterator<Item = Self>) -> Self {
        Self::join(parts, "\n\n")
    }

    /// Separates the parts by empty lines, in as few messages as Telegram's longest message needs.
    pub(crate) fn messages(parts: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut messages: Vec<Self> = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            match messages.last_mut() {
                Some(last) if last.length() + part.length() + 2 <= LONGEST_MESSAGE => {
                    *last = Self::paragraphs([last.clone(), part]);
                }
                Some(_) | None => messages.push(part),
            }
        }
        messages
    }

    /// Whether it fits below a picture.
    pub(crate) fn is_caption(&self) -> bool {
        self.length() <= LONGEST_CAPTION
    }

    /// The length in UTF-16 code units, as Telegram counts it, with the markup, which Telegram does
    /// not count.
    fn length(&self) -> usize {
        self.0.encode_utf16().count()
    }

    /// Lists words in one sentence, as in "ETH, TUSD and USDC".
    pub(crate) fn list<T: Display>(words: impl IntoIterator<Item = T>) -> Self {
        let mut words: Vec<_> =
            words.into_iter().map(|word| Self(escape(&word.to_string()))).collect();
        let Some(last) = words.pop() else { return Self::default() };
        let start =
            words.into_iter().reduce(|start, next| html!("list-next", start = start, next = next));
        match start {
            None => last,
            Some(start) => html!("list-last", start = start, last = last),
        }
    }

    fn join(parts: impl IntoIterator<Item = Self>, separator: &str) -> Self {
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        Self(parts.map(|part| part.0).collect::<Vec<_>>().join(separator))
    }
}

impl Variable for Html {
    type Value = String;

    fn into_html(self) -> String {
        self.0
    }
}

impl Variable for &Html {
    type Value = String;

    fn into_html(self) -> String {
        self.0.clone()
    }
}

impl Text {
    /// Wraps what [`text!`] rendered; nothing else calls this.
    pub(crate) fn from_rendered(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

impl Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Renders a message in HTML: `html!("send-unknown-name", username = name)`.
macro_rules! html {
    ($id:literal $(, $name:ident = $value:expr)* $(,)?) => {
        $crate::texts::Html::from_rendered(i18n_embed_fl::fl!(
            $crate::texts::messages(),
            $id
            $(, $name = $crate::texts::Variable::into_html($value))*
        ))
    };
}

/// Renders a plain text: `text!("cancel-button")`. Its only variables are numbers.
macro_rules! text {
    ($id:literal $(, $name:ident = $value:expr)* $(,)?) => {
        $crate::texts::Text::from_rendered(i18n_embed_fl::fl!(
            $crate::texts::messages(),
            $id
            $(, $name = $crate::texts::Count::number($value))*
        ))
    };
}

pub(crate) use {html, text};

/// The messages of all languages.
pub(crate) fn messages() -> &'static FluentLanguageLoader {
    static MESSAGES: LazyLock<FluentLanguageLoader> = LazyLock::new(|| {
        let loader = i18n_embed::fluent::fluent_language_loader!();
        // Cannot fail: the file is part of the program, and a test renders every message of it.
        if let Err(error) = loader.load_languages(&Embedded, &[loader.fallback_language().clone()])
        {
            tracing::error!(%error, event = "texts_not_loaded", "texts not loaded");
        }
        // Isolation marks would be copied together with addresses and amounts.
        loader.set_use_isolating(false);
        loader
    });
    &MESSAGES
}

/// The Fluent files that are part of the program.
struct Embedded;

impl Embedded {
    const FILES: [(&str, &str); 1] = [("en/kms-bot.ftl", include_str!("../i18n/en/kms-bot.ftl"))];
}

impl I18nAssets for Embedded {
    fn get_files(&self, path: &str) -> Vec<Cow<'_, [u8]>> {
        let files = Self::FILES.iter().filter(|(known, _)| *known == path);
        files.map(|(_, text)| Cow::Borrowed(text.as_bytes())).collect()
    }

    fn filenames_iter(&self) -> Box<dyn Iterator<Item = String> + '_> {
        Box::new(Self::FILES.iter().map(|(path, _)| (*path).to_owned()))
    }
}

#[cfg(test)]
mod tests;
