//! Amounts, recipients and passwords as people type, paste and forward them.

use bot_api_sim::Attachment;
use kms_sandbox::{StageOptions, TransferBehavior};
use kms_types::Wei;

use crate::texts;
use crate::world::{ANNS, BOBS, Plays, World, assert_transcript, coins, id};

async fn world() -> World {
    World::with_wallets(StageOptions::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_amount_is_read_or_refused_with_its_reason() {
    let mut world = world().await;
    let ann = &mut world.ann;
    for (says, amount) in [
        ("/send @bob 0.5ETH", "0.5 ETH"),
        ("/send @bob .5", "0.5 ETH"),
        ("/send 5tusd @bob", "5 TUSD"),
        ("/send 0.5 to @bob", "0.5 ETH"),
        ("/send @bob \u{660}.\u{665}", "0.5 ETH"),
        ("/send @bob \u{ff10}\u{ff0e}\u{ff15}", "0.5 ETH"),
        ("/send @bob 0.5\u{fe0f} ETH\u{200b}", "0.5 ETH"),
    ] {
        ann.says(says);
        if amount.ends_with("TUSD") {
            ann.bot_with("problem-insufficient-token", &[amount]).await;
        } else {
            ann.bot_with("send-quote", &[amount]).await;
        }
    }
    for (says, id) in [
        ("/send @bob 1,5", "input-amount-comma"),
        ("/send @bob 1 000", "input-amount-separator"),
        ("/send @bob $5", "input-amount-currency"),
        ("/send @bob 1e3", "input-amount-exponent"),
        ("/send @bob +5", "input-amount-sign"),
        ("/send @bob 0x10", "input-amount-hexadecimal"),
        ("/send @bob \u{bd}", "input-amount-format"),
        ("/send @bob 5 usdc", "input-unknown-rest"),
        ("/send @bob 0.5 for lunch", "input-unknown-rest"),
        ("/send @bob five", "input-unknown-amount"),
        ("/send 5 usdc @bob", "input-unknown-word"),
        ("/send @bob and @ann 5", "input-unknown-amount"),
        ("/send @bob @ann 5", "input-second-recipient"),
        ("/limit off", "input-limit-words"),
        ("/limit 0.5DAI", "input-unknown-asset"),
        ("/send", "send-ask-recipient"),
        ("@bob", "send-ask-amount"),
        ("0.5 dai", "input-unknown-asset"),
        ("1 000", "input-amount-separator"),
        ("0x10", "input-amount-hexadecimal"),
        (".25", "send-quote"),
        ("/send TUSD", "send-ask-recipient"),
        ("@bob 5", "problem-insufficient-token"),
    ] {
        ann.says(says);
        ann.bot(id).await;
    }
    assert_transcript!("amounts", world.ann);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_is_read_or_refused_with_its_reason() {
    let mut world = world().await;
    let bobs = world.account(&world.bob).await.address.to_string();
    let ann = &mut world.ann;
    for recipient in ["t.me/bob", "https://t.me/bob", "@Bob", "@bob,"] {
        ann.says(&format!("/send {recipient} 0.5"));
        ann.bot_with("send-quote", &["@bob", &bobs]).await;
    }
    let digits = &bobs[2..];
    for recipient in [
        bobs.clone(),
        digits.to_owned(),
        format!("0X{}", digits.to_uppercase()),
        format!("0x\u{200b}{digits}"),
        format!("{bobs},"),
        format!("ethereum:{bobs}@31337"),
        format!("eip155:31337:{bobs}"),
    ] {
        ann.says(&format!("/send {recipient} 0.5"));
        ann.bot_with("send-quote", &[&bobs]).await;
    }
    for (recipient, id) in [
        (format!("eth:{bobs}"), "input-named-network"),
        (format!("eip155:8453:{bobs}"), "input-named-network"),
        (format!("nowhere:{bobs}"), "input-other-network"),
        ("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2".to_owned(), "input-named-network"),
        ("bob@example.org".to_owned(), "input-email"),
        ("+49 151 12345678".to_owned(), "input-phone"),
        ("@bob:0.5".to_owned(), "input-joined-amount"),
        ("@bob0.5".to_owned(), "input-joined-amount"),
        ("@bob.smith".to_owned(), "input-username-characters"),
        (format!("ethereum:{bobs}?value=1e17"), "input-payment-request"),
        (format!("0x{}", "ab".repeat(32)), "input-hash"),
        ("https://t.me/+AbCdEf".to_owned(), "input-link"),
        ("bob.eth".to_owned(), "input-ens"),
    ] {
        ann.says(&format!("/send {recipient} 0.5"));
        ann.bot(id).await;
    }
    assert_transcript!("recipients", world.ann);
    world.stage.stop().await;
}

/// The name in the text of a mention may be the username of another person.
#[tokio::test(flavor = "multi_thread")]
async fn a_mention_by_id_pays_that_person_and_no_namesake() {
    let mut world = world().await;
    let mut carl = world.stage.sim.phone(4714, "Bobby", None);
    let dora = world.stage.sim.phone(4715, "Dora", None);
    carl.says("/start");
    carl.bot("start-welcome").await;
    carl.says("a namesake without a username");
    carl.bot("start-created").await;
    carl.bot("contact-offer").await;
    let ann = &mut world.ann;
    let carls = world.stage.client.account(id(&carl).into()).await.unwrap().unwrap().address;
    // "bob" is the username of Bob, who is not meant.
    ann.person().says_mentioning("/send bob 1", "bob", carl.person());
    ann.bot_with("send-quote", &["Bobby", &carls.to_string()]).await;
    ann.press("send-confirm-button");
    ann.bot_with("send-ask-password", &["Bobby"]).await;
    ann.says(ANNS);
    ann.bot_with("transfer-confirmed", &["1 ETH"]).await;
    carl.bot_with("notice-arriving", &["1 ETH"]).await;
    ann.says("/send");
    ann.bot("send-ask-recipient").await;
    ann.person().says_mentioning("bob", "bob", carl.person());
    ann.bot_with("send-ask-amount", &["Bobby"]).await;
    ann.person().says_mentioning("/send Dora 1", "Dora", dora.person());
    ann.bot("send-unknown-person").await;
    assert_eq!(world.balance(&world.bob).await, Wei::default());
    assert_transcript!("mentions", world.ann);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_or_a_forwarded_message_names_the_recipient() {
    let mut world = world().await;
    let bobs = world.account(&world.bob).await.address.to_string();
    let bob = world.bob.person().clone();
    let ann = &mut world.ann;
    let phone = "4915112345678".to_owned();
    ann.says("/send 0.5");
    ann.bot("send-ask-recipient").await;
    ann.person().sends(&Attachment::Contact { phone: phone.clone(), user: Some(bob.id()) });
    ann.bot_with("send-quote", &["Bob", &bobs]).await;
    ann.says("/send 0.5");
    ann.bot("send-ask-recipient").await;
    ann.person().sends(&Attachment::Contact { phone, user: None });
    ann.bot("send-contact-unknown").await;
    ann.person().forwards(&bobs);
    ann.bot_with("send-quote", &[&bobs]).await;
    ann.says("/send 0.5");
    ann.bot("send-ask-recipient").await;
    ann.person().forwards_from(&bob, "see you there");
    ann.bot_with("send-quote", &["Bob", &bobs]).await;
    // Whom a forwarded text names is meant, not who wrote it.
    let dead = "0x000000000000000000000000000000000000dEaD";
    ann.says("/send 0.5");
    ann.bot("send-ask-recipient").await;
    ann.person().forwards_from(&bob, &format!("please pay {dead}, thanks"));
    ann.bot_with("send-quote", &[dead]).await;
    ann.says("/send 0.5");
    ann.bot("send-ask-recipient").await;
    ann.person().forwards_from(&bob, &format!("pay {dead} and @bob"));
    ann.bot("input-recipient-unmarked").await;
    assert!(world.transfers(&world.ann).await.is_empty());
    assert_transcript!("shared_recipients", world.ann);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_password_is_right_from_every_keyboard() {
    let World { stage, mut ann, .. } = World::new().await;
    ann.says("/start");
    ann.bot("start-welcome").await;
    ann.person().says_formatted("marble seven clouds", "seven", "bold");
    ann.bot("password-unstable").await;
    let rewritten = [
        "marble `seven` clouds",
        "C:-) orange ladder",
        "love<3you quiet sea",
        ":shrug: orange ladder",
    ];
    for text in rewritten {
        ann.says(text);
        ann.bot("password-unstable").await;
    }
    ann.says("don't stop -- \"sing\" at dawn");
    ann.bot("start-created").await;
    ann.bot("contact-offer").await;
    let address = stage.client.account(id(&ann).into()).await.unwrap().unwrap().address;
    stage.faucet(address, coins("1")).await.unwrap();
    ann.bot_with("notice-received", &["1 ETH"]).await;
    ann.confirms("/send 0x000000000000000000000000000000000000dEaD 0.5").await;
    ann.says("don\u{2019}t stop \u{2014} \u{201c}sing\u{201d} at dawn");
    ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    assert_transcript!("keyboards", ann);
    stage.stop().await;
}

/// At onboarding, at a change, and at a recovery.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_made_of_the_persons_names_is_refused_everywhere() {
    let options =
        StageOptions { recovery_wait: std::time::Duration::from_secs(1), ..Default::default() };
    let World { stage, .. } = World::with(options).await;
    let mut anna = stage.sim.phone(4716, "Annabelle", Some("smithers"));
    anna.person().has_last_name("Featherstone");
    anna.person().also_has(&["goldfinch"]);
    let weak =
        ["annabelle smithers", "smithers2026", "Annabelle123", "featherstone2026", "goldfinch2026"];
    anna.says("/start");
    anna.bot("start-welcome").await;
    for password in weak {
        anna.says(password);
        anna.bot("password-guessable").await;
    }
    anna.says(BOBS);
    anna.bot("start-created").await;
    anna.says("/password");
    anna.bot("password-ask").await;
    for password in weak {
        anna.says(&format!("{BOBS}\n{password}"));
        anna.bot("password-guessable").await;
    }
    anna.says("/recover");
    anna.bot("recover-ask").await;
    anna.press("recover-start-button");
    anna.bot("notice-recovery-ready").await;
    anna.press("recover-set-button");
    anna.bot("recover-ask-password").await;
    for password in weak {
        anna.says(password);
        anna.bot("password-guessable").await;
    }
    stage.stop().await;
}

/// Paused, blocked or changed: the token is named, not "a contract".
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_refuses_is_not_called_a_contract() {
    let mut world = world().await;
    let ann = world.account(&world.ann).await;
    world.stage.faucet_tokens(ann.address, 100_000_000).unwrap();
    world.ann.bot_with("notice-received", &["100 TUSD"]).await;
    world.stage.token.set_behavior(&world.stage.anvil, TransferBehavior::Reverts).unwrap();
    world.ann.says("/send @bob 5 TUSD");
    world.ann.bot("problem-token-refuses").await;
    world.stage.token.set_behavior(&world.stage.anvil, TransferBehavior::Standard).unwrap();
    world.stage.token.set_decimals(&world.stage.anvil, 18).unwrap();
    world.ann.says("/send @bob 5 TUSD");
    world.ann.bot("problem-token-mismatch").await;
    assert_transcript!("token_refuses", world.ann);
    world.end().await;
}

/// The operator's symbol stands for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_renamed_or_that_reverts_has_a_balance_or_a_sentence() {
    let mut world = world().await;
    let ann = world.account(&world.ann).await;
    world.stage.faucet_tokens(ann.address, 100_000_000).unwrap();
    world.ann.bot_with("notice-received", &["100 TUSD"]).await;
    world.stage.token.set_symbol(&world.stage.anvil, "TUSD\u{20ae}0").unwrap();
    world.ann.says("/balance");
    world.ann.bot_with("balance-token", &["100 TUSD"]).await;
    world.ann.says("/send @bob 5 TUSD");
    world.ann.bot_with("send-quote", &["5 TUSD"]).await;
    // Every call reverts.
    let token = world.stage.paid_token().unwrap().address.to_string();
    let code = serde_json::json!([token, "0x60006000fd"]);
    world.stage.anvil.rpc("anvil_setCode", code).unwrap();
    world.stage.anvil.rpc("anvil_mine", serde_json::json!(["0x1"])).unwrap();
    world.ann.says("/balance");
    world.ann.bot_with("balance-token-unknown", &["TUSD", "10 ETH"]).await;
    world.ann.says("/send @bob 5 TUSD");
    let refusals = ["problem-token-mismatch", "problem-token-refuses"];
    let refused = |text: &str| refusals.iter().any(|id| texts::is(id, text));
    world.ann.hears_matching("a refusal of the token", refused).await.unwrap();
    assert_transcript!("renamed_token", world.ann);
    world.end().await;
}

/// Bob's account delegates to a contract (EIP-7702), as wallets offer it.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_delegates_is_not_called_a_contract() {
    let mut world = world().await;
    let bob = world.account(&world.bob).await.address.to_string();
    let code = format!("0xef0100{}", "11".repeat(20));
    world.stage.anvil.rpc("anvil_setCode", serde_json::json!([bob, code])).unwrap();
    world.ann.says("/send @bob 0.5");
    let quote = world.ann.bot("send-quote").await;
    assert!(!texts::is("send-warning-contract", &quote.text), "{}", quote.text);
    let contract = "0x00000000000000000000000000000000000000f1";
    world.stage.anvil.rpc("anvil_setCode", serde_json::json!([contract, "0x00"])).unwrap();
    world.ann.says(&format!("/send {contract} 0.5"));
    world.ann.bot("send-warning-contract").await;
    world.ann.says("/send @bob 0.5");
    world.ann.bot("send-quote").await;
    world.ann.press("send-confirm-button");
    world.ann.bot("send-ask-password").await;
    world.ann.says(ANNS);
    world.ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    assert_transcript!("contracts", world.ann);
    world.end().await;
}
