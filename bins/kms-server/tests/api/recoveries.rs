//! Recoveries with their notifications, e-mail addresses, and the operator's pause.

use std::time::{Duration, Instant};

use kms_client::ClientError;
use kms_testkit::{Mail, Mailbox};
use kms_types::wire::{
    ChangeEmail, ChangeMobile, ChangePassword, CompleteRecovery, ConfirmCode, EventBody, ExportKey,
    LimitAmount, Recovery, RecoveryState, RequestRecovery, SetLimit,
};
use kms_types::{Asset, ErrorCode, OneTimeCode, RecoveryId, RecoveryStep, SecurityEvent};

use kms_server::Secret;
use kms_server::config::MailSettings;
use kms_server_testing::commands::{fails, succeeds};
use kms_server_testing::requests::{hash, recover, telegram};
use kms_server_testing::{Stores, TestEnv, TestServer, on_both_stores};

pub(crate) const ADDRESS: &str = "ann@example.org";
const BOTH: [Stores; 2] = [Stores::Embedded, Stores::Servers];

on_both_stores!(
    a_recovery_waits_and_is_cancelled_without_a_password,
    too_many_recoveries_pause_all,
    a_paused_recovery_does_not_count_against_its_owner,
);

/// An environment with e-mail, and with recoveries short enough for a test.
pub(crate) fn with_mail(stores: Stores) -> (TestEnv, Mailbox) {
    let mut env = TestEnv::new(stores).unwrap();
    let mailbox = Mailbox::start().unwrap();
    env.mail = Some(MailSettings {
        url: Secret::from(mailbox.url()).try_into().unwrap(),
        from: "Wallet <wallet@example.org>".to_owned(),
        public_url: "https://kms.example.org".to_owned().try_into().unwrap(),
    });
    env.recovery.sends_codes = true;
    env.recovery.wait_with_code = Duration::from_millis(500);
    (env, mailbox)
}

/// The e-mails to Ann, as soon as there are this many.
pub(crate) async fn mails(mailbox: &Mailbox, count: usize) -> Vec<Mail> {
    mails_to(mailbox, ADDRESS, count).await
}

