//! Everything that the bot says. HTML as Telegram knows it: what comes from outside goes through
//! [`esc`] or [`name`].

use std::fmt::Write;
use std::time::Duration;

use chrono::DateTime;
use kms_client::ClientError;
use kms_types::wire::{
    Account, Balance, Direction, ExternalDeposit, HistoryEntry, LaterLimit, Network, Party,
    SpendingLimit, SpendingLimits, TokenBalance, Transfer, TransferFailure, TransferState, Warning,
};
use kms_types::{
    Asset, ErrorCode, EthAddress, LimitReached, Timestamp, Token, U256, Units, Username, Wei,
};

use crate::buttons::is_public;
use crate::command::{Name, SendError};
use crate::password::Weak;

mod recovery;

pub(crate) use self::recovery::*;

pub(crate) const CONFIRM: &str = "✅ Confirm";
pub(crate) const CONFIRM_MOVED: &str = "⚠️ It is really them";
pub(crate) const CANCEL: &str = "✖️ Cancel";
pub(crate) const RENEW: &str = "🔄 Renew";
pub(crate) const CHECK: &str = "🔎 Check";
pub(crate) const BALANCE: &str = "💰 Balance";
pub(crate) const REFRESH: &str = "🔄 Refresh";
pub(crate) const SEND: &str = "📤 Send";
pub(crate) const RECEIVE: &str = "📥 Receive";
pub(crate) const COPY: &str = "📋 Copy address";
pub(crate) const HOW_RECOVERY: &str = "🛟 How recovery works";
pub(crate) const NEWER: &str = "◀ Newer";
pub(crate) const OLDER: &str = "Older ▶";
pub(crate) const EXPLORER: &str = "🔗 Open in the explorer";
pub(crate) const PRIVATE_CHAT: &str = "Open the private chat";

pub(crate) const GROUP: &str = "Money and passwords belong in our private chat.";
pub(crate) const NOT_YOURS: &str = "This button is not yours.";
pub(crate) const STALE_BUTTON: &str = "This button does not work any more.";
pub(crate) const UP_TO_DATE: &str = "Up to date.";
pub(crate) const ASK_TO: &str = "Whom do you want to pay? Write a @username or an address.";
pub(crate) const LOOKING_UP: &str = "⏳ Looking that up…";
pub(crate) const MAKING: &str = "⏳ Making your wallet…";
pub(crate) const CHANGING: &str = "⏳ Changing your password…";
pub(crate) const CHANGED: &str = "✅ Your new password works from now on. The old one does not.";
pub(crate) const LEFT: &str = "Cancelled. Nothing was changed.";
pub(crate) const NOTHING_TO_CANCEL: &str = "There is nothing to cancel.";
pub(crate) const NO_WALLET: &str = "You have no wallet yet. Write /start to get one.";
pub(crate) const NOT_AS_SHOWN: &str =
    "⚠️ This payment is not what you were shown. Nothing was sent. Write /send again.";
pub(crate) const UNKNOWN_COMMAND: &str =
    "I do not know this command; /help lists them. A password can not begin with a slash.";
pub(crate) const UNASKED: &str = "I was not waiting for an answer; /help lists what I can do. \
     If this was a password, delete your message and begin again.";
pub(crate) const UNASKED_DELETED: &str = "I was not waiting for a password any more. I deleted your \
     message, in case it was one, and did not use it.";
pub(crate) const NOT_WRITTEN: &str = "I take passwords only from a new text message that you write \
     yourself. I deleted this one, in case it showed yours.";
pub(crate) const NAME_UNCLEAR: &str = "⚠️ Telegram does not tell right now whether that name is \
     still theirs. Nothing was sent. Try again in a minute, or pay an address.";
pub(crate) const CHANGE_UNKNOWN: &str = "❔ The wallet service did not answer, so I can not say \
     whether your password was changed. Use the new one; if it is wrong, the old one still works.";
pub(crate) const NOT_DELETED: &str = "⚠️ I could not delete your message with the password, so I \
     did not use it. Delete it yourself, and try again with /start, /send or /password.";
pub(crate) const TWO_LINES: &str = "Write both passwords in one message: the old one, then a new \
     line, then the new one.";
pub(crate) const SAME_PASSWORD: &str = "The new password is the old one. Choose another.";
const OUR_SIDE: &str =
    "Something does not work on our side right now. Please try again in a minute.";
