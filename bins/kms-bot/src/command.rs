//! What somebody typed, as a command.
//!
//! A command is a word that begins with `/`, in any case, perhaps with `@` and the bot's name;
//! what follows after any white space are its arguments. Text that begins with `/` is never
//! anything else.

use kms_types::wire::{LimitAmount, Network};
use kms_types::{AmountError, Asset, QuoteAmount, Recipient, RecipientError, Token};

/// A command and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Begins, or comes from a link that names another command.
    Start {
        /// The command that the link names.
        then: Option<Name>,
    },
    /// Any other command without arguments.
    Plain(Name),
    /// A payment, as far as it was said.
    Send(SendArgs),
    /// How much may be spent in a day.
    Limit {
        /// At most.
        amount: LimitAmount,
        /// Of what.
        asset: Asset,
    },
}

/// The commands, as they are registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Balance,
    Receive,
    Send,
    History,
    Limit,
    Password,
    Recover,
    Contact,
    Cancel,
    Help,
}

/// What `/send` was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SendArgs {
    pub(crate) to: Option<Recipient>,
    pub(crate) amount: Option<QuoteAmount>,
    pub(crate) asset: Asset,
}

/// The assets that can be named behind an amount.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Assets<'a> {
    coin: &'a str,
    tokens: &'a [Token],
}

/// Why a text that begins with `/` is no command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoCommand {
    /// It is for another bot.
    NotOurs,
    /// There is no such command.
    Unknown,
    /// The command takes nothing, and something stands behind it.
    Arguments(Command),
    /// Its arguments can not be used.
    Send(SendError),
}

/// Why a payment can not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendError {
    #[error(transparent)]
    Amount(#[from] AmountError),
    #[error(transparent)]
    Recipient(#[from] RecipientError),
    #[error("write a @username or an address that begins with 0x")]
    Mark,
    #[error("write whom and how much, for example /send @bob 0.5")]
    Words,
    #[error("write how much in a day, for example /limit 5 or /limit none")]
    Limit,
    #[error("write an amount, and what of if it is a token, for example 5 USDC")]
    Asset,
}

impl<'a> Assets<'a> {
    /// Without a network only the usual coin is known; then a token's name is refused.
    pub(crate) fn of(network: Option<&'a Network>) -> Self {
        match network {
            Some(network) => Self { coin: &network.symbol, tokens: &network.tokens },
            None => Self { coin: "ETH", tokens: &[] },
        }
    }

    fn find(self, word: &str) -> Option<Asset> {
        if word.eq_ignore_ascii_case(self.coin) {
            return Some(Asset::Native);
        }
        let mut symbols = self.tokens.iter().map(|token| &token.symbol);
        let symbol = symbols.find(|symbol| symbol.as_str().eq_ignore_ascii_case(word))?;
        Some(Asset::Token(symbol.clone()))
    }

    /// How much, and of what if that is said: `5`, `5 USDC`, `all USDC`.
    pub(crate) fn parse_amount(
        self,
        text: &str,
    ) -> Result<(QuoteAmount, Option<Asset>), SendError> {
        let mut words = text.split_whitespace();
        let amount = parse_amount(words.next().unwrap_or_default())?;
        let asset = match words.next() {
            Some(word) => Some(self.find(word).ok_or(SendError::Asset)?),
            None => None,
        };
        if words.next().is_some() { Err(SendError::Asset) } else { Ok((amount, asset)) }
    }
}

impl Assets<'_> {
    /// `5`, `5 USDC`, `none`, `none USDC`.
    fn parse_limit<'w>(
        self,
        mut words: impl Iterator<Item = &'w str>,
    ) -> Result<Command, SendError> {
        let word = words.next().unwrap_or_default().to_lowercase();
        let amount = LimitAmount::try_from(word)?;
        let asset = match words.next() {
            Some(word) => self.find(word).ok_or(SendError::Limit)?,
            None => Asset::Native,
        };
        match words.next() {
            Some(_) => Err(SendError::Limit),
            None => Ok(Command::Limit { amount, asset }),
        }
    }
}

impl Name {
    /// In the order in which they are listed.
    pub(crate) const ALL: [Self; 10] = [
        Self::Balance,
        Self::Send,
        Self::Receive,
        Self::History,
        Self::Limit,
        Self::Password,
        Self::Recover,
        Self::Contact,
        Self::Cancel,
        Self::Help,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Balance => "balance",
            Self::Receive => "receive",
            Self::Send => "send",
            Self::History => "history",
            Self::Limit => "limit",
            Self::Password => "password",
            Self::Recover => "recover",
            Self::Contact => "contact",
            Self::Cancel => "cancel",
            Self::Help => "help",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == text)
    }
}