pub(crate) async fn mails_to(mailbox: &Mailbox, address: &str, count: usize) -> Vec<Mail> {
    for _ in 0..1_200 {
        let mails = mailbox.mails_to(address);
        if mails.len() >= count {
            assert_eq!(mails.len(), count, "{mails:#?}");
            return mails;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("there were never {count} e-mails: {:#?}", mailbox.mails_to(address));
}

/// Which e-mail it is: the Fluent id of its subject.
pub(crate) fn kind(mail: &Mail) -> &'static str {
    let mut id = "";
    for line in include_str!("../../i18n/en/kms-server.ftl").lines() {
        let Some((name, text)) = line.split_once(" =") else { continue };
        if !name.starts_with(' ') {
            id = name;
        }
        if text.trim() == mail.subject && name.ends_with("subject") {
            return id.trim_end_matches("-subject");
        }
    }
    panic!("no such e-mail: {mail:?}");
}

pub(crate) fn code(mail: &Mail) -> ConfirmCode {
    ConfirmCode { code: find_code(mail).unwrap().parse().unwrap() }
}

/// The code of an e-mail, on an indented line.
fn find_code(mail: &Mail) -> Option<&str> {
    mail.body.lines().find_map(|line| line.strip_prefix("    "))
}

pub(crate) fn wrong(right: &ConfirmCode) -> ConfirmCode {
    let digits: u64 = right.code.expose().parse().unwrap();
    ConfirmCode { code: OneTimeCode::from_bits(digits + 1) }
}

pub(crate) fn link(mail: &Mail) -> String {
    let link = mail.body.lines().find_map(|line| line.strip_prefix("https://kms.example.org"));
    link.unwrap().to_owned()
}

fn new_email(words: &str) -> ChangeEmail {
    ChangeEmail { email: Some(ADDRESS.parse().unwrap()), password_hash: hash(words) }
}

pub(crate) fn failed<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Option<ErrorCode> {
    result.unwrap_err().code()
}

pub(crate) async fn request(test: &TestServer) -> Result<Recovery, ClientError> {
    let id = RecoveryId::random();
    test.client.request_recovery(telegram(1), &RequestRecovery { id }).await
}

pub(crate) async fn complete(test: &TestServer, id: RecoveryId) -> Result<Recovery, ClientError> {
    let body = CompleteRecovery { new_password_hash: hash("new") };
    test.client.complete_recovery(telegram(1), id, &body).await
}

/// Creates Ann's account and confirms her e-mail address.
pub(crate) async fn ann_with_email(test: &TestServer, mailbox: &Mailbox) {
    test.onboard(1, "ann", "forgotten").await;
    test.client.change_email(telegram(1), &new_email("forgotten")).await.unwrap();
    let sent = mails(mailbox, 1).await;
    assert_eq!(test.client.account(telegram(1)).await.unwrap().unwrap().email, None);
    test.client.confirm_email(telegram(1), &code(&sent[0])).await.unwrap();
    let ann = test.client.account(telegram(1)).await.unwrap().unwrap();
    assert_eq!(ann.email.as_deref(), Some("a…@example.org"));
    assert!(ann.email_verified_at.is_some());
    assert_eq!(kind(&mails(mailbox, 2).await[1]), "email-confirmed");
}

#[actix_web::test]
async fn a_raised_limit_is_notified_by_e_mail() {
    let (env, mailbox) = with_mail(Stores::Embedded);
    let test = TestServer::start(env).await;
    ann_with_email(&test, &mailbox).await;
    for amount in ["1", "2"] {
        let amount = LimitAmount::try_from(amount.to_owned()).unwrap();
        let body = SetLimit { asset: Asset::Native, chain_id: None, amount };
        test.client.set_limit(telegram(1), &body).await.unwrap();
    }
    let mail = mails(&mailbox, 3).await.pop().unwrap();
    assert_eq!(kind(&mail), "notice-limit-raise-requested");
    let event = test.events(4).await.pop().unwrap();
    let raised = EventBody::Security { kind: SecurityEvent::LimitRaiseRequested };
    assert_eq!(event.what, raised);
}

#[actix_web::test]
async fn a_code_shortens_the_wait_and_every_step_is_notified() {
    for stores in BOTH {
        let (mut env, mailbox) = with_mail(stores);
        env.recovery.wait_with_code = Duration::from_secs(10);
        let test = TestServer::start(env).await;
        ann_with_email(&test, &mailbox).await;
        let asked = request(&test).await.unwrap();
        assert_eq!(asked.state, RecoveryState::CodeSent);
        assert_eq!(asked.code_sent_to.as_deref(), Some("a…@example.org"));
        let week = Duration::from_secs(7 * 24 * 3_600);
        assert_eq!(asked.ready_at, asked.requested_at.plus(week));
        let mail = mails(&mailbox, 3).await.pop().unwrap();
        let right = code(&mail);
        let confirm = async |code: &ConfirmCode| {
            test.client.confirm_recovery(telegram(1), asked.id, code).await
        };
        assert_eq!(failed(confirm(&wrong(&right)).await), Some(ErrorCode::WrongCode));
        let confirmed = confirm(&right).await.unwrap();
        assert_eq!(confirmed.state, RecoveryState::Waiting);
        assert_eq!(failed(confirm(&right).await), Some(ErrorCode::CodeExpired));
        let early = complete(&test, asked.id).await.unwrap_err();
        assert_eq!(early.code(), Some(ErrorCode::RecoveryNotReady));
        let ClientError::Problem(problem) = early else { panic!("{early}") };
        assert!(problem.status == 409 && problem.retry_after.unwrap() <= 10, "{problem:?}");
        // The owner is notified when the recovery is ready.
        assert_eq!(kind(&mails(&mailbox, 5).await[4]), "recovery-ready");
        complete(&test, asked.id).await.unwrap();
        test.onboard(1, "ann", "new").await;
        let sent = mails(&mailbox, 6).await;
        assert_eq!(kind(&sent[5]), "recovery-completed");
        // The same steps are events for Telegram.
        let events = test.events(7).await;
        let steps = events.iter().filter_map(|event| match &event.what {
            EventBody::Recovery { kind, recovery } => {
                assert_eq!(recovery.id, asked.id);
                Some(*kind)
            }
            _ => None,
        });
        use RecoveryStep::{CodeConfirmed, Completed, Ready, Requested};
        assert_eq!(steps.collect::<Vec<_>>(), [Requested, CodeConfirmed, Ready, Completed]);
        // A thief who has just recovered the wallet cannot change its contacts for some time.
        let change = test.client.change_email(telegram(1), &new_email("new")).await;
        let ClientError::Problem(problem) = change.unwrap_err() else { panic!("no problem") };
        assert_eq!((problem.code, problem.status), (ErrorCode::OnHold, 403));
        assert!((500..=600).contains(&problem.retry_after.unwrap()), "{problem:?}");
        let mobile = ChangeMobile { mobile: None };
        let mobile = test.client.change_mobile(telegram(1), &mobile).await;
        assert_eq!(failed(mobile), Some(ErrorCode::OnHold));
    }
}

async fn a_recovery_waits_and_is_cancelled_without_a_password(mut test: TestServer) {
    test.env.recovery.wait_without_email = Duration::from_secs(48 * 3_600);
    let test = test.restart().await;
    test.onboard(1, "ann", "known").await;
    assert_eq!(test.client.recovery(telegram(1)).await.unwrap(), None);
    let asked = request(&test).await.unwrap();
    assert_eq!(asked.state, RecoveryState::Waiting);
    let again = RequestRecovery { id: asked.id };
    assert_eq!(test.client.request_recovery(telegram(1), &again).await.unwrap(), asked);
    assert_eq!(test.client.recovery(telegram(1)).await.unwrap(), Some(asked.clone()));
    assert_eq!(failed(request(&test).await), Some(ErrorCode::RecoveryOpen));
    assert_eq!(failed(complete(&test, asked.id).await), Some(ErrorCode::RecoveryNotReady));
    // Another account cannot act on Ann's recovery.
    test.onboard(2, "bob", "bob's").await;
    let bobs = test.client.cancel_recovery(telegram(2), asked.id).await;
    assert_eq!(failed(bobs), Some(ErrorCode::NoSuchRecovery));
    // A restart neither ends the recovery nor shortens its wait.
    let test = test.restart().await;
    assert_eq!(test.client.recovery(telegram(1)).await.unwrap(), Some(asked.clone()));
    for _ in 0..2 {
        let cancelled = test.client.cancel_recovery(telegram(1), asked.id).await.unwrap();
        assert_eq!(cancelled.state, RecoveryState::Cancelled);
    }
    assert_eq!(failed(complete(&test, asked.id).await), Some(ErrorCode::WrongState));
    assert_eq!(test.client.recovery(telegram(1)).await.unwrap(), None);
    // A correct password cancels too.
    let asked = request(&test).await.unwrap();
    test.onboard(1, "ann", "known").await;
    assert_eq!(failed(complete(&test, asked.id).await), Some(ErrorCode::WrongState));
    // Three a day, cancelled or not.
    request(&test).await.unwrap();
    test.onboard(1, "ann", "known").await;
    assert_eq!(failed(request(&test).await), Some(ErrorCode::RateLimited));
}

async fn too_many_recoveries_pause_all(mut test: TestServer) {
    test.env.limits.all_recoveries = "2/hour".parse().unwrap();
    let test = test.restart().await;
    for id in 1..=3 {
        test.onboard(id, &format!("name{id}"), "known").await;
    }
    recover(&test.client, 1, "new").await.unwrap();
    recover(&test.client, 2, "new").await.unwrap();
    let ClientError::Problem(stopped) = recover(&test.client, 3, "new").await.unwrap_err() else {
        panic!("no problem")
    };
    assert_eq!((stopped.code, stopped.status), (ErrorCode::RecoveriesPaused, 503));
    assert!((1_700..=1_800).contains(&stopped.retry_after.unwrap()), "{stopped:?}");
    let rows = test.database.audit_after(0, 100).await.unwrap();
    assert!(rows.iter().any(|row| row.outcome.as_deref() == Some("recovery_breaker")));
}

async fn a_paused_recovery_does_not_count_against_its_owner(mut test: TestServer) {
    test.env.limits.all_recoveries = "1/hour".parse().unwrap();
    let test = test.restart().await;
    test.onboard(1, "ann", "known").await;
    test.onboard(2, "bob", "known").await;
    recover(&test.client, 2, "new").await.unwrap();
    // More often than her own limit of three a day.
    for _ in 0..4 {
        assert_eq!(failed(request(&test).await), Some(ErrorCode::RecoveriesPaused));
    }
}

#[actix_web::test]
async fn the_link_in_an_e_mail_cancels_only_by_its_button() {
    let (env, mailbox) = with_mail(Stores::Embedded);
    let test = TestServer::start(env).await;
    ann_with_email(&test, &mailbox).await;
    let asked = request(&test).await.unwrap();
    let link = test.page_url(&link(&mails(&mailbox, 3).await[2]));
    let http = test.raw();
    for _ in 0..2 {
        let page = http.get(&link).send().await.unwrap();
        assert_eq!(page.headers()["cache-control"], "no-store");
        assert_eq!(page.headers()["referrer-policy"], "no-referrer");
        let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(page.text().await.unwrap().contains("<form method=\"post\">"));
    }
    assert!(test.client.recovery(telegram(1)).await.unwrap().is_some());
    // A link to another recovery, a truncated one and a guessed one do nothing.
    let other = link.replace(&asked.id.to_string(), &RecoveryId::random().to_string());
    let last = if link.ends_with('0') { "1" } else { "0" };
    let guessed = format!("{}{last}", &link[..link.len() - 1]);
    for bad in [other, link[..link.len() - 2].to_owned(), guessed, format!("{link}00")] {
        assert_eq!(http.post(&bad).send().await.unwrap().status(), 404, "{bad}");
    }
    assert!(test.client.recovery(telegram(1)).await.unwrap().is_some());
    for _ in 0..2 {
        let page = http.post(&link).send().await.unwrap();
        assert_eq!(page.status(), 200);
        assert!(!page.text().await.unwrap().contains("<form"));
    }
    assert_eq!(test.client.recovery(telegram(1)).await.unwrap(), None);
    assert_eq!(kind(&mails(&mailbox, 4).await[3]), "recovery-cancelled");
    // The cancelled recovery does not block a new one.
    let asked = request(&test).await.unwrap();
    assert_eq!(failed(complete(&test, asked.id).await), Some(ErrorCode::RecoveryNotReady));
}

#[actix_web::test]
async fn an_address_requires_the_password_and_the_code_sent_to_it() {
    let (env, mailbox) = with_mail(Stores::Embedded);
    let test = TestServer::start(env).await;
    test.onboard(1, "ann", "known").await;
    let change = async |body: ChangeEmail| test.client.change_email(telegram(1), &body).await;
    // A wrong password does not count against the limit of three codes a day.
    for _ in 0..3 {
        assert_eq!(failed(change(new_email("guess")).await), Some(ErrorCode::WrongPassword));
    }
    change(new_email("known")).await.unwrap();
    let right = code(&mails(&mailbox, 1).await[0]);
    let confirm = async |code: &ConfirmCode| test.client.confirm_email(telegram(1), code).await;
    for _ in 0..5 {
        assert_eq!(failed(confirm(&wrong(&right)).await), Some(ErrorCode::WrongCode));
    }
    assert_eq!(failed(confirm(&right).await), Some(ErrorCode::CodeExpired));
    // A new code replaces the one before.
    change(new_email("known")).await.unwrap();
    let newer = code(&mails(&mailbox, 2).await[1]);
    assert_ne!(newer.code.expose(), right.code.expose());
    assert_eq!(failed(confirm(&right).await), Some(ErrorCode::WrongCode));
    confirm(&newer).await.unwrap();
    mails(&mailbox, 3).await;
    // The old address is notified of the request for a new one.
    change(new_email("known")).await.unwrap();
    mails(&mailbox, 5).await;
    let other =
        ChangeEmail { email: Some("eve@example.org".parse().unwrap()), ..new_email("known") };
    assert_eq!(failed(change(other).await), Some(ErrorCode::RateLimited));
    change(ChangeEmail { email: None, ..new_email("known") }).await.unwrap();
    assert_eq!(test.client.account(telegram(1)).await.unwrap().unwrap().email, None);
    assert_eq!(kind(&mails(&mailbox, 6).await[5]), "email-removed");
    let mobile = ChangeMobile { mobile: Some("+4915112345678".parse().unwrap()) };
    test.client.change_mobile(telegram(1), &mobile).await.unwrap();
    let ann = test.client.account(telegram(1)).await.unwrap().unwrap();
    assert_eq!(ann.mobile.as_deref(), Some("+…78"));
}

#[actix_web::test]
async fn without_a_mail_server_no_address_can_be_added() {
    let test = TestServer::start(TestEnv::new(Stores::Embedded).unwrap()).await;
    test.onboard(1, "ann", "known").await;
    let refused = test.client.change_email(telegram(1), &new_email("known")).await;
    assert_eq!(failed(refused), Some(ErrorCode::NoMail));
}

#[actix_web::test]
async fn an_export_is_notified_by_e_mail() {
    let (env, mailbox) = with_mail(Stores::Embedded);
    let test = TestServer::start(env).await;
    ann_with_email(&test, &mailbox).await;
    let body = ExportKey { password_hash: hash("forgotten") };
    test.client.export(telegram(1), &body).await.unwrap();
    let mail = mails(&mailbox, 3).await.remove(2);
    assert_eq!(kind(&mail), "notice-key-exported");
}

/// An event stores the address to notify: the old address is notified of its replacement, and a
/// code is never sent to an address that was added later.
#[actix_web::test]
async fn codes_go_to_the_address_at_the_time_of_the_request() {
    let (mut env, mailbox) = with_mail(Stores::Embedded);
    env.recovery.email_trusted_after = Duration::from_secs(1);
    let test = TestServer::start(env).await;
    ann_with_email(&test, &mailbox).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let eves =
        ChangeEmail { email: Some("eve@example.org".parse().unwrap()), ..new_email("forgotten") };
    test.client.change_email(telegram(1), &eves).await.unwrap();
    assert_eq!(kind(&mails(&mailbox, 3).await[2]), "email-change-requested");
    let code_for_eve = code(&mails_to(&mailbox, "eve@example.org", 1).await[0]);
    mailbox.set_down(true);
    let asked = request(&test).await.unwrap();
    assert_eq!(asked.state, RecoveryState::CodeSent);
    test.client.confirm_email(telegram(1), &code_for_eve).await.unwrap();
    mailbox.set_down(false);
    // The new address is not trusted yet: the code goes to the one before, beside the notice.
    let sent = mails(&mailbox, 5).await;
    for subject in ["Another address receives", "Password reset requested"] {
        assert!(sent.iter().any(|mail| mail.subject.contains(subject)), "{sent:#?}");
    }
    mails_to(&mailbox, "eve@example.org", 3).await;
    let eves = mailbox.mails_to("eve@example.org");
    let has_code = |mail: &Mail| mail.body.lines().any(|line| line.starts_with("    "));
    assert!(has_code(&eves[0]) && !eves[1..].iter().any(has_code), "{eves:#?}");
    // A change of password voids the requests that were made with the old one.
    let body =
        ChangePassword { old_password_hash: hash("forgotten"), new_password_hash: hash("changed") };
    test.client.change_email(telegram(1), &new_email("forgotten")).await.unwrap();
    test.client.change_password(telegram(1), &body).await.unwrap();
    let late = test.client.confirm_email(telegram(1), &code_for_eve).await;
    assert_eq!(failed(late), Some(ErrorCode::CodeExpired));
}

#[actix_web::test]
async fn a_tampered_row_does_not_delay_the_e_mail_of_others() {
    let (env, mailbox) = with_mail(Stores::Servers);
    let test = TestServer::start(env).await;
    test.onboard(2, "eve", "known").await;
    mailbox.set_down(true);
    let eves =
        ChangeEmail { email: Some("eve@example.org".parse().unwrap()), ..new_email("known") };
    test.client.change_email(telegram(2), &eves).await.unwrap();
    test.env.sql("update accounts set state = 'frozen' where telegram_id = 2").unwrap();
    test.onboard(1, "ann", "known").await;
    test.client.change_email(telegram(1), &new_email("known")).await.unwrap();
    mailbox.set_down(false);
    mails(&mailbox, 1).await;
    assert!(mailbox.mails_to("eve@example.org").is_empty());
}

/// An outage of the mail server loses no e-mail, and a refused address does not delay others.
#[actix_web::test]
async fn e_mail_survives_an_outage_of_the_mail_server() {
    let (env, mailbox) = with_mail(Stores::Embedded);
    let test = TestServer::start(env).await;
    mailbox.set_down(true);
    test.onboard(1, "ann", "known").await;
    test.onboard(2, "eve", "known").await;
    mailbox.refuse("eve@example.org");
    let eves =
        ChangeEmail { email: Some("eve@example.org".parse().unwrap()), ..new_email("known") };
    test.client.change_email(telegram(2), &eves).await.unwrap();
    test.client.change_email(telegram(1), &new_email("known")).await.unwrap();
    let test = test.restart().await;
    mailbox.set_down(false);
    let sent = mails(&mailbox, 1).await;
    test.client.confirm_email(telegram(1), &code(&sent[0])).await.unwrap();
    assert!(mailbox.mails_to("eve@example.org").is_empty());
}

/// A server that stops completes the e-mail that it is sending, not all that follow: with a slow
/// mail server these would take longer than the stop may.
#[actix_web::test]
async fn a_stop_does_not_wait_for_every_e_mail() {
    let (mut env, mailbox) = with_mail(Stores::Embedded);
    env.limits.password_changes = "100/day".parse().unwrap();
    let test = TestServer::start(env).await;
    ann_with_email(&test, &mailbox).await;
    mailbox.set_down(true);
    for change in ["forgotten", "b", "c", "d", "e", "f"].windows(2) {
        let body = ChangePassword {
            old_password_hash: hash(change[0]),
            new_password_hash: hash(change[1]),
        };
        test.client.change_password(telegram(1), &body).await.unwrap();
    }
    mailbox.set_delay(Duration::from_secs(2));
    mailbox.set_down(false);
    mails(&mailbox, 3).await;
    test.server.stop_within(Duration::from_secs(9)).await.unwrap();
    assert!(mailbox.mails_to(ADDRESS).len() < 7);
    let lease = test.database.acquire_lease("mail", "another server", Duration::from_secs(60));
    assert!(lease.await.unwrap(), "the lease is released");
}

#[actix_web::test]
async fn one_of_several_servers_sends_an_e_mail() {
    let (env, mailbox) = with_mail(Stores::Servers);
    let settings: Vec<_> = (0..3).map(|_| env.settings().unwrap()).collect();
    let test = TestServer::start(env).await;
    let mut servers = Vec::new();
    for settings in settings {
        servers.push(kms_server::Server::start(settings).await.unwrap());
    }
    ann_with_email(&test, &mailbox).await;
    request(&test).await.unwrap();
    mails(&mailbox, 3).await;
    test.onboard(1, "ann", "forgotten").await;
    mails(&mailbox, 4).await;
    for server in servers {
        server.stop().await.unwrap();
    }
    assert_eq!(mailbox.mails().len(), 4);
}

#[actix_web::test]
async fn an_operator_lists_pauses_and_cancels_recoveries() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    let test = TestServer::start(env).await;
    test.onboard(1, "ann", "known").await;
    let run = |arguments: &str| succeeds(&test.env, &format!("recoveries {arguments}"));
    let asked = request(&test).await.unwrap();
    let listed = run("list");
    assert!(listed.contains(&format!("{}\t{}\tready", asked.id, asked.account)), "{listed}");
    assert_eq!(run("pause"), "paused\n");
    assert_eq!(run("list").lines().count(), listed.lines().count() + 1);
    assert_eq!(failed(complete(&test, asked.id).await), Some(ErrorCode::RecoveriesPaused));
    assert_eq!(run(&format!("cancel {}", asked.id)), "1 cancelled\n");
    assert_eq!(failed(request(&test).await), Some(ErrorCode::RecoveriesPaused));
    assert_eq!(run("resume --reason ticket-9"), "resumed\n");
    insta::assert_snapshot!(
        "recoveries_not_paused",
        fails(&test.env, "recoveries resume --reason ticket-9")
    );
    let asked = request(&test).await.unwrap();
    complete(&test, asked.id).await.unwrap();
    let rows = test.database.audit_after(0, 100).await.unwrap();
    for action in ["recoveries_pause", "recoveries_resume", "cancel_recovery", "recover"] {
        let count = rows.iter().filter(|row| row.action == action).count();
        assert!(count >= 2, "{action}: {count}");
    }
}