const NOT_END_TO_END: &str = "Telegram chats with bots are not end-to-end encrypted. I delete your \
     message at once, before I use it; use a password that you use nowhere else.";

/// Escapes a text for HTML.
pub(crate) fn esc(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A display name, which its owner chooses freely: at most 40 characters on one line, without
/// the controls that turn the direction of what follows.
pub(crate) fn name(chosen: &str) -> String {
    let turns = |c: char| matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
    let clean = chosen.chars().filter(|c| !c.is_control() && !turns(*c)).take(40);
    esc(clean.collect::<String>().trim())
}

fn coins(wei: Wei, network: &Network) -> String {
    format!("{} {}", wei.to_coins(), esc(&network.symbol))
}

/// An amount of the native coin or of a token.
fn amount(units: Units, token: Option<&Token>, network: &Network) -> String {
    match token {
        None => coins(Wei(units.0), network),
        Some(token) => format!("{} {}", token.to_decimal(units), esc(token.symbol.as_str())),
    }
}

/// The coin and the tokens, as a list of their symbols.
fn symbols(network: &Network) -> String {
    let tokens = network.tokens.iter().map(|token| token.symbol.as_str());
    let symbols: Vec<_> = std::iter::once(network.symbol.as_str()).chain(tokens).collect();
    esc(&symbols.join(", "))
}

/// The same, rounded up to eight decimals: nobody reads eighteen.
fn at_most(wei: Wei, network: &Network) -> String {
    let unit = U256::from(10).pow(U256::from(10));
    coins(Wei(wei.0.div_ceil(unit).saturating_mul(unit)), network)
}

fn date(at: Timestamp) -> String {
    let date = DateTime::from_timestamp_millis(at.0).unwrap_or_default();
    date.format("%-d %B %Y").to_string()
}

fn time(at: Timestamp) -> String {
    let date = DateTime::from_timestamp_millis(at.0).unwrap_or_default();
    date.format("%-d %b %Y, %H:%M UTC").to_string()
}

fn wait(wait: Duration) -> String {
    match wait.as_secs() {
        0..=1 => "1 second".to_owned(),
        seconds @ 2..120 => format!("{seconds} seconds"),
        seconds @ 120..7_200 => format!("{} minutes", seconds.div_ceil(60)),
        seconds => format!("{} hours", seconds.div_ceil(3_600)),
    }
}

/// What a command does, for the list that Telegram shows and for `/help`.
pub(crate) fn describes(command: Name) -> &'static str {
    match command {
        Name::Balance => "what you have",
        Name::Send => "pay somebody: /send @bob 0.5",
        Name::Receive => "your address, to be paid",
        Name::History => "your payments",
        Name::Limit => "how much you may spend in a day",
        Name::Password => "change your password",
        Name::Recover => "reset a forgotten password",
        Name::Contact => "your e-mail address",
        Name::Cancel => "leave the current step",
        Name::Help => "this list",
    }
}

pub(crate) const START_DESCRIPTION: &str = "get your wallet";

pub(crate) fn help() -> String {
    let mut text = format!("<b>What I can do</b>\n/start – {START_DESCRIPTION}\n");
    for command in Name::ALL {
        let _ = writeln!(text, "/{} – {}", command.as_str(), describes(command));
    }
    text.push_str(
        "\nPay with <code>/send @bob 0.5</code>, with <code>/send 0x… 0.1</code>, or send \
         everything with <code>/send @bob all</code>. A token's name goes behind the amount: \
         <code>/send @bob 5 USDC</code>. Nothing moves before you confirm with your \
         password.",
    );
    text
}

pub(crate) fn welcome() -> String {
    format!(
        "👋 <b>Welcome!</b> I give you an Ethereum wallet that you use by chatting, and that you \
         can recover without a seed phrase.\n\nChoose a password with at least 10 characters and \
         send it as your next message.\n\n<i>{NOT_END_TO_END}</i>"
    )
}

pub(crate) fn weak(weak: Weak) -> &'static str {
    match weak {
        Weak::Short => {
            "That password is too short: it needs at least 10 characters. Choose another."
        }
        Weak::Long => "That password is too long: at most 128 characters. Choose another.",
        Weak::Common => {
            "That password is too easy to guess. Several words that do not belong together are \
             good. Choose another."
        }
    }
}

