//! Moving a wallet to another Telegram account: two persons, the longest wait, the owner who stops
//! it, and the KMS key; crash-safe at every write.

use std::time::Duration;

use kms_core::ports::{AccountStore, RecoveryStore};
use kms_core::recovery::Recovery;
use kms_server_testing::commands::{fails, kms_server, succeeds};
use kms_server_testing::requests::{hash, telegram};
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_store::Database;
use kms_types::wire::{
    AccountState, ChangePassword, CompleteRecovery, EventBody, RecoveryState, RequestRecovery,
};
use kms_types::{ErrorCode, RecoveryId, RecoveryStep, TelegramId, Timestamp};

use crate::recoveries::with_mail;
use crate::recoveries::{ann_with_email, code, complete, failed, kind, link, mails, request};
use crate::rollbacks::{keep_account, on_each_store, put_account_back};
use crate::runbooks::commands;

on_each_store!(
    a_wallet_moves_to_another_telegram_account,
    the_owner_stops_a_move,
    a_move_without_its_approval_is_refused,
    a_wallet_that_was_moved_is_not_put_back,
);

const NEW: i64 = 9;

fn change(words: &str) -> ChangePassword {
    ChangePassword { old_password_hash: hash(words), new_password_hash: hash("newer") }
}

fn approve(env: &TestEnv) -> String {
    succeeds(env, "account move propose --person ann --reason ticket-7 telegram:1 9");
    succeeds(env, "account move approve --person bob telegram:1 9")
}

/// The open move of the user's account.
async fn open_move(database: &Database, user: i64) -> Recovery {
    let user = TelegramId::try_from(user).unwrap();
    let account = database.account(user.into()).await.unwrap().unwrap().id;
    database.open_recovery(account).await.unwrap().unwrap()
}

/// Ends the wait, as time does.
async fn end_wait(test: &TestServer) -> Recovery {
    let open = open_move(&test.database, 1).await;
    let now = Timestamp(open.requested_at.0 + 1);
    let ready = Recovery { ready_at: now, version: open.version + 1, ..open };
    assert!(test.database.update_recovery(ready, None, now).await.unwrap());
    ready
}