/// One user who causes e-mails without end does not delay the code of another one.
#[actix_web::test]
async fn a_code_does_not_wait_for_the_reports_of_others() {
    let (mut env, mailbox) = with_mail(Stores::Servers);
    (env.limits.password_changes, env.limits.emails) =
        ("100/day".parse().unwrap(), "100/day".parse().unwrap());
    let test = TestServer::start(env).await;
    ann_with_email(&test, &mailbox).await;
    test.onboard(2, "eve", "0").await;
    let eves = "eve@example.org";
    let email = ChangeEmail { email: Some(eves.parse().unwrap()), password_hash: hash("0") };
    test.client.change_email(telegram(2), &email).await.unwrap();
    let sent = mails_to(&mailbox, eves, 1).await;
    test.client.confirm_email(telegram(2), &code(&sent[0])).await.unwrap();
    mails_to(&mailbox, eves, 2).await;
    mailbox.set_delay(Duration::from_secs(1));
    for n in 0..30 {
        let (old, new) = (hash(&n.to_string()), hash(&(n + 1).to_string()));
        let body = ChangePassword { old_password_hash: old, new_password_hash: new };
        test.client.change_password(telegram(2), &body).await.unwrap();
    }
    let asked = Instant::now();
    request(&test).await.unwrap();
    let sent = mails(&mailbox, 3).await;
    assert!(asked.elapsed().as_secs() < 20, "her reports would take half a minute");
    assert_eq!(code(&sent[2]).code.expose().len(), 8);
    // Later reports replace earlier ones that were not sent yet.
    let reports = mailbox.mails_to(eves).len() - 2;
    assert!(reports < 30, "{reports}");
}