pub(crate) fn wallet(account: &Account, network: &Network, is_new: bool) -> String {
    let title =
        if is_new { "🎉 <b>Your wallet is ready.</b>" } else { "<b>This is your wallet.</b>" };
    let by_name = match &account.username {
        Some(name) => format!("People here can pay you by your name, {}.", esc(&name.to_string())),
        None => "Choose a username in Telegram's settings, and people here can pay you by it."
            .to_owned(),
    };
    format!(
        "{title}\n<code>{}</code>\nNetwork: {}\n\n{by_name}",
        account.address,
        esc(&network.name)
    )
}

pub(crate) fn balance(balance: &Balance, network: &Network) -> String {
    let mut text =
        format!("💰 <b>{}</b>\nNetwork: {}", coins(balance.wei, network), esc(&network.name));
    if balance.pending != Wei::default() {
        let _ = write!(text, "\nOn its way out: up to {}", at_most(balance.pending, network));
    }
    let nothing = |balance: &&TokenBalance| {
        balance.units == Some(Units::default()) && balance.pending == Units::default()
    };
    for TokenBalance { token, units, pending } in balance.tokens.iter().filter(|b| !nothing(b)) {
        let _ = match units {
            Some(units) => write!(text, "\n\n<b>{}</b>", amount(*units, Some(token), network)),
            None => write!(text, "\n\n{}: not known right now", esc(token.symbol.as_str())),
        };
        if *pending != Units::default() {
            let pending = amount(*pending, Some(token), network);
            let _ = write!(text, "\nOn its way out: {pending}");
        }
    }
    text
}

pub(crate) fn receive(address: EthAddress, network: &Network) -> String {
    format!(
        "Your address on <b>{}</b>:\n<code>{address}</code>\n\nSend only {} on this network to it.",
        esc(&network.name),
        symbols(network)
    )
}

pub(crate) fn ask_amount(to: &str, asset: &Asset, network: &Network) -> String {
    let (symbol, example) = match (asset, network.tokens.first()) {
        (Asset::Token(symbol), _) => (symbol.as_str(), "0.5, or all".to_owned()),
        (Asset::Native, None) => (network.symbol.as_str(), "0.5, or all".to_owned()),
        (Asset::Native, Some(token)) => {
            (network.symbol.as_str(), format!("0.5, or all, or 5 {}", token.symbol))
        }
    };
    let (symbol, to) = (esc(symbol), esc(to));
    format!("How much {symbol} do you want to send to {to}? Write for example {}.", esc(&example))
}

pub(crate) fn can_not_read(error: &SendError) -> String {
    format!("I can not read that: {}.", esc(&error.to_string()))
}

/// Whom, as a person reads it: a display name if it is known, the username, or nothing but the
/// address.
fn party(party: &Party) -> String {
    match &party.username {
        Some(username) => esc(&username.to_string()),
        None => format!("<code>{}</code>", party.address),
    }
}

/// What will happen on confirmation. `display` is the recipient's name as Telegram shows it.
pub(crate) fn quote(transfer: &Transfer, network: &Network, display: Option<&str>) -> String {
    let to = &transfer.to;
    let (token, max_fee) = (transfer.token.as_ref(), at_most(transfer.max_fee, network));
    let value = amount(transfer.value, token, network);
    let mut text = format!("<b>Send {value}</b>\n");
    let whom = match (&to.username, display.map(name).filter(|name| !name.is_empty())) {
        (Some(username), Some(display)) => format!("<b>{display}</b>, {username}"),
        (Some(username), None) => username.to_string(),
        (None, _) => "this address".to_owned(),
    };
    let _ = write!(text, "to {whom}\n<code>{}</code>\n", to.address);
    let before = match transfer.warnings.contains(&Warning::FirstPayment) {
        true => "you have never paid this address",
        false => "you have paid it before",
    };
    let _ = match to.since {
        Some(since) => writeln!(text, "A wallet here since {}; {before}.", date(since)),
        None => writeln!(text, "Not a wallet of this service; {before}."),
    };
    let total = match token {
        None => at_most(Wei(transfer.value.0.saturating_add(transfer.max_fee.0)), network),
        // The network takes its fee in its own coin, whatever is paid.
        Some(_) => format!("{value} and {max_fee}"),
    };
    let _ = write!(
        text,
        "\nNetwork fee: at most {max_fee}\nTotal: at most <b>{total}</b>\nNetwork: {}",
        esc(&network.name)
    );
    for warning in &transfer.warnings {
        let warning = match warning {
            Warning::FirstPayment | Warning::Unknown => continue,
            Warning::Contract => "The recipient is a contract. It may do anything with the money.",
            Warning::MostOfBalance if token.is_some() => "This is most of what you have of it.",
            Warning::MostOfBalance => "This is most of what you have.",
            Warning::NameMoved => {
                "This name belonged to somebody else until lately. Ask the person whether it is \
                 really theirs."
            }
        };
        let _ = write!(text, "\n\n⚠️ {warning}");
    }
    text
}

