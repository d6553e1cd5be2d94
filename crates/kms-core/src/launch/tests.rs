use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;

/// A real opening, published with the documentation of `init-data-golang`.
const PUBLISHED: &str = include_str!("../../vectors/launch.txt");
const BOT: i64 = 7_342_037_359;
const SIGNED_AT: i64 = 1_733_509_682_000;

fn verifier(key: TelegramKey, bot: i64) -> LaunchVerifier {
    LaunchVerifier { key, bots: vec![bot.try_into().unwrap()] }
}

fn telegram() -> LaunchVerifier {
    verifier(TelegramKey::PRODUCTION, BOT)
}

#[test]
fn the_published_opening_verifies_with_its_key_for_its_bot_at_its_time() {
    let launch = telegram().verify(PUBLISHED).unwrap();
    assert_eq!((launch.user.as_i64(), launch.bot.as_i64()), (279_058_397, BOT));
    assert_eq!(launch.username.as_ref().unwrap().as_str(), "vdkfrost");
    assert_eq!((launch.purpose, launch.signed_at), (Purpose::Home, Timestamp(SIGNED_AT)));
    let at = |milliseconds| launch.check_time(Timestamp(SIGNED_AT + milliseconds));
    for now in [-60_000, 0, 18_000, 300_000] {
        assert_eq!(at(now), Ok(()), "{now}");
    }
    assert_eq!(at(-60_001), Err(LaunchError::TooEarly));
    assert_eq!(at(300_001), Err(LaunchError::TooOld));
    for other in [verifier(TelegramKey::TEST, BOT), verifier(TelegramKey::PRODUCTION, BOT + 1)] {
        assert_eq!(other.verify(PUBLISHED), Err(LaunchError::Signature));
    }
    let none = LaunchVerifier { key: TelegramKey::PRODUCTION, bots: Vec::new() };
    assert_eq!(none.verify(PUBLISHED), Err(LaunchError::Signature));
    let several = LaunchVerifier { bots: vec![1.try_into().unwrap(), launch.bot], ..none };
    assert_eq!(several.verify(PUBLISHED).as_ref(), Ok(&launch));
}

#[test]
fn a_proof_shows_the_same_opening() {
    let launch = telegram().verify(PUBLISHED).unwrap();
    assert_eq!(telegram().verify_proof(&launch.proof).as_ref(), Ok(&launch));
    assert!(verifier(TelegramKey::PRODUCTION, 1).verify_proof(&launch.proof).is_err());
    assert!(verifier(TelegramKey::TEST, BOT).verify_proof(&launch.proof).is_err());
    for at in 0..launch.proof.message.len() {
        let mut bytes = launch.proof.message.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(message) = String::from_utf8(bytes) else { continue };
        let changed = LaunchProof { message, ..launch.proof };
        assert!(telegram().verify_proof(&changed).is_err(), "byte {at}");
    }
}

#[test]
fn mutations_are_refused() {
    let replaced = |from: &str, to: &str| {
        assert!(PUBLISHED.contains(from), "{from}");
        PUBLISHED.replacen(from, to, 1)
    };
    let mutations = [
        String::new(),
        "&".to_owned(),
        "=".to_owned(),
        replaced("auth_date=1733509682", "auth_date=1733509683"),
        replaced("auth_date=1733509682&", ""),
        replaced("auth_date=1733509682", "auth_date=1733509682&auth_date=1733509682"),
        replaced("auth_date=1733509682", "auth_date=01733509682"),
        replaced("auth_date", "auth%5Fdate"),
        replaced("279058397", "279058398"),
        replaced("vdkfrost", "vdkfrosty"),
        replaced("vdkfrost", "VDKFROST"),
        replaced("chat_type=private", "chat_type=sender"),
        replaced("chat_type=private&", ""),
        replaced("chat_type=private", "chat_type=private%0Astart_param=n"),
        replaced("chat_type=private", "chat_type=private&start_param=n"),
        replaced("chat_type=private", "chat_type=private&start_param="),
        replaced("chat_type=private", "chat_type=private&=x"),
        replaced("chat_type=private", "chat_type=private&x"),
        replaced("chat_type=private", "chat_type=private%"),
        replaced("chat_type=private", "chat_type=private%FF"),
        replaced("%5C%2F", "%2F"),
        replaced("signature=TYJx", "signature=TYJy"),
        replaced("zcZX_PDg", "zcZX_PDh"),
        replaced("zcZX_PDg", "zcZX_PDg%3D%3D"),
        replaced("zcZX_PDg", "zcZX/PDg"),
        replaced("signature=", "signatures="),
        format!("{PUBLISHED}&hash=00"),
        format!("{PUBLISHED}&{}", "x".repeat(4_096)),
        format!("{PUBLISHED}&{}", (0..40).map(|n| format!("x{n}=1")).collect::<Vec<_>>().join("&")),
        format!("?{PUBLISHED}"),
    ];
    for mutation in mutations {
        assert!(telegram().verify(&mutation).is_err(), "{mutation}");
    }
}

