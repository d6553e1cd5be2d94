//! The mobile number. The e-mail address is part of the stories about accounts.

use bot_api_sim::Attachment;
use kms_sandbox::StageOptions;

use crate::texts::label;
use crate::world::{ANNS, Plays, World, assert_transcript};

/// She believes that it is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_comes_while_the_number_is_asked_for_is_deleted() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let ann = &mut world.ann;
    ann.says("/contact");
    ann.bot("contact-mobile-none").await;
    ann.press("contact-mobile-button");
    ann.bot("contact-ask-mobile").await;
    ann.says(ANNS);
    ann.bot("wanted-mobile").await;
    ann.person().forwards(ANNS);
    ann.bot("other-deleted").await;
    assert!(!ann.transcript().contains(ANNS), "{}", ann.transcript());
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_persons_own_number_is_taken_and_it_can_be_removed() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    let ann = &mut world.ann;
    ann.says("/contact");
    ann.bot("contact-mobile-none").await;
    ann.press("contact-mobile-button");
    ann.bot("contact-ask-mobile").await;
    ann.says("+49 151 12345678");
    ann.bot("wanted-mobile").await;
    ann.person()
        .sends(&Attachment::Contact { phone: "+4915112345678".to_owned(), user: Some(4712) });
    ann.bot("contact-mobile-foreign").await;
    ann.person().sends(&Attachment::Contact { phone: "+4915112345678".to_owned(), user: None });
    ann.bot("contact-mobile-foreign").await;
    ann.person().shares_own_number("123").unwrap();
    ann.bot("contact-mobile-format").await;
    ann.press("contact-mobile-button");
    ann.bot("contact-ask-mobile").await;
    // Some of Telegram's apps leave the plus out.
    ann.person().shares_own_number("4915112345699").unwrap();
    ann.bot_with("contact-mobile-added", &["99"]).await;
    assert!(ann.person().shares_own_number("4915112345699").is_err(), "the key is gone");
    ann.says("/contact");
    ann.bot_with("contact-mobile", &["99"]).await;
    ann.press("contact-mobile-remove-button");
    ann.bot("contact-mobile-removed").await;
    ann.says("/contact");
    ann.bot("contact-mobile-none").await;
    ann.press("contact-mobile-button");
    ann.bot("contact-ask-mobile").await;
    // Another command takes the key away, and so does the key that cancels.
    ann.says("/help");
    ann.bot("contact-mobile-cancelled").await;
    ann.bot("help-title").await;
    ann.press("contact-mobile-button");
    ann.bot("contact-ask-mobile").await;
    ann.says(&label("cancel-button"));
    ann.bot("contact-mobile-cancelled").await;
    assert!(ann.person().shares_own_number("4915112345699").is_err(), "the key is gone");
    // What a key sends that stayed on another device.
    ann.person()
        .sends(&Attachment::Contact { phone: "+4915112345699".to_owned(), user: Some(4711) });
    ann.bot("contact-mobile-late").await;
    assert_transcript!("mobile", world.ann);
    let account = world.account(&world.ann).await;
    assert_eq!(account.mobile, None);
    world.end().await;
}
