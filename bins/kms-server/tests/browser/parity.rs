//! What the page computes is what Rust computes: the text of a password, its hash, its strength.

use futures::future::join_all;
use kms_client::{fold_password, hash_password, is_rewritten, names_with_parts};
use kms_types::TelegramId;
use serde_json::json;
use thirtyfour::prelude::*;
use zxcvbn::{Score, zxcvbn};

use crate::world::World;

/// Letters, and what keyboards, apps and alphabets make of them.
const PIECES: [&str; 40] = [
    "Orange",
    "ladder",
    "caf\u{e9}",
    "cafe\u{301}",
    "\u{212b}",
    "A\u{30a}",
    "\u{fb01}sh",
    "\u{ff46}\u{ff55}\u{ff4c}\u{ff4c}",
    "\u{b2}",
    "\u{207b}",
    "don\u{2019}t",
    "\u{201c}x\u{201d}",
    "\u{2014}",
    "--",
    "\u{2013}",
    "\u{feff}",
    "\u{85}",
    "\u{a0}",
    "\u{3000}",
    "\u{2028}",
    "\t",
    " ",
    "\u{1f469}\u{200d}\u{1f680}",
    "\u{2764}\u{fe0f}",
    "\u{1f1e9}\u{1f1ea}",
    "\u{645}\u{631}\u{62d}",
    "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
    "\u{202e}abc\u{202c}",
    "\u{110b}\u{1175}",
    "\u{c774}",
    "\u{df}",
    "\u{1e9b}\u{323}",
    "\u{2026}",
    "\u{ab}ja\u{bb}",
    "\u{ad}",
    "\u{200b}",
    "\u{1d11e}",
    "\u{b4}",
    "\u{2033}",
    "\u{fe31}",
];

/// A sequence that looks random and is always the same.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from((self.0 >> 33) % u64::try_from(end).unwrap()).unwrap()
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

fn texts() -> Vec<String> {
    let mut sequence = Sequence(7);
    let mut made: Vec<_> = PIECES.iter().map(|piece| format!("a{piece}b")).collect();
    made.extend(
        (made.len()..220)
            .map(|_| (0..1 + sequence.below(6)).map(|_| sequence.of(&PIECES)).collect::<String>()),
    );
    made
}

fn passwords() -> Vec<String> {
    let words = [
        "password",
        "dragon",
        "orange",
        "ladder",
        "correct",
        "horse",
        "battery",
        "staple",
        "ann",
        "Annabelle",
        "qwerty",
        "zxcvbn",
        "monkey",
        "iloveyou",
        "seldom",
        "sings",
        "marble",
        "1987",
        "2026",
        "12345",
        "abcdef",
        "aaaa",
        "!",
        "P@ssw0rd",
        "tr0ub4dor",
        "&3",
        "x",
        "_",
        "-",
        "7",
        "wallet",
        "ladda",
        "kloster",
        "\u{fc}ber",
        "\u{43f}\u{430}\u{440}\u{43e}\u{43b}\u{44c}",
    ];
    let mut sequence = Sequence(11);
    let one = |sequence: &mut Sequence| {
        let separator = sequence.of(&["", "", " ", "-"]);
        let parts: Vec<_> = (0..1 + sequence.below(5)).map(|_| sequence.of(&words)).collect();
        parts.join(separator)
    };
    (0..1_000).map(|_| one(&mut sequence)).collect()
}

/// Runs a script on the page with `password`, the module, and the values.
async fn run(world: &World, script: &str, values: serde_json::Value) -> serde_json::Value {
    let script = format!(
        "const [values, done] = [arguments[0], arguments[arguments.length - 1]];
         const app = document.querySelector('script[type=module]').src;
         import(app.replace('app.js', 'password.js')).then(async (password) => {{ {script} }})
             .then(done, (error) => done(String(error)));"
    );
    world.browser.execute_async(&script, vec![values]).await.unwrap().json().clone()
}