impl Command {
    /// Reads a text that begins with `/`. `bot` is the bot's own username.
    pub(crate) fn parse(text: &str, bot: &str, assets: Assets<'_>) -> Result<Self, NoCommand> {
        let mut words = text.split_whitespace();
        let word = words.next().and_then(|word| word.strip_prefix('/'));
        let word = word.ok_or(NoCommand::Unknown)?;
        let (name, whose) = word.split_once('@').unwrap_or((word, bot));
        if !whose.eq_ignore_ascii_case(bot) {
            return Err(NoCommand::NotOurs);
        }
        let name = name.to_ascii_lowercase();
        let command = match Name::parse(&name) {
            Some(Name::Send) => {
                return SendArgs::parse(words, assets).map(Self::Send).map_err(NoCommand::Send);
            }
            Some(Name::Limit) => match words.next() {
                None => Self::Plain(Name::Limit),
                Some(word) => {
                    let limit = assets.parse_limit(std::iter::once(word).chain(words));
                    return limit.map_err(NoCommand::Send);
                }
            },
            Some(name) => Self::Plain(name),
            None if name == "start" => match words.next() {
                None => Self::Start { then: None },
                Some(link) => match Name::parse(link) {
                    None if link != "start" => {
                        return Err(NoCommand::Arguments(Self::Start { then: None }));
                    }
                    then => Self::Start { then },
                },
            },
            None => return Err(NoCommand::Unknown),
        };
        if words.next().is_some() { Err(NoCommand::Arguments(command)) } else { Ok(command) }
    }
}

impl SendArgs {
    /// Whom and how much in either order; a symbol may follow the amount. A bare word that is a
    /// symbol means nobody: money must not go to whoever has a token's name.
    fn parse<'a>(
        words: impl Iterator<Item = &'a str>,
        assets: Assets<'_>,
    ) -> Result<Self, SendError> {
        let mut args = Self::default();
        let mut after_amount = false;
        for word in words {
            let asset = assets.find(word);
            if is_amount(word) {
                let amount = parse_amount(word)?;
                if args.amount.replace(amount).is_some() {
                    return Err(SendError::Words);
                }
                after_amount = true;
                continue;
            }
            if let Some(asset) = asset {
                if !after_amount {
                    return Err(SendError::Words);
                }
                args.asset = asset;
            } else if after_amount && !names_somebody(word) {
                // It may be meant for a token that is not known here, and be somebody's name.
                return Err(SendError::Mark);
            } else if args.to.replace(word.parse()?).is_some() {
                return Err(SendError::Words);
            }
            after_amount = false;
        }
        Ok(args)
    }
}

/// An amount as somebody types it: `all`, or as in `kms-types`.
pub(crate) fn parse_amount(word: &str) -> Result<QuoteAmount, AmountError> {
    if word.eq_ignore_ascii_case("all") {
        Ok(QuoteAmount::All)
    } else {
        QuoteAmount::try_from(word.to_owned())
    }
}

/// Whether the answer to "whom" is one. A bare word is taken for a name only behind `/send`,
/// where it can be nothing else.
pub(crate) fn names_somebody(text: &str) -> bool {
    let text = text.trim();
    text.starts_with('@') || text.starts_with("0x") || text.starts_with("0X") || text.contains('.')
}