/// Password changes and reports are limited; what is still open is sent all the same.
#[actix_web::test]
async fn reports_are_limited_and_codes_are_not() {
    let (mut env, mailbox) = with_mail(Stores::Embedded);
    env.limits.emails = "3/day".parse().unwrap();
    env.limits.password_changes = "3/day".parse().unwrap();
    env.limits.codes_to_an_address = "1/day".parse().unwrap();
    let test = TestServer::start(env).await;
    // One report: the address is confirmed.
    ann_with_email(&test, &mailbox).await;
    let change = async |old: &str, new: &str| {
        let body = ChangePassword { old_password_hash: hash(old), new_password_hash: hash(new) };
        test.client.change_password(telegram(1), &body).await
    };
    change("forgotten", "a").await.unwrap();
    mails(&mailbox, 3).await;
    change("a", "b").await.unwrap();
    mails(&mailbox, 4).await;
    change("b", "c").await.unwrap();
    // A wrong password does not count.
    assert_eq!(failed(change("guess", "d").await), Some(ErrorCode::WrongPassword));
    assert_eq!(failed(change("c", "d").await), Some(ErrorCode::RateLimited));
    // The address is another account's as well.
    test.onboard(2, "eve", "forgotten").await;
    let refused = test.client.change_email(telegram(2), &new_email("forgotten")).await;
    assert_eq!(failed(refused), Some(ErrorCode::RateLimited));
    request(&test).await.unwrap();
    let sent = mails(&mailbox, 5).await;
    assert_eq!(code(&sent[4]).code.expose().len(), 8);
}

