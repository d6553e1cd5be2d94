//! The arguments of `/send`.

use kms_types::wire::Network;
use kms_types::{
    AmountError, QuoteAmount, Recipient, TypedAmount, TypedRecipient, TypedRecipientError,
};

use super::Money;
use crate::assets::{Assets, ON};
use crate::input::InputError;

/// What `/send` was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SendArguments {
    pub(super) to: Option<TypedRecipient>,
    pub(super) amount: Option<QuoteAmount>,
    pub(super) money: Money,
}

impl SendArguments {
    /// Parses recipient, amount, symbol and `on` with a network, in any order. An address may name
    /// the network too.
    ///
    /// A bare word is a username only directly behind `/send` or `to`: anywhere else it may be
    /// meant as a token that is not known here. A symbol or a name of any network is never a
    /// username; such a user is paid by `@name`. A symbol that begins with a digit needs an amount
    /// beside it.
    pub(super) fn parse<'a>(
        words: impl Iterator<Item = &'a str> + Clone,
        assets: Assets<'_>,
    ) -> Result<Self, InputError> {
        let (words, on) = assets.take_network(words)?;
        let mut words = words.into_iter();
        let names_recipient =
            words.clone().any(|word| !is_amount(word) && TypedRecipient::is_meant(word));
        let (mut arguments, mut symbol, mut marked) = (Self::default(), None, None);
        // A symbol that begins like an amount.
        let mut numeric = None;
        let mut before = Before::Command;
        while let Some(word) = words.next() {
            let (name, amount) = (before.expects_name(), before == Before::Amount);
            before = Before::Other;
            if let Some(found) = assets.find(word) {
                if TypedAmount::is_meant(word) {
                    numeric = Some(word);
                }
                set(&mut symbol, found)?;
            } else if word.starts_with('+') {
                return Err(signed(word, words));
            } else if TypedAmount::is_hexadecimal(word) && names_recipient {
                return Err(AmountError::Hexadecimal.into());
            } else if TypedAmount::is_meant(word) {
                if amount {
                    // "1 000" is one number to its writer.
                    return Err(AmountError::Separator.into());
                }
                let (parsed, joined) = assets.parse_word(word)?;
                set(&mut arguments.amount, parsed)?;
                if let Some(joined) = joined {
                    set(&mut symbol, joined)?;
                }
                before = Before::Amount;
            } else if word.eq_ignore_ascii_case("to") {
                before = Before::To;
            } else if !name && !TypedRecipient::is_meant(word) {
                return Err(arguments.unknown(assets, word));
            } else {
                let (to, network) = recipient(word, assets)?;
                set(&mut arguments.to, to).map_err(|_twice| InputError::SecondRecipient)?;
                marked = network;
            }
        }
        if let (Some(word), None) = (numeric, &arguments.amount) {
            assets.parse_word(word)?;
        }
        let money = Money { symbol: symbol.map(str::to_owned), on: on.cloned() };
        arguments.money = money.also_on(marked.cloned())?;
        Ok(arguments)
    }

    /// The error about a word that belongs nowhere, after these.
    fn unknown(&self, assets: Assets<'_>, word: &str) -> InputError {
        let (word, known) = assets.describe_unknown(word);
        match (&self.to, &self.amount) {
            (None, _) => InputError::UnknownWord { word, known },
            (Some(_), None) => InputError::UnknownAmount { word, known },
            (Some(_), Some(_)) => InputError::UnknownRest { word, known },
        }
    }
}

/// Reads a recipient, and the network that it is marked for.
pub(super) fn recipient<'a>(
    text: &str,
    assets: Assets<'a>,
) -> Result<(TypedRecipient, Option<&'a Network>), InputError> {
    let (to, chain_id) = TypedRecipient::parse(text, &assets.chain_ids())?;
    if let TypedRecipient::Named(Recipient::Username(name)) = &to
        && !TypedRecipient::is_meant(text)
    {
        assets.expect_username(name.as_str())?;
    }
    let mut networks = assets.networks().iter();
    Ok((to, networks.find(|network| Some(network.chain_id) == chain_id)))
}

