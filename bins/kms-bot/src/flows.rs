//! The conversations, each whole in a file of its own: its command, buttons, steps and handlers.

use crate::flow::Flow;

mod balance;
mod cancel;
mod contact;
mod export;
pub(crate) mod freeze;
mod help;
mod history;
mod limit;
mod password;
mod receive;
pub(crate) mod recovery;
pub(crate) mod send;
pub(crate) mod start;
mod support;

pub(crate) use balance::open_button as balance_button;
pub(crate) use contact::mobile;
pub(crate) use history::open_button as history_button;

/// Every flow, in the order of Telegram's menu and of `/help`.
pub(crate) const FLOWS: &[&dyn Flow] = &[
    &start::StartFlow,
    &balance::BalanceFlow,
    &send::SendFlow,
    &receive::ReceiveFlow,
    &history::HistoryFlow,
    &limit::LimitFlow,
    &freeze::FreezeFlow,
    &password::PasswordFlow,
    &recovery::RecoveryFlow,
    &contact::ContactFlow,
    &export::ExportFlow,
    &support::SupportFlow,
    &cancel::CancelFlow,
    &help::HelpFlow,
];

#[cfg(test)]
mod tests;
