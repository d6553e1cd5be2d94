//! Every e-mail, rendered with hostile values.

use kms_core::recovery::RecoveryStage;
use kms_types::{AccountId, RecoveryId};

use super::*;
use crate::mail::smtp::message;

const AT: Timestamp = Timestamp(1_796_049_000_000);
const LINK: &str = "https://kms.example.org/recoveries/0/cancel/1";
const FREEZE: &str = "https://kms.example.org/accounts/0/freeze/1/2";
/// Newlines, a header, HTML, a Fluent placeable and marks that reverse the direction of text.
const HOSTILE: &str =
    "ann\r\nBcc: eve@example.org\r\n\r\n<b>{ $owner }</b>\u{202e}\u{2066}\u{200f}";

fn all(owner: &Owner) -> Vec<Email> {
    let recovery = Recovery {
        id: RecoveryId::random(),
        account: AccountId::random(),
        written: RecoveryStage::Waiting,
        code: RecoveryCode::Confirmed,
        codes_key: 1.try_into().unwrap(),
        moves_to: Some(8.try_into().unwrap()),
        requested_at: AT,
        ready_at: AT.plus(std::time::Duration::from_secs(3_600)),
        expires_at: AT.plus(std::time::Duration::from_secs(7_200)),
        version: 1,
    };
    let code = || OneTimeCode::from_bits(12_345_678);
    let plain = OF_OWNER_AND_TIME.iter().map(|email| email(owner, AT));
    let security = SecurityEvent::ALL.iter().map(|event| security_event(*event, owner, AT));
    let others = [
        recovery_requested(owner, &recovery, Some((code(), AT)), AT, LINK),
        recovery_requested(owner, &recovery, None, AT, LINK),
        recovery_confirmed(owner, &recovery, AT, LINK),
        recovery_ready(owner, &recovery, AT, LINK),
        move_requested(owner, &recovery, AT, LINK),
        move_ready(owner, &recovery, AT, LINK),
        email_code(owner, &code(), AT),
    ];
    plain.chain(security).chain(others).collect()
}

#[test]
fn no_value_reaches_a_header_and_no_placeholder_is_left() {
    let owner = Owner::new(Some(HOSTILE), TelegramId::try_from(7).unwrap(), FREEZE.to_owned());
    assert_eq!(owner.to_string(), "@annBcceveexampleorgbownerb (Telegram user 7)");
    for email in all(&owner) {
        let text = format!("{}\n{}", email.subject, email.body);
        assert!(
            !text.contains(['{', '}', '$', '<', '\r', '\u{202e}', '\u{2066}', '\u{2068}']),
            "{text}"
        );
        assert!(!email.subject.contains(['\n', '@']), "{text}");
        assert!(email.body.contains(&owner.to_string()), "{text}");
        assert!(email.body.contains("2026, "), "it names a time: {text}");
        let from = "Wallet <wallet@example.org>".parse().unwrap();
        let sent =
            message(from, "ann@example.org", email).unwrap_or_else(|error| panic!("{error}"));
        let sent = String::from_utf8(sent.formatted()).unwrap();
        let headers = sent.split("\r\n\r\n").next().unwrap();
        let names: Vec<_> = headers
            .lines()
            .filter(|line| !line.starts_with([' ', '\t']))
            .map(|line| line.split(':').next().unwrap())
            .collect();
        for name in names {
            let known = ["From", "To", "Subject", "Date", "Content-Type", "MIME-Version"];
            let is_known = known.contains(&name) || name == "Content-Transfer-Encoding";
            assert!(is_known, "{headers}");
        }
    }
}

/// A new address is not its owner's before its code was confirmed.
#[test]
fn every_e_mail_but_the_code_of_a_new_address_has_the_link_that_freezes() {
    let owner = Owner::new(None, TelegramId::try_from(7).unwrap(), FREEZE.to_owned());
    let without: Vec<_> =
        all(&owner).into_iter().filter(|email| !email.body.contains(FREEZE)).collect();
    assert_eq!(without.len(), 1);
    assert!(without[0].subject.contains("Confirm your e-mail address"));
}

#[test]
fn an_address_with_a_second_header_is_refused() {
    let owner = Owner::new(None, TelegramId::try_from(7).unwrap(), FREEZE.to_owned());
    let email = security_event(SecurityEvent::PasswordChanged, &owner, AT);
    let from = "Wallet <wallet@example.org>".parse().unwrap();
    assert!(message(from, "ann@example.org\r\nBcc: eve@example.org", email).is_err());
}

macro_rules! message_ids {
    ($($(#[$about:meta])* $event:ident = $text:literal, $id:literal, $remedy:ident;)+) => {
        [$($id),+]
    };
}

#[test]
fn every_message_of_the_file_is_used() {
    let source = include_str!("../emails.rs");
    let security = kms_types::with_security_events!(message_ids);
    let ids = Embedded::MESSAGES.lines().filter_map(|line| line.split_once(" ="));
    let ids: Vec<_> = ids
        .map(|(id, _)| id)
        .filter(|id| id.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    assert!(ids.len() > 20);
    for id in ids {
        let is_used = source.contains(&format!("\"{id}\"")) || security.contains(&id);
        assert!(is_used, "{id}");
    }
}