/// Reports whether words are a recipient and an amount, and at most a symbol, `to` and `on` with a
/// network beside them.
pub(super) fn are_meant<'a>(mut words: impl Iterator<Item = &'a str>) -> bool {
    let (mut recipients, mut amounts, mut others) = (0, 0, 0);
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case(ON) {
            words.next();
        } else if TypedAmount::is_meant(word) {
            amounts += 1;
        } else if TypedRecipient::is_marked(word) {
            recipients += 1;
        } else if !word.eq_ignore_ascii_case("to") {
            others += 1;
        }
    }
    (recipients, amounts) == (1, 1) && others <= 1
}

/// Whether a word is meant as an amount, if another word is the recipient.
fn is_amount(word: &str) -> bool {
    TypedAmount::is_meant(word) || TypedAmount::is_hexadecimal(word)
}

/// The error about a word that begins with `+`: a phone number, perhaps in several words, or an
/// amount with a sign.
fn signed<'a>(word: &'a str, rest: impl Iterator<Item = &'a str>) -> InputError {
    let is_number = |word: &&str| !word.contains(|c: char| c.is_alphabetic() || c == '@');
    let words: Vec<_> = std::iter::once(word).chain(rest.take_while(is_number)).collect();
    match TypedRecipient::parse(&words.join(" "), &[]) {
        Err(error @ TypedRecipientError::Phone) => error.into(),
        Ok(_) | Err(_) => AmountError::Sign.into(),
    }
}

/// What stands before a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Command,
    To,
    Amount,
    Other,
}

impl Before {
    /// Whether a bare word is a username here.
    fn expects_name(self) -> bool {
        match self {
            Self::Command | Self::To => true,
            Self::Amount | Self::Other => false,
        }
    }
}

fn set<T>(place: &mut Option<T>, value: T) -> Result<(), InputError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(InputError::SendWords),
    }
}

#[cfg(test)]
mod tests {
    use kms_types::Symbol;
    use proptest::prelude::*;

    use super::*;
    use crate::assets::network;

    fn parse(words: &str) -> Result<SendArguments, InputError> {
        let network = network(1, "Test", "ETH", &["USDC", "stETH", "1INCH"]);
        SendArguments::parse(words.split_whitespace(), Assets::on(&network))
    }

    fn pays(to: &str, amount: &str, symbol: &str) -> Result<SendArguments, InputError> {
        let to = Some(to).filter(|to| !to.is_empty());
        let to = to.map(|to| TypedRecipient::parse(to, &[]).unwrap().0);
        let amount = Some(amount).filter(|amount| !amount.is_empty());
        let amount = amount.map(|amount| amount.to_owned().try_into().unwrap());
        let symbol = Some(symbol.to_owned()).filter(|symbol| !symbol.is_empty());
        Ok(SendArguments { to, amount, money: Money { symbol, on: None } })
    }

    #[test]
    fn recipient_and_amount_come_in_either_order() {
        let address = "0x1486F47822927e3F2321E0bE433247dDADAf8F8C";
        for (words, to, amount) in [
            ("bob 0.5", "@bob", "0.5"),
            ("0.5 eth @bob", "@bob", "0.5"),
            ("0.5ETH @bob", "@bob", "0.5"),
            ("@bob .5", "@bob", "0.5"),
            ("0.5 to @bob", "@bob", "0.5"),
            ("0.5 to bob", "@bob", "0.5"),
            ("to bob 0.5", "@bob", "0.5"),
            ("t.me/bob 0.5", "@bob", "0.5"),
            ("https://t.me/bob 0.5", "@bob", "0.5"),
            ("\u{660}.\u{665} @bob", "@bob", "0.5"),
            ("5 @eth", "@eth", "5"),
            ("@bob ALL", "@bob", "all"),
            ("@all 1", "@all", "1"),
            (&format!("{address} 1"), address, "1"),
            (&format!("{} 1", &address[2..]), address, "1"),
            (&format!("1 {}", address.to_uppercase()), address, "1"),
            ("tg://user?id=4712 1", "tg://user?id=4712", "1"),
            ("", "", ""),
            ("@bob", "@bob", ""),
            ("1", "", "1"),
            ("0.5 to", "", "0.5"),
        ] {
            let named = words.split_whitespace().any(|word| word.to_lowercase().ends_with("eth"));
            let asset = if named && !words.contains("@eth") { "ETH" } else { "" };
            assert_eq!(parse(words), pays(to, amount, asset), "{words}");
        }
    }