/// Names begin with a letter or `@`, and addresses with `0x`: anything else means an amount.
pub(crate) fn is_amount(word: &str) -> bool {
    if word.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x")) {
        return false;
    }
    word.eq_ignore_ascii_case("all")
        || word.starts_with(|c: char| c.is_ascii_digit() || ".,+-".contains(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Command, NoCommand> {
        let token = |symbol: &str| {
            let symbol = symbol.parse().unwrap();
            Token { symbol, address: [1; 20].into(), decimals: 6 }
        };
        let tokens = [token("USDC"), token("stETH")];
        Command::parse(text, "wallet_bot", Assets { coin: "ETH", tokens: &tokens })
    }

    fn send_of(to: &str, amount: &str, asset: &str) -> Result<Command, NoCommand> {
        let (to, amount) = (Some(to.parse().unwrap()), Some(parse_amount(amount).unwrap()));
        Ok(Command::Send(SendArgs { to, amount, asset: asset.parse().unwrap() }))
    }

    fn send(to: Option<&str>, amount: Option<&str>) -> Result<Command, NoCommand> {
        let to = to.map(|to| to.parse().unwrap());
        let amount = amount.map(|amount| parse_amount(amount).unwrap());
        Ok(Command::Send(SendArgs { to, amount, asset: Asset::Native }))
    }

    #[test]
    fn case_white_space_and_the_bots_name_do_not_matter() {
        for text in ["/send @bob 0.5", "/SEND\n@bob\n0.5", "/Send@Wallet_Bot  @bob\t0.5 "] {
            assert_eq!(parse(text), send(Some("@bob"), Some("0.5")), "{text:?}");
        }
        assert_eq!(parse("/send@another_bot @bob 1"), Err(NoCommand::NotOurs));
        assert_eq!(parse("/BALANCE"), Ok(Command::Plain(Name::Balance)));
        assert_eq!(parse("/start"), Ok(Command::Start { then: None }));
        assert_eq!(parse("/start balance"), Ok(Command::Start { then: Some(Name::Balance) }));
        assert_eq!(parse("/start start"), Ok(Command::Start { then: None }));
        for text in ["/start c_unknown", "/start balance 1"] {
            assert!(matches!(parse(text), Err(NoCommand::Arguments(_))), "{text}");
        }
        let password = Err(NoCommand::Arguments(Command::Plain(Name::Password)));
        assert_eq!(parse("/password old new"), password);
        for text in ["/", "/ send", "/sendmoney", "//send", "/send.", "send", ""] {
            assert_eq!(parse(text), Err(NoCommand::Unknown), "{text:?}");
        }
    }

    #[test]
    fn a_payment_is_read_in_either_order() {
        let address = "0x1486F47822927e3F2321E0bE433247dDADAf8F8C";
        assert_eq!(parse("/send bob 0.5"), send(Some("@bob"), Some("0.5")));
        assert_eq!(parse("/send 0.5 eth @bob"), send(Some("@bob"), Some("0.5")));
        assert_eq!(parse("/send 5 @eth"), send(Some("@eth"), Some("5")));
        assert_eq!(parse("/send @bob ALL"), send(Some("@bob"), Some("all")));
        assert_eq!(parse("/send @all 1"), send(Some("@all"), Some("1")));
        assert_eq!(parse(&format!("/send {address} 1")), send(Some(address), Some("1")));
        assert_eq!(parse("/send"), send(None, None));
        assert_eq!(parse("/send @bob"), send(Some("@bob"), None));
        assert_eq!(parse("/send 1"), send(None, Some("1")));
    }

    #[test]
    fn a_token_is_named_behind_its_amount() {
        for text in ["/send @bob 5 USDC", "/send 5 usdc @bob", "/send bob 5 Usdc"] {
            assert_eq!(parse(text), send_of("@bob", "5", "USDC"), "{text}");
        }
        assert_eq!(parse("/send @bob all stETH"), send_of("@bob", "all", "stETH"));
        assert_eq!(parse("/send 5 USDC @usdc"), send_of("@usdc", "5", "USDC"));
        let limit = |amount: &str, asset: &str| {
            let amount = LimitAmount::try_from(amount.to_owned()).unwrap();
            Ok(Command::Limit { amount, asset: asset.parse().unwrap() })
        };
        assert_eq!(parse("/limit"), Ok(Command::Plain(Name::Limit)));
        assert_eq!(parse("/limit 0.5"), limit("0.5", "native"));
        assert_eq!(parse("/limit NONE usdc"), limit("none", "USDC"));
        for text in ["/limit 5 DAI", "/limit 5 USDC 5"] {
            assert_eq!(parse(text), Err(NoCommand::Send(SendError::Limit)), "{text}");
        }
        // Whoever has a token's name as theirs is paid only by it with an @.
        for text in
            ["/send usdc 5", "/send eth 5", "/send @bob USDC 5", "/send 5 USDC ETH", "/send USDC"]
        {
            assert_eq!(parse(text), Err(NoCommand::Send(SendError::Words)), "{text}");
        }
        let assets = Assets { coin: "ETH", tokens: &[] };
        assert_eq!(assets.parse_amount(" 5  eth ").unwrap().1, Some(Asset::Native));
        assert_eq!(assets.parse_amount("5").unwrap().1, None);
        for text in ["5 USDC", "5 ETH 5"] {
            assert_eq!(assets.parse_amount(text), Err(SendError::Asset), "{text}");
        }
    }

    #[test]
    fn what_can_not_be_read_is_refused() {
        // What is no token here may be somebody's name, and is not paid by it.
        for text in ["/send @bob 1 USD", "/send 5 wbtc", "/send 5 bob"] {
            assert_eq!(parse(text), Err(NoCommand::Send(SendError::Mark)), "{text}");
        }
        for text in ["/send @bob 1 2", "/send @bob @ann"] {
            assert_eq!(parse(text), Err(NoCommand::Send(SendError::Words)), "{text}");
        }
        for text in ["/send @bob 1,5", "/send @bob -1", "/send @bob 1e3", "/send @bob .5"] {
            let error = parse(text);
            assert!(matches!(error, Err(NoCommand::Send(SendError::Amount(_)))), "{error:?}");
        }
        for text in ["/send 0x12 1", "/send @b__b 1", "/send bob.eth 1"] {
            let error = parse(text);
            assert!(matches!(error, Err(NoCommand::Send(SendError::Recipient(_)))), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "/?\\PC{0,40}") {
            let _ = parse(&text);
            let _ = parse(&format!("/send {text}"));
        }
    }
}
