//! What has to hold after a story: no password is in any chat, no message shows work in progress,
//! every act and every press has an answer, nothing is asked for that the bot does not wait for, no
//! person paid more often than they confirmed, and no payment is confirmed or received in two
//! messages.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bot_api_sim::{Change, Message};
use kms_sandbox::Stage;
use kms_types::wire::TransferState;
use tokio::time::{Instant, sleep};

use super::Actor;
use crate::texts;
use crate::world::{WORKING, id, transfers_of};

/// The screens of payments that ask for the password, wherever in the chat they are: they are
/// edited when the bot waits no longer.
const SCREENS: [&str; 2] = ["send-ask-password", "send-wrong-password"];
/// The other questions. An old one stays in the chat, but if the last message of the bot is one,
/// the bot waits for its answer.
const QUESTIONS: [&str; 11] = [
    "start-welcome",
    "password-ask",
    "recover-ask-password",
    "freeze-ask-password",
    "contact-ask-address",
    "contact-ask-password-new",
    "contact-ask-password-remove",
    "contact-ask-code",
    "contact-ask-mobile",
    "send-ask-recipient",
    "send-ask-amount",
];
/// What the bot sends on its own.
const NOTICES: [&str; 3] = ["notice-arriving", "notice-received", "notice-account-unfrozen"];
/// The answers to a text that the bot did not wait for.
const UNEXPECTED: [&str; 3] = ["unexpected-text", "unexpected-text-deleted", "unexpected-newcomer"];
/// One answer to all that the bot could not answer before.
pub(super) const SPEAKS_FOR_OTHERS: [&str; 2] = ["interrupted", "problem-telegram"];
/// How long after a text its answer has to come, with a bot that nothing disturbs.
const ANSWERED: Duration = Duration::from_secs(30);

/// The promises that are not kept yet.
pub(super) async fn broken(stage: &Stage, actors: &[Actor]) -> Vec<String> {
    let mut broken = Vec::new();
    let stored = stage.sim.stored();
    if let Some(at) = stored.find("canary") {
        let before: String = stored[..at].chars().rev().take(500).collect();
        let before: String = before.chars().rev().collect();
        broken.push(format!("a password is stored: …{before}{:.60}", &stored[at..]));
    }
    if stage.sim.unanswered_presses() > 0 {
        broken.push("a press is not answered".to_owned());
    }
    for actor in actors {
        let mut fault = |what: &str| broken.push(named(actor, what));
        let changes = actor.phone.person().changes();
        let own = actor.phone.person().id();
        if let Some(act) = unanswered(&changes, own) {
            fault(&format!("{act:?} has no answer"));
        }
        let chat = actor.phone.person().chat();
        if chat.iter().any(|shown| shown.text.contains("canary")) {
            fault("a password is in the chat");
        }
        let dead = |id: &&str| chat.iter().any(|shown| texts::is(id, &shown.text));
        if let Some(working) = WORKING.iter().find(|id| dead(id)) {
            fault(&format!("{working} is still shown"));
        }
        for ids in [&["transfer-confirmed"][..], &["notice-arriving", "notice-received"]] {
            let reports = |text: &str| ids.iter().any(|id| texts::is(id, text));
            let reports = chat.iter().filter(|shown| reports(&shown.text));
            let mut seen = HashSet::new();
            let again =
                reports.filter_map(|shown| hash(&shown.text)).find(|hash| !seen.insert(*hash));
            if let Some(again) = again {
                fault(&format!("{again} is reported in two messages"));
            }
        }
        let own = stage.client.account(id(&actor.phone).into()).await.unwrap().unwrap().id;
        let paid = transfers_of(stage, id(&actor.phone)).await.into_iter().filter(|transfer| {
            let sent = transfer.from.account == Some(own);
            sent && !matches!(
                transfer.state,
                TransferState::Quoted | TransferState::Cancelled | TransferState::Expired
            )
        });
        let paid = paid.count();
        if paid > actor.confirmed {
            fault(&format!("{paid} payments of {} that were confirmed", actor.confirmed));
        }
    }
    broken
}

/// The transaction that a message names.
fn hash(text: &str) -> Option<&str> {
    text.split_whitespace().find(|word| word.starts_with("0x") && word.len() == 66)
}

fn named(actor: &Actor, what: &str) -> String {
    let chat = actor.phone.transcript();
    format!("STORY_SEED={} STORY_RUNS=1: {what}\n{chat}", actor.seed)
}