    #[test]
    fn a_token_is_named_anywhere() {
        for words in ["@bob 5 USDC", "5 usdc @bob", "bob 5 Usdc", "5usdc @bob", "@bob USDC 5"] {
            assert_eq!(parse(words), pays("@bob", "5", "USDC"), "{words}");
        }
        assert_eq!(parse("all @bob stETH"), pays("@bob", "all", "stETH"));
        assert_eq!(parse("5 USDC @usdc"), pays("@usdc", "5", "USDC"));
        // Never a username: that is written with its @.
        assert_eq!(parse("usdc 5"), pays("", "5", "USDC"));
        assert_eq!(parse("eth 5"), pays("", "5", "ETH"));
        for words in ["5 USDC ETH", "5usdc usdc @bob"] {
            assert_eq!(parse(words), Err(InputError::SendWords), "{words}");
        }
    }

    #[test]
    fn a_token_whose_symbol_begins_with_a_digit_is_named_apart_from_the_amount() {
        for words in ["5 1INCH @bob", "@bob 5 1inch", "1Inch 5 @bob", "bob 1INCH 5"] {
            assert_eq!(parse(words), pays("@bob", "5", "1INCH"), "{words}");
        }
        assert_eq!(parse("all 1inch @bob"), pays("@bob", "all", "1INCH"));
        assert_eq!(parse("1 1inch @bob"), pays("@bob", "1", "1INCH"));
        for (words, joined) in [
            ("51inch @bob", "51inch"),
            ("@bob 0.51INCH", "0.51INCH"),
            ("1inch @bob", "1inch"),
            ("@bob 1INCH", "1INCH"),
        ] {
            let (word, symbol) = (joined.to_owned(), "1INCH".to_owned());
            assert_eq!(parse(words), Err(InputError::JoinedAmount { word, symbol }), "{words}");
        }
    }

    fn networks() -> Vec<Network> {
        vec![
            network(1, "Ethereum", "ETH", &["USDC"]),
            network(8_453, "Base", "ETH", &["USDC", "AERO"]),
            network(137, "Polygon", "POL", &["USDC", "DAI"]),
            network(100, "Gnosis", "xDAI", &["DAI"]),
            Network {
                short_name: "arbitrum".to_owned(),
                ..network(42_161, "Arbitrum One (fast)", "ETH", &["USDC"])
            },
        ]
    }

    fn parse_among(words: &str, networks: &[Network]) -> Result<SendArguments, InputError> {
        SendArguments::parse(words.split_whitespace(), Assets::of(networks))
    }

    #[test]
    fn a_payment_may_name_its_network() {
        let address = "0x1486F47822927e3F2321E0bE433247dDADAf8F8C";
        let networks = networks();
        let on = |words: &str| {
            let read = parse_among(words, &networks)?;
            Ok(read.money.on.map(|network| network.chain_id))
        };
        for (words, chain_id) in [
            ("@bob 5 USDC", None),
            ("@bob 5", None),
            ("@bob 5 USDC on base", Some(8_453)),
            ("on Base, 5 usdc @bob", Some(8_453)),
            ("5 eth ON BASE to bob", Some(8_453)),
            ("@bob 5 on polygon", Some(137)),
            ("@bob 5 on ethereum", Some(1)),
            ("@bob 5 on Arbitrum One (fast)", Some(42_161)),
            ("on arbitrum one (fast) 5 USDC @bob", Some(42_161)),
            ("@bob 5 on arbitrum", Some(42_161)),
            ("on polygon", Some(137)),
            // Which networks have it is looked up when it is paid.
            ("@bob 5 POL", None),
            ("5aero @bob", None),
            ("@bob 5 DAI", None),
            // An address may name it.
            (&format!("base:{address} 5"), Some(8_453)),
            (&format!("5 usdc ethereum:{address}@8453 on base"), Some(8_453)),
            (&format!("eip155:137:{address} 5 pol"), Some(137)),
            (&format!("ethereum:{address} 5"), None),
        ] {
            assert_eq!(on(words), Ok(chain_id), "{words}");
        }
        let paid = parse_among("on base bob 5 usdc", &networks).unwrap();
        let money = Money { on: None, ..paid.money };
        assert_eq!(SendArguments { money, ..paid }, pays("@bob", "5", "USDC").unwrap());
        for words in ["@bob 5 on mainnet", "@bob 5 on @ann"] {
            let refused = on(words);
            assert!(matches!(refused, Err(InputError::UnknownNetwork { .. })), "{words}");
        }
        for words in ["@bob 5 POL on base", "5 usdc on gnosis to bob", "@bob 1 xdai on polygon"] {
            let refused = on(words);
            assert!(matches!(refused, Err(InputError::UnknownAsset { .. })), "{words}");
        }
        let refused = on(&format!("base:{address} 5 on polygon"));
        assert!(matches!(refused, Err(InputError::TwoNetworks { .. })), "{refused:?}");
        let refused = on(&format!("eip155:10:{address} 5"));
        assert!(matches!(refused, Err(InputError::Recipient(_))), "{refused:?}");
        // Two are named, or none is.
        for words in ["@bob 5 on base on base", "@bob 5 on"] {
            assert!(on(words).is_err(), "{words}");
        }
        // With one network there is none to name.
        let refused = parse_among("@bob 5 on ethereum", &networks[..1]);
        assert!(matches!(refused, Err(InputError::UnknownRest { .. })), "{refused:?}");
    }

