//! Once an owner has used the vault page, no bearer token acts where a password, or a recovery, is
//! needed.

use kms_core::audit::{Action, Caller, Door};
use kms_core::{CreateWallet, Created, CustodyError, KdfParams};
use kms_types::{AccountId, AssetId, OneTimeCode, RecoveryId, TransferId};

use crate::world::{NOW, World, caller, hash, telegram};

const KDF: KdfParams = KdfParams::Argon2id { memory: 8 * 1024, passes: 1, lanes: 1 };

fn at(door: Door) -> Caller {
    Caller { door, ..caller() }
}

async fn create(world: &World, id: i64, door: Door) -> Result<Created, CustodyError> {
    let telegram_id = id.try_into().unwrap();
    let password = hash("ann's");
    let request = CreateWallet { telegram_id, password, names: None, mobile: None, email: None };
    world.custody.create(request, &at(door), NOW, || async { Ok(()) }).await
}

/// What each act that needs a password or a recovery answers, with the right password.
async fn acts(
    world: &World,
    id: i64,
    door: Door,
    recovery: RecoveryId,
) -> Vec<Result<(), CustodyError>> {
    let (custody, caller, ann) = (&world.custody, at(door), telegram(id));
    let admit = |_| async { Ok::<_, CustodyError>(()) };
    let words = || hash("ann's");
    let code: OneTimeCode = "12345678".parse().unwrap();
    let action = Action::Send(TransferId::random());
    let open = custody.with_wallet(ann, words(), action, &caller, NOW, |wallet| async move {
        drop(wallet);
        Ok::<_, CustodyError>(())
    });
    let limit = Action::ChangeLimit(AccountId::random(), AssetId::native(1));
    let done = async { Ok::<_, CustodyError>(()) };
    vec![
        create(world, id, door).await.map(drop),
        open.await,
        custody.with_password(ann, words(), limit, &caller, NOW, done).await,
        custody.change_password(ann, (words(), words()), &caller, NOW, admit).await,
        custody.export(ann, words(), &caller, NOW, admit).await.map(drop),
        custody.change_email(ann, None, words(), &caller, NOW, admit).await,
        custody.confirm_email(ann, &code, &caller, NOW).await,
        custody.request_unfreeze(ann, words(), &caller, NOW, admit).await.map(drop),
        custody.request_recovery(ann, recovery, &caller, NOW).await.map(drop),
        custody.confirm_recovery(ann, recovery, &code, &caller, NOW).await.map(drop),
        custody.complete_recovery(ann, recovery, hash("thief's"), &caller, NOW).await.map(drop),
    ]
}

fn needs_page<T>(done: &Result<T, CustodyError>) -> bool {
    matches!(done, Err(CustodyError::PageRequired))
}

#[tokio::test]
async fn the_first_act_on_the_page_ends_those_of_bearer_tokens() {
    let world = World::new(KDF).await;
    create(&world, 1, Door::Other).await.unwrap();
    let recovery = RecoveryId::random();
    for done in acts(&world, 1, Door::Other, recovery).await {
        assert!(!needs_page(&done), "{done:?}");
    }
    assert_eq!(world.account(1).await.page_only_since, None);
    // A wrong password on the page does not count.
    let admit = |_| async { Ok::<_, CustodyError>(()) };
    let page = at(Door::Page);
    create(&world, 2, Door::Other).await.unwrap();
    world.custody.export(telegram(2), hash("guess"), &page, NOW, admit).await.unwrap_err();
    assert_eq!(world.account(2).await.page_only_since, None);
    world.custody.export(telegram(2), hash("ann's"), &page, NOW, admit).await.unwrap();
    let recovery = RecoveryId::random();
    world.custody.request_recovery(telegram(2), recovery, &page, NOW).await.unwrap();
    let before = world.account(2).await;
    assert_eq!(before.page_only_since, Some(NOW));
    for (act, done) in acts(&world, 2, Door::Other, recovery).await.iter().enumerate() {
        assert!(needs_page(done), "act {act}: {done:?}");
    }
    assert_eq!(world.account(2).await, before);
    // The page goes on, and so do the owner's brakes by chat and by e-mail.
    for done in acts(&world, 2, Door::Page, recovery).await {
        assert!(!needs_page(&done), "{done:?}");
    }
    world.custody.freeze_by_owner(telegram(2), &at(Door::Other), NOW).await.unwrap();
}

