//! Each call of each conversation fails once, in each way: it is lost before Telegram makes it,
//! after it did, by a failure of Telegram's own, and by a rate limit.

use std::time::Duration;

use bot_api_sim::{Fault, Phone};
use futures::future::join_all;
use kms_sandbox::{Stage, StageOptions};

use crate::texts;
use crate::world::{ANNS, Plays, WORKING, World, coins, id};

const FAULTS: [Fault; 4] =
    [Fault::ServerError(504), Fault::CallLost, Fault::AnswerLost, Fault::TooManyRequests(1)];
const METHODS: [&str; 5] =
    ["SendMessage", "EditMessageText", "DeleteMessage", "AnswerCallbackQuery", "GetChat"];
/// Which calls of a payment fail, one for each person.
const CALLS: usize = 8;
/// Which calls of the other conversations.
const FEWER_CALLS: usize = 3;
const NEW: &str = "seven quiet harbours at dawn";
const RECOVERED: &str = "a kettle under the northern stairs";
/// What no message may show in the end, besides work in progress.
const OPEN: [&str; 2] = ["send-ask-password", "problem-telegram"];

/// A person of one of the stories, and the call that fails.
struct Unlucky<'a> {
    stage: &'a Stage,
    phone: Phone,
    method: &'static str,
    fault: Fault,
    after: usize,
}

impl Unlucky<'_> {
    /// Plays a conversation in which the call fails.
    async fn plays(&mut self, conversation: impl AsyncFnOnce(&Stage, &mut Phone)) {
        self.phone.forget();
        // To pay a username, the bot asks for the chat of its holder.
        let chat = (self.method != "GetChat").then(|| self.phone.person().id());
        self.stage.sim.break_later(chat, self.method, self.fault, self.after);
        conversation(self.stage, &mut self.phone).await;
        let mut chat = self.phone.person().chat();
        // The question stays, and its end is that of the screen of a payment.
        chat.retain(|shown| !texts::is("contact-ask-password-new", &shown.text));
        let open = chat
            .iter()
            .find(|shown| OPEN.iter().chain(&WORKING).any(|id| texts::is(id, &shown.text)));
        let (method, fault, after) = (self.method, self.fault, self.after);
        assert_eq!(open, None, "{method} {fault:?} {after}\n{}", self.phone.transcript());
    }
}

/// Everybody at the same time.
async fn all(people: &mut [Unlucky<'_>], conversation: impl AsyncFn(&Stage, &mut Phone)) {
    join_all(people.iter_mut().map(|one| one.plays(&conversation))).await;
    if let Some(first) = people.first() {
        first.stage.sim.forget_faults();
        let mut watch = first.stage.sim.watch();
        while first.stage.sim.unanswered_presses() > 0 {
            watch.changed().await.unwrap();
        }
    }
}

async fn onboards(phone: &mut Phone) {
    phone.says("/start");
    phone.bot("start-welcome").await;
    phone.says(ANNS);
    phone.bot("start-created").await;
    phone.bot("contact-offer").await;
}

/// Each of the first eight calls of each method.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_survives_the_loss_of_any_call_and_of_any_answer() {
    let world = World::with_wallets(StageOptions::default()).await;
    let stage = &world.stage;
    let people = (0..CALLS).map(|after| async move {
        let number = 5_000 + i64::try_from(after).unwrap();
        let mut phone = stage.sim.phone(number, "Someone", None);
        onboards(&mut phone).await;
        Unlucky { stage, phone, method: "", fault: Fault::CallLost, after }
    });
    let mut people = join_all(people).await;
    for one in &mut people {
        let account = stage.client.account(id(&one.phone).into()).await.unwrap().unwrap();
        stage.faucet(account.address, coins("1")).await.unwrap();
        one.phone.bot("notice-received").await;
    }
    let mut paid = 0;
    for (method, fault) in METHODS.into_iter().flat_map(|it| FAULTS.map(|fault| (it, fault))) {
        for one in &mut people {
            (one.method, one.fault) = (method, fault);
        }
        all(&mut people, async |_, phone| {
            phone.confirms("/send @bob 0.01").await;
            phone.says(ANNS);
            phone.bot_with("transfer-confirmed", &["0.01 ETH"]).await;
        })
        .await;
        paid += CALLS;
    }
    for one in &people {
        let chat = one.phone.person().chat();
        let confirmed = chat.iter().filter(|shown| texts::is("transfer-confirmed", &shown.text));
        assert_eq!(confirmed.count(), paid / CALLS, "one message for each payment");
    }
    // A hundredth of a coin for each.
    assert_eq!(world.balance(&world.bob).await, coins("1.6"));
    assert_eq!(paid, 160);
    world.forgets(ANNS).await;
    world.end().await;
}