    #[test]
    fn a_bare_symbol_or_network_is_never_a_username() {
        let networks = networks();
        for words in ["pol 5", "POL 5", "5 to pol", "to Aero 5", "dai 5 on polygon", "xDAI 5"] {
            assert_eq!(parse_among(words, &networks).unwrap().to, None, "{words}");
        }
        for words in [
            "base 5",
            "5 USDC to base",
            "to Gnosis 5 usdc",
            "arbitrum 5",
            "one 5",
            "base, 5",
            "(Base) 5 on polygon",
        ] {
            let refused = parse_among(words, &networks);
            assert!(matches!(refused, Err(InputError::NetworkAsRecipient { .. })), "{words}");
        }
        // The symbol in punctuation, and one that the named network does not have.
        for words in ["pol, 5", "(aero) 5", "5 to \"dai\""] {
            let refused = parse_among(words, &networks);
            assert!(matches!(refused, Err(InputError::UnknownWord { .. })), "{words}");
        }
        for words in ["pol 5 on base", "usdc 5 on gnosis"] {
            let refused = parse_among(words, &networks);
            assert!(matches!(refused, Err(InputError::UnknownAsset { .. })), "{words}");
        }
        // What is called so elsewhere, with one network, too.
        for (words, networks) in [
            ("usdt 5", &networks[..]),
            ("5 USDC to mainnet", &networks),
            ("Matic 5", &networks),
            ("usdt 5", &networks[..1]),
            ("5 usdc to base", &networks[..1]),
        ] {
            let refused = parse_among(words, networks);
            assert!(matches!(refused, Err(InputError::UnknownWord { .. })), "{words}: {refused:?}");
        }
        // Until the networks are known, any word may be one.
        assert_eq!(parse_among("pol 5", &[]), Err(InputError::UnknownNetworks));
        for (words, name) in [("@base 5", "@base"), ("@pol 5", "@pol"), ("bob 5", "@bob")] {
            assert_eq!(parse_among(words, &networks), pays(name, "5", ""), "{words}");
        }
    }

    #[test]
    fn a_sentence_is_not_meant_as_a_payment() {
        for words in ["@bob 0.5", "0.5 ETH to @bob", "5 usdc t.me/bob", "@bob 5 usdc on base"] {
            assert!(are_meant(words.split_whitespace()), "{words}");
        }
        for words in ["@bob", "0.5", "orange ladder 5 sings.", "@bob @ann 1", "to 5 usdc"] {
            assert!(!are_meant(words.split_whitespace()), "{words}");
        }
    }

