//! `page`: the public listener, with the vault page, its API and the links of e-mails.

use std::net::SocketAddr;

use kms_core::launch::TelegramKey;
use kms_types::{AppLink, TelegramId};
use serde::Deserialize;

/// The public listener, and whose openings of the page count.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PageSettings {
    /// The address and port, with the certificate of `tls`.
    pub listen: SocketAddr,
    /// The ids of the bots whose Mini App is the page. Without any, the page cannot be opened.
    pub bots: Vec<TelegramId>,
    /// Who signs openings: `production`, `test`, or a public key in hex, for tests alone.
    pub telegram_key: TelegramKey,
    /// The link of the page at Telegram. Without it, the page asks the user to go back to the chat
    /// for whatever it was not opened for.
    pub app: Option<AppLink>,
    /// The connections that one peer may have open, by its IPv4 address or its IPv6 /64; zero for
    /// any number, where a proxy is the only peer.
    pub connections_per_peer: u32,
}

impl Default for PageSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8444)),
            bots: Vec::new(),
            telegram_key: TelegramKey::PRODUCTION,
            app: None,
            connections_per_peer: 64,
        }
    }
}
