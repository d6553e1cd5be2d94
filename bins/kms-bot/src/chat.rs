//! Telegram, as the flows use it, independent of wallets.

pub(crate) mod calls;
pub(crate) mod deletions;
pub(crate) mod html;
pub(crate) mod incoming;
pub(crate) mod keyboard;
pub(crate) mod lanes;
pub(crate) mod pace;
pub(crate) mod qr;
pub(crate) mod shown;
pub(crate) mod telegram;
