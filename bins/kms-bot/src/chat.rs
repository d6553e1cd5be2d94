//! Telegram, as the flows use it, independent of wallets.

pub(crate) mod html;
pub(crate) mod incoming;
pub(crate) mod keyboard;
pub(crate) mod lanes;
pub(crate) mod qr;
pub(crate) mod telegram;