/// The last act without an answer of its own. The answer to a command or an edit is a new message,
/// and that to another text a new message or an edit; notices of events are none. Nothing is known
/// of acts before a message that speaks for others.
fn unanswered(changes: &[Change], own: i64) -> Option<Change> {
    let senders: HashMap<_, _> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Sent { message, from, .. } => Some((*message, *from)),
            Change::Edited { .. }
            | Change::Deleted { .. }
            | Change::Pressed { .. }
            | Change::Notice { .. } => None,
        })
        .collect();
    let (mut sent, mut edited) = (0_usize, 0_usize);
    for change in changes.iter().rev() {
        let (sender, shown, is_edit) = match change {
            Change::Sent { from, shown, .. } => (Some(from), shown, false),
            Change::Edited { message, shown } => (senders.get(message), shown, true),
            Change::Deleted { .. } | Change::Pressed { .. } | Change::Notice { .. } => continue,
        };
        let text = shown.as_ref().map_or("", |shown| &shown.text);
        if sender != Some(&own) {
            if is_one_of(text, &SPEAKS_FOR_OTHERS) {
                return None;
            }
            let answers = if is_edit { &mut edited } else { &mut sent };
            *answers += usize::from(!is_one_of(text, &NOTICES));
            continue;
        }
        let needs_message = is_edit || text.starts_with('/');
        let answers = if needs_message || edited == 0 { &mut sent } else { &mut edited };
        match answers.checked_sub(1) {
            Some(rest) => *answers = rest,
            None => return Some(change.clone()),
        }
    }
    None
}

fn is_one_of(text: &str, ids: &[&str]) -> bool {
    ids.iter().any(|id| texts::is(id, text))
}

/// The questions that are shown and that the bot does not wait for: it is given an answer to find
/// out.
pub(super) async fn dead_prompts(actors: &[Actor]) -> Vec<String> {
    let asked: Vec<_> = actors.iter().filter(|actor| asks(actor) > 0).collect();
    let mut broken: Vec<_> = asked
        .iter()
        .filter(|actor| asks(actor) > 1)
        .map(|actor| named(actor, "two questions are shown"))
        .collect();
    let mut open: Vec<_> = asked
        .into_iter()
        .map(|actor| {
            let before = actor.phone.person().changes().len();
            actor.phone.says("a lantern in the wrong harbour");
            (actor, before + 1)
        })
        .collect();
    let deadline = Instant::now() + ANSWERED;
    while !open.is_empty() && Instant::now() < deadline {
        open.retain(|(actor, before)| match reaction(actor, *before) {
            None => true,
            Some(shown) => {
                if is_one_of(&shown.text, &UNEXPECTED) {
                    broken.push(named(actor, "a question is shown that nothing waits for"));
                }
                false
            }
        });
        sleep(Duration::from_millis(50)).await;
    }
    broken.extend(open.iter().map(|(actor, _)| named(actor, "the answer has no answer")));
    broken
}

/// How many questions the chat shows.
fn asks(actor: &Actor) -> usize {
    let chat = actor.phone.person().chat();
    // Some of the other questions end like a screen.
    let is_screen = |text: &str| is_one_of(text, &SCREENS) && !is_one_of(text, &QUESTIONS);
    let screens = chat.iter().filter(|message| is_screen(&message.text)).count();
    let newest = newest(&actor.phone.person().changes(), actor.phone.person().id());
    let newest = chat.iter().find(|message| Some(message.id) == newest);
    screens + usize::from(newest.is_some_and(|newest| is_one_of(&newest.text, &QUESTIONS)))
}

/// The last message of the bot, unless a button was pressed after it.
fn newest(changes: &[Change], own: i64) -> Option<i64> {
    let last = changes.iter().rev().find_map(|change| match change {
        Change::Sent { from, .. } if *from == own => None,
        Change::Sent { message, .. } => Some(Some(*message)),
        Change::Pressed { .. } => Some(None),
        Change::Edited { .. } | Change::Deleted { .. } | Change::Notice { .. } => None,
    });
    last.flatten()
}

/// What the bot shows after this many changes of the chat.
fn reaction(actor: &Actor, before: usize) -> Option<Message> {
    let own = actor.phone.person().id();
    let changes = actor.phone.person().changes().into_iter().skip(before);
    let mut shown = changes.filter_map(|change| match change {
        Change::Sent { shown, .. } | Change::Edited { shown, .. } => shown,
        Change::Deleted { .. } | Change::Pressed { .. } | Change::Notice { .. } => None,
    });
    shown.find(|shown| shown.from != own).map(|shown| *shown)
}