/// The steps of which this user was notified, as soon as this is the last one.
async fn steps(test: &TestServer, user: i64, last: RecoveryStep) -> Vec<RecoveryStep> {
    let user = TelegramId::try_from(user).unwrap();
    let mut steps = Vec::new();
    for _ in 0..200 {
        let events = test.events(1).await.into_iter();
        let of_user = events.filter(|event| event.telegram_id == user);
        let each = of_user.filter_map(|event| match event.what {
            EventBody::Recovery { kind, .. } => Some(kind),
            _ => None,
        });
        steps = each.collect();
        if steps.last() == Some(&last) {
            return steps;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{last:?} is not the last of {steps:?}");
}

/// Executes the commands of the runbook.
async fn a_wallet_moves_to_another_telegram_account(stores: Stores) {
    let (env, mailbox) = with_mail(stores);
    let test = TestServer::start(env).await;
    ann_with_email(&test, &mailbox).await;
    test.onboard(2, "bob", "bob's").await;
    let ann = test.client.account(telegram(1)).await.unwrap().unwrap();
    let env = &test.env;
    let commands = commands("move.md", "The commands");
    let commands: Vec<_> = commands
        .iter()
        .map(|it| it.replace("$ACCOUNT", &ann.id.to_string()).replace("$NEW_ID", "9"))
        .map(|it| it.strip_prefix("kms-server ").unwrap().to_owned())
        .collect();
    let [propose, approve, list, finish] = commands.as_slice() else { panic!("{commands:?}") };

    let taken = fails(env, &propose.replace(" 9", " 2"));
    assert!(taken.contains("has a wallet already"), "{taken}");
    assert!(fails(env, approve).contains("no move of this account is proposed"));
    succeeds(env, propose);
    let same = approve.replace("bob", "Ann");
    assert!(fails(env, &same).contains("the same person"));
    assert!(fails(env, &approve.replace(" 9", " 8")).contains("not those that were proposed"));
    succeeds(env, "recoveries pause");
    assert!(fails(env, approve).contains("recoveries are paused"));
    succeeds(env, "recoveries resume --reason ticket-8");
    assert!(fails(env, finish).contains("no move of this account"));
    succeeds(env, approve);

    // Both channels, a week, and neither a code nor a password of the old chat's choice.
    let sent = mails(&mailbox, 3).await;
    assert_eq!(kind(&sent[2]), "move-requested");
    assert!(sent[2].body.contains("Telegram user 9."), "{}", sent[2].body);
    let shown = test.client.recovery(telegram(1)).await.unwrap().unwrap();
    assert_eq!((shown.state, shown.moves_to), (RecoveryState::Waiting, NEW.try_into().ok()));
    let week = i64::from(7 * 24 * 3_600_i32) * 1_000;
    assert_eq!(shown.ready_at.0 - shown.requested_at.0, week);
    assert_eq!(failed(request(&test).await), Some(ErrorCode::RecoveryOpen));
    assert_eq!(failed(complete(&test, shown.id).await), Some(ErrorCode::NoSuchRecovery));
    assert!(fails(env, finish).contains("the wait of the recovery is not over"));
    assert!(succeeds(env, list).contains("moves to telegram:9"));
    end_wait(&test).await;
    assert_eq!(kind(&mails(&mailbox, 4).await[3]), "move-ready");
    assert_eq!(failed(complete(&test, shown.id).await), Some(ErrorCode::NoSuchRecovery));
    assert!(fails(env, &finish.replace(" 9", " 8")).contains("no move of this account"));

    // Killed before and after the one write.
    for (failpoint, ends) in [("move-before-commit", false), ("move-after-commit", true)] {
        let died = kms_server(env, finish).env("KMS_FAILPOINT", failpoint).output();
        assert_eq!(died.unwrap().status.code(), None, "{failpoint}");
        assert_eq!(test.client.account(telegram(1)).await.unwrap().is_none(), ends, "{failpoint}");
    }
    assert!(succeeds(env, finish).contains("moved before"));
    let moved = test.client.account(telegram(NEW)).await.unwrap().unwrap();
    assert_eq!((moved.id, moved.address), (ann.id, ann.address));
    assert_eq!(kind(&mails(&mailbox, 5).await[4]), "moved");
    use RecoveryStep::{MoveReady, MoveRequested, Moved};
    // They are of the old chat, also those that were not read before the move.
    assert_eq!(steps(&test, 1, Moved).await, [MoveRequested, MoveReady, Moved]);

    // No password opens it, not even the old one, until a recovery from there.
    let old = test.client.change_password(telegram(NEW), &change("forgotten")).await;
    assert_eq!(failed(old), Some(ErrorCode::WrongPassword));
    let id = RecoveryId::random();
    test.client.request_recovery(telegram(NEW), &RequestRecovery { id }).await.unwrap();
    let right = code(&mails(&mailbox, 6).await[5]);
    test.client.confirm_recovery(telegram(NEW), id, &right).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let body = CompleteRecovery { new_password_hash: hash("new") };
    test.client.complete_recovery(telegram(NEW), id, &body).await.unwrap();
    test.client.change_password(telegram(NEW), &change("new")).await.unwrap();
    // The old Telegram account may have a wallet of its own again.
    let other = test.onboard(1, "eve", "eve's").await;
    assert_ne!(other.address, ann.address);
    let audit = succeeds(env, &format!("audit show --account {}", ann.id));
    for part in ["\tpropose_move\t", "\trequest_move\t", "\tmove_account\t"] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    let named = "select count(distinct action) from audit where details like '%moves_to=9%' \
         and action in ('propose_move', 'request_move', 'move_account')";
    assert_eq!(env.sql(named).unwrap(), "3");
    assert!(audit.contains("account move approve by bob, proposed by ann: ticket-7"), "{audit}");
    succeeds(env, "audit verify --against-state --without-checkpoints");
    succeeds(env, "keys verify --decrypt");
}

/// By the button in the old chat, the link in the e-mail, a correct password, or a freeze.
async fn the_owner_stops_a_move(stores: Stores) {
    let (env, mailbox) = with_mail(stores);
    let test = TestServer::start(env).await;
    ann_with_email(&test, &mailbox).await;
    let (env, ann) = (&test.env, telegram(1));
    let finish = "account move finish --person ann telegram:1 9";
    for way in ["button", "link", "password", "freeze"] {
        let known = mailbox.mails_to(crate::recoveries::ADDRESS).len();
        approve(env);
        let asked = mails(&mailbox, known + 1).await.pop().unwrap();
        let id = end_wait(&test).await.id;
        mails(&mailbox, known + 2).await;
        match way {
            "button" => drop(test.client.cancel_recovery(ann, id).await.unwrap()),
            "link" => {
                let page = test.raw().post(test.page_url(&link(&asked))).send().await.unwrap();
                let page = page.text().await.unwrap();
                assert!(page.contains("your wallet stays where it is"), "{page}");
            }
            "password" => drop(test.onboard(1, "ann", "forgotten").await),
            _ => drop(test.client.freeze(ann).await.unwrap()),
        }
        assert!(fails(env, finish).contains("no move of this account"), "{way}");
        assert_eq!(
            test.database.recovery(id).await.unwrap().unwrap().written.as_str(),
            "cancelled"
        );
        let ended = if way == "freeze" { 4 } else { 3 };
        let sent = mails(&mailbox, known + ended).await;
        assert!(sent[known + 2..].iter().any(|mail| kind(mail) == "move-cancelled"), "{way}");
    }
    // A frozen account is moved as well, and stays frozen.
    approve(env);
    end_wait(&test).await;
    succeeds(env, finish);
    let moved = test.client.account(telegram(NEW)).await.unwrap().unwrap();
    assert_eq!(moved.state, AccountState::FrozenByOwner);
}

/// A row that was put back, or written with a stolen row key.
async fn a_move_without_its_approval_is_refused(stores: Stores) {
    let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
    test.onboard(1, "ann", "known").await;
    let env = &test.env;
    let finish = "account move finish --person ann telegram:1 9";
    approve(env);
    let ready = end_wait(&test).await;
    env.sql("create table kept as select stage, version, mac from recoveries").unwrap();
    test.client.cancel_recovery(telegram(1), ready.id).await.unwrap();
    env.sql(
        "update recoveries set stage = (select stage from kept), \
         version = (select version from kept), mac = (select mac from kept)",
    )
    .unwrap();
    let refused = fails(env, finish);
    assert!(refused.contains("an old copy of it was put back"), "{refused}");
    env.sql("update recoveries set stage = 'cancelled'").unwrap();

    let user = TelegramId::try_from(1).unwrap();
    let ann = test.database.account(user.into()).await.unwrap().unwrap();
    let (id, key) = (RecoveryId::random(), ready.codes_key);
    let to = TelegramId::try_from(NEW).unwrap();
    let forged = Recovery::request_move(id, &ann, to, &test.env.recovery, key, ready.requested_at);
    assert!(test.database.insert_recovery(forged).await.unwrap());
    end_wait(&test).await;
    let refused = fails(env, finish);
    assert!(refused.contains("the approval of the move is not in the audit"), "{refused}");
    assert!(test.client.account(telegram(1)).await.unwrap().is_some());
}

/// The old Telegram account and the old password, from an older copy of the rows.
async fn a_wallet_that_was_moved_is_not_put_back(stores: Stores) {
    let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
    test.onboard(1, "ann", "known").await;
    approve(&test.env);
    end_wait(&test).await;
    keep_account(&test);
    succeeds(&test.env, "account move finish --person ann telegram:1 9");
    put_account_back(&test);
    assert!(test.client.account(telegram(1)).await.unwrap().is_some());
    let opened = test.client.change_password(telegram(1), &change("known")).await;
    assert_eq!(failed(opened), Some(ErrorCode::Internal));
}
