//! The arguments of `/send`.

use kms_types::wire::Network;
use kms_types::{
    AmountError, Asset, QuoteAmount, TypedAmount, TypedRecipient, TypedRecipientError,
};

use crate::assets::{Assets, ON};
use crate::input::InputError;

/// What `/send` was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SendArguments {
    pub(super) to: Option<TypedRecipient>,
    pub(super) amount: Option<QuoteAmount>,
    /// The asset, if one is named.
    pub(super) asset: Option<Asset>,
    /// The network, if one is named, or if the asset is on one other network alone.
    pub(super) on: Option<Network>,
}

impl SendArguments {
    /// Parses recipient, amount, symbol and `on` with a network, in any order.
    ///
    /// Without a network, the payment is on the first one; one that can be read on a single other
    /// network alone, because that one has the asset, is on that one.
    pub(super) fn parse<'a>(
        words: impl Iterator<Item = &'a str> + Clone,
        assets: Assets<'_>,
    ) -> Result<Self, InputError> {
        let (words, on) = assets.take_network(words)?;
        let is_name = |word: &str| assets.is_symbol_or_network(word);
        let read = |network: &Network| -> Result<Self, InputError> {
            let arguments = Self::read(words.iter().copied(), Assets::on(network), is_name)?;
            Ok(Self { on: Some(network.clone()), ..arguments })
        };
        if let Some(network) = on {
            return read(network);
        }
        Self::read(words.iter().copied(), assets, is_name).or_else(|error| {
            let others = assets.networks().iter().skip(1).filter_map(|it| read(it).ok());
            let mut others = others.filter(|arguments| arguments.asset.is_some());
            match (others.next(), others.next()) {
                (Some(only), None) => Ok(only),
                (None, _) | (Some(_), Some(_)) => Err(error),
            }
        })
    }

    /// Parses recipient, amount and symbol, in any order.
    ///
    /// A bare word is a username only directly behind `/send` or `to`: anywhere else it may be
    /// meant as a token that is not known here. A symbol or a name of any network is never a
    /// username; such a user is paid by `@name`. A symbol that begins with a digit needs an amount
    /// beside it.
    fn read<'a>(
        mut words: impl Iterator<Item = &'a str> + Clone,
        assets: Assets<'_>,
        is_name_of_network: impl Fn(&str) -> bool,
    ) -> Result<Self, InputError> {
        let names_recipient =
            words.clone().any(|word| !is_amount(word) && TypedRecipient::is_meant(word));
        let (mut arguments, mut asset) = (Self::default(), None);
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
                set(&mut asset, found)?;
            } else if word.starts_with('+') {
                return Err(signed(word, words));
            } else if TypedAmount::is_hexadecimal(word) && names_recipient {
                return Err(AmountError::Hexadecimal.into());
            } else if TypedAmount::is_meant(word) {
                if amount {
                    // "1 000" is one number to its writer.
                    return Err(AmountError::Separator.into());
                }
                let (parsed, symbol) = assets.parse_word(word)?;
                set(&mut arguments.amount, parsed)?;
                if let Some(symbol) = symbol {
                    set(&mut asset, symbol)?;
                }
                before = Before::Amount;
            } else if word.eq_ignore_ascii_case("to") {
                before = Before::To;
            } else if !TypedRecipient::is_meant(word) && (!name || is_name_of_network(word)) {
                return Err(arguments.unknown(assets, word));
            } else {
                let to = TypedRecipient::parse(word, assets.chain_id)?;
                set(&mut arguments.to, to).map_err(|_twice| InputError::SecondRecipient)?;
            }
        }
        if let (Some(word), None) = (numeric, &arguments.amount) {
            assets.parse_word(word)?;
        }
        arguments.asset = asset;
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
    match TypedRecipient::parse(&words.join(" "), None) {
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
    use kms_types::Token;
    use proptest::prelude::*;

    use super::*;

    fn parse(words: &str) -> Result<SendArguments, InputError> {
        let token = |symbol: &str| {
            let symbol = symbol.parse().unwrap();
            Token { symbol, address: [1; 20].into(), decimals: 6 }
        };
        let tokens = [token("USDC"), token("stETH"), token("1INCH")];
        SendArguments::parse(words.split_whitespace(), Assets::new("ETH", &tokens))
    }

    fn pays(to: &str, amount: &str, asset: &str) -> Result<SendArguments, InputError> {
        let to = Some(to).filter(|to| !to.is_empty());
        let to = to.map(|to| TypedRecipient::parse(to, None).unwrap());
        let amount = Some(amount).filter(|amount| !amount.is_empty());
        let amount = amount.map(|amount| amount.to_owned().try_into().unwrap());
        let asset = Some(asset).filter(|asset| !asset.is_empty());
        let asset = asset.map(|asset| asset.parse().unwrap());
        Ok(SendArguments { to, amount, asset, on: None })
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
            let asset = if named && !words.contains("@eth") { "native" } else { "" };
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
        assert_eq!(parse("eth 5"), pays("", "5", "native"));
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

    #[test]
    fn a_payment_names_its_network_or_is_on_the_first() {
        let token = |symbol: &str| Token {
            symbol: symbol.parse().unwrap(),
            address: [1; 20].into(),
            decimals: 6,
        };
        let network = |chain_id, name: &str, symbol: &str, tokens: &[&str]| Network {
            short_name: name.to_lowercase(),
            name: name.to_owned(),
            chain_id,
            symbol: symbol.to_owned(),
            tokens: tokens.iter().copied().map(token).collect(),
            explorer: None,
        };
        let networks = [
            network(1, "Ethereum", "ETH", &["USDC"]),
            network(8_453, "Base", "ETH", &["USDC", "AERO"]),
            network(137, "Polygon", "POL", &["USDC", "DAI"]),
            network(100, "Gnosis", "xDAI", &["DAI"]),
        ];
        let read = |words: &str, networks: &[Network]| {
            SendArguments::parse(words.split_whitespace(), Assets::of(networks))
        };
        let on = |words: &str| read(words, &networks).map(|found| found.on.map(|it| it.chain_id));
        for (words, chain_id) in [
            ("@bob 5 USDC", None),
            ("@bob 5", None),
            ("@bob 5 USDC on base", Some(8_453)),
            ("on Base, 5 usdc @bob", Some(8_453)),
            ("5 eth ON BASE to bob", Some(8_453)),
            ("@bob 5 on polygon", Some(137)),
            ("@bob 5 on ethereum", Some(1)),
            // An asset of one other network alone.
            ("@bob 5 POL", Some(137)),
            ("5aero @bob", Some(8_453)),
            ("on polygon", Some(137)),
            // A bare symbol or name of another network is not the username of a recipient.
            ("POL 5", Some(137)),
        ] {
            assert_eq!(on(words), Ok(chain_id), "{words}");
        }
        let paid = read("on base bob 5 usdc", &networks).unwrap();
        assert_eq!(SendArguments { on: None, ..paid }, pays("@bob", "5", "USDC").unwrap());
        for words in ["@bob 5 on mainnet", "@bob 5 on @ann"] {
            let refused = on(words);
            assert!(matches!(refused, Err(InputError::UnknownNetwork { .. })), "{words}");
        }
        // Two networks have it, the named one does not, two are named, or none is.
        for words in ["@bob 5 DAI", "@bob 5 POL on base", "@bob 5 on base on base", "@bob 5 on"] {
            assert!(on(words).is_err(), "{words}");
        }
        for words in ["base 5", "5 usdc to base", "dai 5", "pol 5 on base", "to Gnosis 5 usdc"] {
            assert!(on(words).is_err(), "{words}");
        }
        assert_eq!(read("@base 5", &networks), pays("@base", "5", ""));
        // With one network there is none to name.
        let refused = read("@bob 5 on ethereum", &networks[..1]);
        assert!(matches!(refused, Err(InputError::UnknownRest { .. })), "{refused:?}");
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
            let asset = if symbol == "ETH" { "native" } else { symbol };
            prop_assert_eq!(parse(&text), pays("@bob", &amount, asset), "{}", text);
        }

        #[test]
        fn an_amount_joined_to_a_symbol_is_read_in_one_way_or_refused(
            amount in "[0-9]{1,6}",
            symbol in "[0-9]{0,2}[A-Za-z]{1,5}",
            known in "[0-9]{0,2}[A-Za-z]{1,5}",
        ) {
            let tokens = [&symbol, &known].map(|symbol| symbol.parse().ok());
            let tokens: Vec<_> = tokens
                .into_iter()
                .flatten()
                .map(|symbol| Token { symbol, address: [1; 20].into(), decimals: 6 })
                .collect();
            let assets = Assets::new("ETH", &tokens);
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