pub(crate) fn ask_password(quote: &str) -> String {
    format!("{quote}\n\n🔑 Send your password as your next message to confirm.")
}

pub(crate) fn ask_moved(quote: &str) -> String {
    format!("{quote}\n\n✋ Are you sure that this is the person you mean?")
}

pub(crate) fn wrong_password(before: &str) -> String {
    format!("{before}\n\n❌ That password is wrong. Send it again, or cancel.")
}

pub(crate) fn sending(quote: &str) -> String {
    format!("{quote}\n\n⏳ Sending…")
}

pub(crate) fn refused(quote: &str, why: &str) -> String {
    format!("{quote}\n\n❌ {why}")
}

/// How a transfer stands that is not waiting for its confirmation any more.
pub(crate) fn transfer(transfer: &Transfer, network: &Network) -> String {
    let token = transfer.token.as_ref();
    let what =
        format!("<b>{}</b> to {}", amount(transfer.value, token, network), party(&transfer.to));
    let hash = transfer.tx_hash.as_deref().map(esc);
    let hash = hash.map(|hash| format!("\nTransaction <code>{hash}</code>")).unwrap_or_default();
    let fee = transfer.fee.map(|fee| format!("\nNetwork fee: {}", coins(fee, network)));
    let fee = fee.unwrap_or_default();
    match transfer.state {
        TransferState::Signed | TransferState::Broadcast => {
            format!("📤 Sent {what}\n{}{hash}", waiting(transfer))
        }
        TransferState::Mined | TransferState::Final => {
            let block = transfer.block.map(|block| format!("\nIn block {block}."));
            let arrived = transfer.arrived.map(|units| {
                let arrived = amount(units, token, network);
                format!("\nThe token kept a part of it: {arrived} came.")
            });
            let (arrived, block) = (arrived.unwrap_or_default(), block.unwrap_or_default());
            format!("✅ Paid {what}{arrived}{block}{fee}{hash}")
        }
        TransferState::Failed if transfer.failure == Some(TransferFailure::NothingMoved) => {
            format!(
                "❌ {what} was not paid: the token's contract took the transaction, but reports no \
                 payment. /balance shows what you have; the network kept its fee.{fee}{hash}"
            )
        }
        TransferState::Failed if transfer.block.is_none() => format!(
            "❌ {what} was not paid: this wallet's key was used elsewhere, and that transaction \
             took its place. The money is still yours."
        ),
        TransferState::Failed => format!(
            "❌ The {} contract refused {what}. The money is still yours; the network kept its \
             fee.{fee}{hash}",
            if token.is_some() { "token's" } else { "recipient's" }
        ),
        TransferState::Cancelled => format!("✖️ Cancelled: {what}. Nothing was sent."),
        TransferState::Expired => {
            format!("⌛ This quote is too old: {what}. Nothing was sent.")
        }
        // Not shown by this screen, or a state of a newer server.
        TransferState::Quoted | TransferState::Unknown => {
            format!("{what}: write /history to see how it stands.")
        }
    }
}

/// What a transfer that is on its way waits for.
fn waiting(transfer: &Transfer) -> String {
    match (transfer.waits_since, transfer.raised) {
        (Some(since), _) => format!(
            "The network asks for more than the fee you agreed to, since {}. It is paid when that \
             falls; nothing is sent twice, and you need not do anything.",
            time(since)
        ),
        (None, 0) => "Waiting for the network.".to_owned(),
        (None, _) => "The network is busy: I offered it a higher fee, within what you agreed to. \
                      Still waiting."
            .to_owned(),
    }
}