/// Signs fields as Telegram does.
fn signed(pair: &Ed25519KeyPair, bot: i64, fields: &[(&str, &str)]) -> String {
    let mut sorted = fields.to_vec();
    sorted.sort_unstable();
    let lines: Vec<_> = sorted.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let message = format!("{bot}:WebAppData\n{}", lines.join("\n"));
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes()));
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let fields = fields.iter().map(|(key, value)| format!("{key}={}", encoded(value)));
    let fields: Vec<_> = fields.chain([format!("signature={signature}")]).collect();
    fields.join("&")
}

fn pair() -> (Ed25519KeyPair, LaunchVerifier) {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let key = TelegramKey(pair.public_key().as_ref().try_into().unwrap());
    (pair, verifier(key, 7))
}

#[test]
fn signed_nonsense_is_refused() {
    let (pair, verifier) = pair();
    let user = r#"{"id":1,"first_name":"Ann"}"#;
    let verify = |fields: &[(&str, &str)]| verifier.verify(&signed(&pair, 7, fields));
    let good = verify(&[("user", user), ("auth_date", "1"), ("start_param", "n")]).unwrap();
    assert_eq!((good.user.as_i64(), good.purpose), (1, Purpose::NewWallet));
    let unknown = verify(&[("user", user), ("auth_date", "1"), ("new", "a b&c=d+é")]).unwrap();
    assert!(unknown.proof.message.contains("new=a b&c=d+é"));
    for (fields, what) in [
        (vec![("auth_date", "1")], "no user"),
        (vec![("user", user)], "no auth_date"),
        (vec![("user", "{}"), ("auth_date", "1")], "no id"),
        (vec![("user", r#"{"id":0}"#), ("auth_date", "1")], "id 0"),
        (vec![("user", r#"{"id":1,"id":2}"#), ("auth_date", "1")], "two ids"),
        (vec![("user", r#"{"id":1,"is_bot":true}"#), ("auth_date", "1")], "a bot"),
        (vec![("user", user), ("auth_date", "-1")], "a time before 1970"),
        (vec![("user", user), ("auth_date", "99999999999")], "a time after 2106"),
        (vec![("user", user), ("auth_date", "1"), ("start_param", "z")], "no purpose"),
    ] {
        assert!(verify(&fields).is_err(), "{what}");
    }
}

#[test]
fn keys_are_named_or_in_hex() {
    for (text, key) in [("production", TelegramKey::PRODUCTION), ("test", TelegramKey::TEST)] {
        assert_eq!((text.parse(), format!("{key:?}").as_str()), (Ok(key), text));
    }
    let own = "ab".repeat(32);
    assert_eq!(format!("{:?}", own.parse::<TelegramKey>().unwrap()), own);
    for bad in ["", "prod", "ab", &"ab".repeat(33)] {
        assert_eq!(bad.parse::<TelegramKey>(), Err(TelegramKeyError), "{bad}");
    }
}

proptest! {
    /// The value of `hash` needs the bot's token and is not looked at, and the digits of an escape
    /// have two cases. Everything else that changes is refused, and these show the same opening.
    #[test]
    fn any_changed_byte_is_refused(at in 0..PUBLISHED.len(), byte in 0x20_u8..0x7f) {
        let mut bytes = PUBLISHED.as_bytes().to_vec();
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        let hash = PUBLISHED.find("hash=").unwrap() + 5;
        match telegram().verify(&changed) {
            Ok(launch) => {
                let same_escape = changed.eq_ignore_ascii_case(PUBLISHED);
                prop_assert!(at >= hash || same_escape, "{changed}");
                prop_assert_eq!(launch.id, telegram().verify(PUBLISHED).unwrap().id);
            }
            Err(_refused) => {}
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        prop_assert!(telegram().verify(&text).is_err());
    }
}