#[actix_web::test]
async fn the_page_computes_what_rust_computes() {
    let Some(world) = World::new().await else { return };
    world.browser.goto(&world.url).await.unwrap();
    let found = world.browser.query(By::Css("footer"));
    found.wait(std::time::Duration::from_secs(30), std::time::Duration::from_millis(50));
    world.browser.query(By::Css("footer")).first().await.unwrap();

    let texts = texts();
    let folded = run(&world, "return values.map(password.fold)", json!(texts)).await;
    let expected: Vec<_> = texts.iter().map(|text| fold_password(text).to_string()).collect();
    assert_eq!(folded, json!(expected));

    let user: TelegramId = 4711.try_into().unwrap();
    let script = "return Promise.all(values.map((text) => password.hash(4711, text)))";
    // An empty password is never hashed.
    let typed = texts.iter().filter(|text| !fold_password(text).is_empty()).take(200);
    let typed: Vec<_> = typed.collect();
    assert_eq!(typed.len(), 200);
    // Some at a time, within the browser's time for a script.
    for some in typed.chunks(20) {
        let hashes = run(&world, script, json!(some)).await;
        let expected = join_all(some.iter().map(|text| hash_password(user, text))).await;
        assert_eq!(hashes, json!(expected));
    }
    let vectors: serde_json::Value = serde_json::from_str(include_str!(
        "../../../../crates/kms-client/vectors/password-v1.json"
    ))
    .unwrap();
    let script = "return Promise.all(values.map((v) => password.hash(v.telegram_id, v.typed)))";
    let hashes = run(&world, script, vectors.clone()).await;
    let expected: Vec<_> =
        vectors.as_array().unwrap().iter().map(|vector| vector["hash"].clone()).collect();
    assert_eq!(hashes, json!(expected));

    let vectors: serde_json::Value = serde_json::from_str(include_str!(
        "../../../../crates/kms-client/vectors/rewritten-v1.json"
    ))
    .unwrap();
    let script =
        "return values.map(({ typed }) => ({ typed, rewritten: password.isRewritten(typed) }))";
    assert_eq!(run(&world, script, vectors.clone()).await, vectors);
    let typed: Vec<_> = texts.iter().chain(&passwords()).cloned().collect();
    let rewritten = run(&world, "return values.map(password.isRewritten)", json!(typed)).await;
    let expected: Vec<_> = typed.iter().map(|text| is_rewritten(text)).collect();
    assert_eq!(rewritten, json!(expected));
    names_have_the_same_parts(&world).await;

    let passwords = passwords();
    let script = "await password.prepare();
        return values.map((text) => password.strength(text, ['Annabelle', 'ann']))";
    let scores = run(&world, script, json!(passwords)).await;
    let scores: Vec<u8> = serde_json::from_value(scores).unwrap();
    let expected = |text: &String| u8::from(zxcvbn(text, &["Annabelle", "ann"]).score());
    let differ: Vec<_> = passwords
        .iter()
        .zip(&scores)
        .filter(|(text, score)| match text.contains("2026") {
            // The page's estimator has these years as words. It accepts nothing more.
            true => **score >= 3 && expected(text) < 3,
            false => expected(text) != **score,
        })
        .map(|(text, score)| format!("{text}: {score}, in Rust {}", expected(text)))
        .collect();
    let strong = scores.iter().filter(|score| **score >= u8::from(Score::Three)).count();
    assert!((200..800).contains(&strong), "{strong} of 1000 are strong");
    assert!(differ.is_empty(), "{} differ: {differ:#?}", differ.len());

    let script = "return Promise.all(values.map(password.weakness))";
    let bad = json!([
        "short",
        "a".repeat(129),
        "password123",
        "orange ladder \u{378} sings",
        "annabelle smithers",
        "quillfeather2026",
        "C:-) orange ladder",
        "orange ladder seldom sings"
    ]);
    let script = script.replace(
        "password.weakness",
        "(t) => password.weakness(t, ['Smithers', 'Annabelle', 'lee_quillfeather'])",
    );
    let expected = json!([
        "password.short",
        "password.long",
        "password.guessable",
        "password.unassigned",
        "password.guessable",
        "password.guessable",
        "password.unstable",
        null
    ]);
    assert_eq!(run(&world, &script, bad).await, expected);
    world.close().await;
}

/// What the page gives to its estimator of a user whom Telegram names like this.
async fn names_have_the_same_parts(world: &World) {
    let user = json!({ "first_name": "Anna Belle", "last_name": "O'Smithers-Lee",
        "username": "ann_smith" });
    let context = json!({ "user": user, "launch": { "usernames": ["gold_finch", "old_oak"] } });
    let script = "
        const parts = document.querySelector('script[type=module]').src;
        const { namesOf } = await import(parts.replace('app.js', 'parts.js'));
        return password.namesWithParts(namesOf(values))";
    let names = ["Anna Belle", "O'Smithers-Lee", "ann_smith", "gold_finch", "old_oak"];
    assert_eq!(run(world, script, context).await, json!(names_with_parts(&names)));
}