/// How a transfer stands, in a word.
fn state(transfer: &Transfer) -> &'static str {
    match transfer.state {
        TransferState::Signed | TransferState::Broadcast if transfer.waits_since.is_some() => {
            "waiting for lower fees"
        }
        TransferState::Signed | TransferState::Broadcast => "on its way",
        TransferState::Mined | TransferState::Final => "paid",
        TransferState::Failed => "refused",
        TransferState::Cancelled => "cancelled",
        TransferState::Expired => "expired",
        TransferState::Quoted | TransferState::Unknown => "unknown",
    }
}

pub(crate) fn history(account: &Account, entries: &[HistoryEntry], network: &Network) -> String {
    if entries.is_empty() {
        return "There are no payments yet.".to_owned();
    }
    let mut text = "<b>Your payments</b>".to_owned();
    for entry in entries {
        let (what, at, status, hash) = match entry {
            HistoryEntry::Transfer { transfer } => {
                let value = |units| amount(units, transfer.token.as_ref(), network);
                let what = match transfer.direction(account.id) {
                    Direction::Out => {
                        format!("📤 {} to {}", value(transfer.value), party(&transfer.to))
                    }
                    Direction::In => {
                        let came = transfer.arrived.unwrap_or(transfer.value);
                        format!("📥 {} from {}", value(came), party(&transfer.from))
                    }
                };
                (what, transfer.created_at, state(transfer), transfer.tx_hash.as_ref())
            }
            HistoryEntry::Deposit { at, deposit } => {
                let value = amount(deposit.value, deposit.token.as_ref(), network);
                let what = format!("📥 {value} from <code>{}</code>", deposit.from);
                (what, *at, "received", Some(&deposit.tx_hash))
            }
            HistoryEntry::Unknown => continue,
        };
        let mut status = status.to_owned();
        if let (Some(explorer), Some(hash)) = (&network.explorer, hash) {
            let link = explorer_link(explorer, hash);
            if is_public(&link) {
                status = format!("<a href=\"{}\">{status}</a>", esc(&link));
            }
        }
        let _ = write!(text, "\n\n{what}\n{} · {status}", time(at));
    }
    text
}

fn limit_reached(reached: &LimitReached, network: &Network) -> String {
    let value = |units| amount(units, reached.token.as_ref(), network);
    let when = match reached.possible_at {
        Some(at) => format!("This payment is possible on {}.", time(at)),
        None => "This payment is more than that.".to_owned(),
    };
    let fees = if reached.token.is_none() { ", network fees included" } else { "" };
    format!(
        "Your limit is {} in 24 hours{fees}, and {} of it is left. {when} /limit shows and changes it.",
        value(reached.limit),
        value(reached.left)
    )
}

pub(crate) fn limits(limits: &SpendingLimits, network: &Network) -> String {
    let mut text = "<b>In 24 hours you may spend</b>".to_owned();
    for SpendingLimit { token, limit, spent, later, .. } in &limits.limits {
        let token = token.as_ref();
        let symbol = token.map_or(network.symbol.as_str(), |token| token.symbol.as_str());
        let most = |limit: Option<Units>| match limit {
            Some(units) => format!("at most {}", amount(units, token, network)),
            None => format!("as much {} as you have", esc(symbol)),
        };
        let _ = write!(text, "\n\n{}", most(*limit));
        if limit.is_some() {
            let spent = match token {
                None => at_most(Wei(spent.0), network),
                Some(_) => amount(*spent, token, network),
            };
            let _ = write!(text, "; {spent} of it is spent");
        }
        if let Some(LaterLimit { units, from }) = later {
            let _ = write!(text, "\nFrom {} on: {}", time(*from), most(*units));
        }
    }
    text.push_str(
        "\n\nNetwork fees count too. Change it with <code>/limit 5</code>, or \
         <code>/limit none</code>; a token's name goes behind it. A lower limit holds at once, a \
         higher one after 24 hours. The service may have a limit of its own.",
    );
    text
}

pub(crate) fn explorer_link(explorer: &str, hash: &str) -> String {
    format!("{explorer}/tx/{hash}")
}

pub(crate) fn received(transfer: &Transfer, network: &Network) -> String {
    format!(
        "📥 You received <b>{}</b> from {}.",
        amount(transfer.arrived.unwrap_or(transfer.value), transfer.token.as_ref(), network),
        party(&transfer.from)
    )
}

pub(crate) fn deposit_received(deposit: &ExternalDeposit, network: &Network) -> String {
    format!(
        "📥 You received <b>{}</b> from <code>{}</code>.",
        amount(deposit.value, deposit.token.as_ref(), network),
        deposit.from
    )
}