    #[test]
    fn ambiguous_and_malformed_words_are_refused_with_their_reason() {
        let known = || ["ETH", "USDC", "stETH", "1INCH"].map(str::to_owned).to_vec();
        for (words, unknown) in [("5 wbtc", "wbtc"), ("5 bob", "bob"), ("5 wbtc @bob", "wbtc")] {
            let (word, known) = (unknown.to_owned(), known());
            assert_eq!(parse(words), Err(InputError::UnknownWord { word, known }), "{words}");
        }
        for (words, unknown) in [("@bob five", "five"), ("@bob max USDC", "max")] {
            let (word, known) = (unknown.to_owned(), known());
            assert_eq!(parse(words), Err(InputError::UnknownAmount { word, known }), "{words}");
        }
        for (words, unknown) in [("@bob 1 USD", "USD"), ("@bob 5 for lunch", "for")] {
            let (word, known) = (unknown.to_owned(), known());
            assert_eq!(parse(words), Err(InputError::UnknownRest { word, known }), "{words}");
        }
        for words in ["@bob @ann 1", "1 @bob @ann", "bob to @ann"] {
            assert_eq!(parse(words), Err(InputError::SecondRecipient), "{words}");
        }
        assert!(matches!(parse("5wbtc @bob"), Err(InputError::UnknownAsset { .. })));
        for (words, why) in [
            ("@bob 1,5", AmountError::Comma),
            ("@bob -1", AmountError::Sign),
            ("@bob 1e3", AmountError::Exponent),
            ("@bob 1 000", AmountError::Separator),
            ("$5 @bob", AmountError::Currency),
            ("+5 @bob", AmountError::Sign),
            ("@bob 0x10", AmountError::Hexadecimal),
            ("0x10 @bob", AmountError::Hexadecimal),
            ("@bob \u{bd}", AmountError::Format),
        ] {
            assert_eq!(parse(words), Err(why.into()), "{words}");
        }
        for words in ["@bob 1 2 @ann", "1 @bob 2"] {
            let refused = parse(words);
            assert!(
                matches!(refused, Err(InputError::SendWords | InputError::Amount(_))),
                "{words}"
            );
        }
        for (words, why) in [
            ("bob@example.org 1", TypedRecipientError::Email),
            ("@bob0.5", TypedRecipientError::JoinedAmount),
            ("@bob:0.5 ETH", TypedRecipientError::JoinedAmount),
            ("+4915112345678 5", TypedRecipientError::Phone),
            ("5 +49 151 12345678", TypedRecipientError::Phone),
        ] {
            assert_eq!(parse(words), Err(why.into()), "{words}");
        }
        for words in [
            "0x12 1",
            "@b__b 1",
            "bob.eth 1",
            "t.me/+abc 1",
            "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2 1",
            "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq 1",
        ] {
            assert!(matches!(parse(words), Err(InputError::Recipient(_))), "{words}");
        }
    }

    proptest! {
        /// Where one order of the words is read, every other order is read as the same, or refused.
        #[test]
        fn words_in_any_order_never_pay_another_amount(
            amount in "[1-9][0-9]{0,3}(\\.[0-9]{1,2})?",
            symbol in prop::sample::select(vec!["ETH", "usdc", "stETH", "1INCH", "1inch"]),
            order in Just([0, 1, 2]).prop_shuffle(),
        ) {
            let words = [&amount, symbol, "@bob"];
            let text = order.map(|place| words[place]).join(" ");
            let symbol = match symbol {
                "usdc" => "USDC",
                "1inch" => "1INCH",
                symbol => symbol,
            };
            prop_assert_eq!(parse(&text), pays("@bob", &amount, symbol), "{}", text);
        }

        #[test]
        fn an_amount_joined_to_a_symbol_is_read_in_one_way_or_refused(
            amount in "[0-9]{1,6}",
            symbol in "[0-9]{0,2}[A-Za-z]{1,5}",
            known in "[0-9]{0,2}[A-Za-z]{1,5}",
        ) {
            let is_symbol = |symbol: &&str| symbol.parse::<Symbol>().is_ok();
            let tokens: Vec<_> = [symbol.as_str(), &known].into_iter().filter(is_symbol).collect();
            let network = network(1, "Test", "ETH", &tokens);
            let assets = Assets::on(&network);
            let text = format!("{amount}{symbol}");
            if let Ok((read, asset)) = assets.parse_word(&text) {
                // No asset has a symbol that would split the word at another place.
                let readings = (1..text.len()).filter(|at| {
                    let (number, rest) = text.split_at(*at);
                    number.bytes().all(|b| b.is_ascii_digit()) && assets.find(rest).is_some()
                });
                prop_assert!(readings.count() <= 1, "{} as {:?} {:?}", text, read, asset);
                prop_assert!(assets.find(&text).is_none());
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