#[tokio::test]
async fn a_wallet_that_is_made_on_the_page_is_page_only_at_once() {
    let world = World::new(KDF).await;
    create(&world, 1, Door::Page).await.unwrap();
    assert_eq!(world.account(1).await.page_only_since, Some(NOW));
    assert!(needs_page(&create(&world, 1, Door::Other).await));
    assert!(matches!(create(&world, 1, Door::Page).await.unwrap(), Created::Existing(_)));
    let records = world.audit().await;
    assert!(records.iter().any(|(_, outcome)| outcome == "page_required"), "{records:?}");
}

/// Leaving needs the page, the password and the wait; each of what the owner does meanwhile cancels
/// it.
#[tokio::test]
async fn tokens_act_again_after_the_wait() {
    let world = World::new(KDF).await;
    let (custody, ann) = (&world.custody, telegram(1));
    let admit = |_| async { Ok::<_, CustodyError>(()) };
    let (page, token) = (at(Door::Page), at(Door::Other));
    create(&world, 1, Door::Other).await.unwrap();
    let early = custody.request_page_leave(ann, hash("ann's"), &page, NOW, admit).await;
    assert!(matches!(early, Err(CustodyError::NotPageOnly)), "{early:?}");
    assert_eq!(world.account(1).await.page_only_since, None);
    custody.export(ann, hash("ann's"), &page, NOW, admit).await.unwrap();
    let by_token = custody.request_page_leave(ann, hash("ann's"), &token, NOW, admit).await;
    assert!(needs_page(&by_token), "{by_token:?}");
    let guess = custody.request_page_leave(ann, hash("guess"), &page, NOW, admit).await;
    assert!(matches!(guess, Err(CustodyError::WrongPassword)), "{guess:?}");
    assert_eq!(world.account(1).await.page_only_until, None);

    let leave = async |words| {
        custody.request_page_leave(ann, hash(words), &page, NOW, admit).await.unwrap()
    };
    let until = leave("ann's").await.page_only_until.unwrap();
    assert_eq!(leave("ann's").await.page_only_until, Some(until), "a repeat does not move it");
    for _ in 0..2 {
        let kept = custody.keep_page_only(ann, &token, NOW).await.unwrap();
        assert_eq!(kept.page_only_until, None);
    }
    leave("ann's").await;
    let words = (hash("ann's"), hash("new"));
    custody.change_password(ann, words, &page, NOW, admit).await.unwrap();
    assert_eq!(world.account(1).await.page_only_until, None, "a new password cancels it");

    leave("new").await;
    let early = kms_types::Timestamp(until.0 - 1);
    for (now, is_page_only) in [(early, true), (until, false)] {
        custody.leave_due_pages(&token, now).await.unwrap();
        assert_eq!(world.account(1).await.page_only_since.is_some(), is_page_only);
        let exported = custody.export(ann, hash("new"), &token, NOW, admit).await;
        assert_eq!(needs_page(&exported), is_page_only, "{exported:?}");
    }
    let records = world.audit().await;
    assert!(records.iter().any(|(_, outcome)| outcome == "not_page_only"), "{records:?}");
    // The next act on the page is as the first.
    custody.export(ann, hash("new"), &page, NOW, admit).await.unwrap();
    assert!(needs_page(&custody.export(ann, hash("new"), &token, NOW, admit).await));
}

/// A tap that Telegram signed is what a recovery begins with.
#[tokio::test]
async fn a_recovery_that_begins_on_the_page_is_out_of_reach_of_tokens() {
    let world = World::new(KDF).await;
    create(&world, 1, Door::Other).await.unwrap();
    let (custody, id) = (&world.custody, RecoveryId::random());
    custody.request_recovery(telegram(1), id, &at(Door::Page), NOW).await.unwrap();
    let token = at(Door::Other);
    let done = custody.complete_recovery(telegram(1), id, hash("thief's"), &token, NOW).await;
    assert!(needs_page(&done), "{done:?}");
    custody.cancel_recovery(telegram(1), id, &token, NOW).await.unwrap();
}