pub(crate) fn password_changed(at: Timestamp) -> String {
    format!(
        "🔐 Your password was changed on {}. If that was not you, somebody knows it and uses your \
         Telegram account: end their session in Telegram's settings, then write /recover.",
        time(at)
    )
}

pub(crate) fn key_exported(at: Timestamp) -> String {
    format!(
        "🔑 The key of your wallet was exported on {}. Whoever has that file and its passphrase can \
         spend everything in this wallet, now and later, without me. If that was you, keep the two \
         in different places.\n\nIf it was <b>not you</b>, a new password does not help: the key is \
         out. Make a wallet in another app now and send everything there: <code>/send 0x… \
         all</code>, with its address, and the same for each token. Then end the other sessions in \
         Telegram's settings.",
        time(at)
    )
}

pub(crate) fn raise_asked(at: Timestamp) -> String {
    format!(
        "📈 A higher spending limit was asked for on {}. It holds 24 hours later at the soonest. If \
         that was not you, somebody uses your Telegram account: write /limit, which shows what holds \
         now, and then /limit with that amount, which takes it back at once; and end their session \
         in Telegram's settings.",
        time(at)
    )
}

pub(crate) fn ask_change() -> String {
    format!("🔐 <b>A new password</b>\n{TWO_LINES}\n\n<i>{NOT_END_TO_END}</i>")
}

pub(crate) fn name_left(username: &Username) -> String {
    format!(
        "⚠️ {username} no longer belongs to the person who registered it here. Nothing was sent. Ask \
         them for their new name or their address."
    )
}

/// Why the server did not do it. Nothing was changed, unless the server is unreachable.
pub(crate) fn failure(error: &ClientError, network: Option<&Network>) -> String {
    let ClientError::Problem(problem) = error else {
        return "I can not reach the wallet service right now. Please try again in a minute."
            .to_owned();
    };
    let after = Duration::from_secs(problem.retry_after.unwrap_or(60));
    match problem.code {
        ErrorCode::NoSuchAccount => NO_WALLET.to_owned(),
        ErrorCode::WrongPassword => "That password is wrong.".to_owned(),
        ErrorCode::PasswordLocked => {
            format!("Too many wrong passwords. Try again in {}.", wait(after))
        }
        ErrorCode::RateLimited => format!("Too many requests. Try again in {}.", wait(after)),
        ErrorCode::WrongCode => "That code is wrong. Send it again.".to_owned(),
        ErrorCode::CodeExpired => "That code does not work any more.".to_owned(),
        ErrorCode::NoSuchRecovery => "There is no recovery under way. Write /recover.".to_owned(),
        ErrorCode::RecoveryNotReady => {
            format!("The wait is not over yet. Try again in {}.", wait(after))
        }
        ErrorCode::RecoveriesPaused => {
            "New passwords can not be set right now: too many were asked for at once. Your money is \
             safe; please try again later."
                .to_owned()
        }
        ErrorCode::OnHold => format!(
            "Your wallet was recovered a short time ago. For your safety this works again in {}.",
            wait(after)
        ),
        ErrorCode::NoMail => "This service sends no e-mail.".to_owned(),
        ErrorCode::Busy => "The service is busy. Please try again in a minute.".to_owned(),
        ErrorCode::AccountFrozen => "Your wallet is frozen: it can not pay. Ask whoever runs this \
                                     bot."
            .to_owned(),
        ErrorCode::AccountExists => {
            "You have a wallet already, under another password. Write /start to see it.".to_owned()
        }
        ErrorCode::ChainUnavailable => "The network does not answer right now. Nothing was sent: \
                                        please try again in a minute."
            .to_owned(),
        ErrorCode::SelfTransfer => "That is your own wallet.".to_owned(),
        ErrorCode::InsufficientFunds => match (&problem.missing_token, problem.missing, network) {
            (Some(missing), ..) => format!("You are {} short.", esc(&missing.to_string())),
            (None, Some(missing), Some(network)) => {
                format!("You are {} short, including the network fee.", coins(missing, network))
            }
            _ => "You do not have that much.".to_owned(),
        },
        ErrorCode::LimitReached => match (&problem.limit, network) {
            (Some(reached), Some(network)) => limit_reached(reached, network),
            _ => "That is more than you may spend in 24 hours.".to_owned(),
        },
        ErrorCode::WouldRevert => {
            "A contract would refuse this payment: the recipient's, or the token's.".to_owned()
        }
        ErrorCode::QuoteExpired => "This quote is too old. Nothing was sent.".to_owned(),
        ErrorCode::QuoteMismatch => NOT_AS_SHOWN.to_owned(),
        ErrorCode::Unauthorized | ErrorCode::Forbidden => OUR_SIDE.to_owned(),
        ErrorCode::Internal | ErrorCode::StoreUnavailable => OUR_SIDE.to_owned(),
        // A code of a newer server.
        ErrorCode::Unknown if problem.status >= 500 => OUR_SIDE.to_owned(),
        ErrorCode::MalformedRequest
        | ErrorCode::InvalidField
        | ErrorCode::BodyTooLarge
        | ErrorCode::RequestTimeout
        | ErrorCode::NoSuchRoute
        | ErrorCode::NoSuchTransfer
        | ErrorCode::UnknownToken
        | ErrorCode::UnknownName
        | ErrorCode::RecoveryOpen
        | ErrorCode::IdReused
        | ErrorCode::WrongState
        | ErrorCode::Conflict
        | ErrorCode::Unknown => esc(&sentence(&problem.detail)),
    }
}

