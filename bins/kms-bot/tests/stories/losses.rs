//! Each call of each conversation fails once, in each way: it is lost before Telegram makes it,
//! after it did, by a failure of Telegram's own, and by a rate limit.

use bot_api_sim::{Fault, Phone};
use futures::future::join_all;
use kms_sandbox::{Stage, StageOptions};

use crate::texts;
use crate::world::{ANNS, Plays, World, coins, id};

const FAULTS: [Fault; 4] =
    [Fault::ServerError(504), Fault::CallLost, Fault::AnswerLost, Fault::TooManyRequests(1)];
const METHODS: [&str; 5] =
    ["SendMessage", "EditMessageText", "DeleteMessage", "AnswerCallbackQuery", "GetChat"];
/// Which calls of a payment fail, one for each person.
const CALLS: usize = 8;
/// What no message may show in the end.
const OPEN: [&str; 10] = [
    "start-creating",
    "send-looking-up",
    "send-ask-password",
    "send-sending",
    "still-working",
    "contact-working",
    "freeze-working",
    "password-changing",
    "recover-working",
    "problem-telegram",
];

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
    async fn plays(&mut self, conversation: impl AsyncFnOnce(&mut Phone)) {
        self.phone.forget();
        // To pay a username, the bot asks for the chat of its holder.
        let chat = (self.method != "GetChat").then(|| self.phone.person().id());
        self.stage.sim.break_later(chat, self.method, self.fault, self.after);
        conversation(&mut self.phone).await;
        let chat = self.phone.person().chat();
        let open = chat.iter().find(|shown| OPEN.iter().any(|id| texts::is(id, &shown.text)));
        let (method, fault, after) = (self.method, self.fault, self.after);
        assert_eq!(open, None, "{method} {fault:?} {after}\n{}", self.phone.transcript());
    }
}

/// Everybody at the same time.
async fn all(people: &mut [Unlucky<'_>], conversation: impl AsyncFn(&mut Phone)) {
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
        all(&mut people, async |phone| {
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