async fn changes_password(phone: &mut Phone) {
    phone.says("/password");
    phone.bot("password-ask").await;
    phone.says(&format!("{ANNS}\n{NEW}"));
    phone.bot("password-changed").await;
}

async fn freezes_and_unfreezes(phone: &mut Phone) {
    phone.says("/freeze");
    phone.bot("freeze-ask").await;
    phone.press("freeze-now-button");
    phone.bot("freeze-frozen").await;
    phone.press("freeze-lift-button");
    phone.bot("freeze-ask-password").await;
    phone.says(NEW);
    phone.bot("freeze-lifting").await;
    phone.bot("notice-account-unfrozen").await;
}

fn address(phone: &Phone) -> String {
    format!("person{}@example.org", id(phone))
}

/// The code in the e-mail with this number, of those that have one.
async fn code_for(stage: &Stage, phone: &Phone, number: usize) -> String {
    let is_code = |line: &&str| {
        let digits = line.bytes().filter(u8::is_ascii_digit).count();
        digits == 8 && line.bytes().all(|byte| byte.is_ascii_digit() || b" -".contains(&byte))
    };
    for _ in 0..300 {
        let mails = stage.mailbox.mails_to(&address(phone));
        let lines = mails.iter().flat_map(|mail| mail.body.lines()).map(str::trim);
        if let Some(code) = lines.filter(is_code).nth(number) {
            return code.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("code {number} did not arrive");
}

async fn adds_address(stage: &Stage, phone: &mut Phone) {
    phone.says("/contact");
    phone.bot("contact-none").await;
    phone.press("contact-add-button");
    phone.bot("contact-ask-address").await;
    phone.says(&address(phone));
    phone.bot("contact-ask-password-new").await;
    phone.says(NEW);
    phone.bot("contact-ask-code").await;
    let code = code_for(stage, phone, 0).await;
    phone.says(&code);
    phone.bot("contact-changed").await;
}

async fn recovers(stage: &Stage, phone: &mut Phone) {
    phone.says("/recover");
    phone.bot("recover-ask").await;
    phone.press("recover-start-button");
    phone.bot("notice-recovery-code-sent").await;
    let code = code_for(stage, phone, 1).await;
    phone.says(&code);
    phone.bot("notice-recovery-ready").await;
    phone.press("recover-set-button");
    phone.bot("recover-ask-password").await;
    phone.says(RECOVERED);
    phone.bot("recover-done").await;
}

/// Everyone's calls of another method fail, each time in another way.
#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_survives_the_loss_of_any_call_and_of_any_answer() {
    let recovery_wait = Duration::from_secs(3);
    let world = World::with(StageOptions { recovery_wait, ..StageOptions::default() }).await;
    let stage = &world.stage;
    let methods =
        METHODS.into_iter().flat_map(|method| (0..FEWER_CALLS).map(move |after| (method, after)));
    let people = methods.zip(5_000..).map(|((method, after), number)| {
        let phone = stage.sim.phone(number, "Someone", None);
        Unlucky { stage, phone, method, fault: Fault::CallLost, after }
    });
    let mut people: Vec<_> = people.collect();
    let next_faults = |people: &mut Vec<Unlucky<'_>>, round: usize| {
        for (index, one) in people.iter_mut().enumerate() {
            one.fault = FAULTS[(index + round) % FAULTS.len()];
        }
    };
    next_faults(&mut people, 0);
    all(&mut people, async |_, phone| onboards(phone).await).await;
    next_faults(&mut people, 1);
    all(&mut people, async |_, phone| changes_password(phone).await).await;
    next_faults(&mut people, 2);
    all(&mut people, async |_, phone| freezes_and_unfreezes(phone).await).await;
    next_faults(&mut people, 3);
    all(&mut people, async |stage, phone| adds_address(stage, phone).await).await;
    next_faults(&mut people, 0);
    all(&mut people, async |stage, phone| recovers(stage, phone).await).await;
    for secret in [ANNS, NEW, RECOVERED] {
        world.forgets(secret).await;
    }
    world.stage.stop().await;
}