pub(crate) fn unknown_name(username: &Username) -> String {
    format!("{username} has no wallet here. They get one by writing to me; or ask for an address.")
}

pub(crate) fn outcome_unknown(quote: &str) -> String {
    format!(
        "{quote}\n\n❔ The wallet service does not answer, so I can not say yet whether this was \
         sent. It is never sent twice. I will update this message as soon as I know; or press {CHECK}."
    )
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), characters.as_str().trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_not_break_out() {
        assert_eq!(name("<b>Ann & \"Co\""), "&lt;b&gt;Ann &amp; &quot;Co&quot;");
        assert_eq!(name("Ann\u{202e}dlog\u{2066}\n\u{0}"), "Anndlog");
        assert_eq!(name(&"x".repeat(100)).len(), 40);
    }

    #[test]
    fn what_is_taken_at_most_is_rounded_up() {
        let network = Network {
            name: "Test".to_owned(),
            chain_id: 1,
            symbol: "ETH".to_owned(),
            tokens: Vec::new(),
            explorer: None,
        };
        let told = |wei: u64| at_most(Wei(U256::from(wei)), &network);
        assert_eq!(told(63_000_000_000_000), "0.000063 ETH");
        assert_eq!(told(63_000_000_000_001), "0.00006301 ETH");
        assert_eq!(told(1), "0.00000001 ETH");
        assert_eq!(told(0), "0 ETH");
    }

    #[test]
    fn waits_are_told_in_what_people_count() {
        let seconds = |seconds| wait(Duration::from_secs(seconds));
        assert_eq!(seconds(0), "1 second");
        assert_eq!(seconds(61), "61 seconds");
        assert_eq!(seconds(899), "15 minutes");
        assert_eq!(seconds(24 * 3_600), "24 hours");
    }

    #[test]
    fn a_payment_that_waits_says_for_what() {
        let network = Network {
            name: "Test".to_owned(),
            chain_id: 1,
            symbol: "ETH".to_owned(),
            tokens: Vec::new(),
            explorer: None,
        };
        let told = |raised: u32, waits_since: Option<i64>| {
            let party = serde_json::json!({"address": EthAddress::from([7; 20])});
            let sent: Transfer = serde_json::from_value(serde_json::json!({
                "id": kms_types::TransferId::random(), "state": "broadcast", "from": party,
                "to": party, "value": "1000000000000000000", "max_fee": "1", "chain_id": 1,
                "raised": raised, "waits_since": waits_since, "warnings": [], "created_at": 0,
                "expires_at": 0,
            }))
            .unwrap();
            (transfer(&sent, &network), state(&sent))
        };
        assert!(told(0, None).0.ends_with("Waiting for the network."));
        assert!(told(2, None).0.contains("a higher fee, within what you agreed to"));
        let (text, word) = told(3, Some(0));
        assert!(text.contains("more than the fee you agreed to, since 1 Jan 1970, 00:00 UTC"));
        assert_eq!(word, "waiting for lower fees");
        assert_eq!(told(3, None).1, "on its way");
    }
}