/// A thief with chat and password changes the address first: the wait does not become shorter, and
/// the address before keeps its code and its veto.
#[actix_web::test]
async fn a_changed_address_leaves_the_one_before_its_code_and_its_veto() {
    for removes in [false, true] {
        let (mut env, mailbox) = with_mail(Stores::Embedded);
        env.recovery.email_trusted_after = Duration::from_secs(8);
        let long = env.recovery.wait_without_code;
        let test = TestServer::start(env).await;
        ann_with_email(&test, &mailbox).await;
        tokio::time::sleep(Duration::from_secs(8)).await;
        let eve = "eve@example.org";
        let email = (!removes).then(|| eve.parse().unwrap());
        let change = ChangeEmail { email, ..new_email("forgotten") };
        test.client.change_email(telegram(1), &change).await.unwrap();
        let notices = if removes {
            3
        } else {
            let right = code(&mails_to(&mailbox, eve, 1).await[0]);
            test.client.confirm_email(telegram(1), &right).await.unwrap();
            4
        };
        let asked = request(&test).await.unwrap();
        assert_eq!(asked.state, RecoveryState::CodeSent);
        assert_eq!(asked.ready_at, asked.requested_at.plus(long));
        assert_eq!(asked.code_sent_to.as_deref(), Some("a…@example.org"));
        let mut sent = mails(&mailbox, notices + 1).await.into_iter();
        let sent = sent.rfind(|mail| kind(mail) == "recovery-requested").unwrap();
        assert_eq!(code(&sent).code.expose().len(), 8);
        if !removes {
            let mut eves = mails_to(&mailbox, eve, 3).await.into_iter();
            let eves = eves.find(|mail| kind(mail) == "recovery-requested").unwrap();
            assert_eq!(find_code(&eves), None, "{eves:?}");
        }
        let page = test.raw().post(test.page_url(&link(&sent))).send().await.unwrap();
        assert_eq!(page.status(), 200);
        assert_eq!(test.client.recovery(telegram(1)).await.unwrap(), None);
    }
}
