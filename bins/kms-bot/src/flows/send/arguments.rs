//! The arguments of `/send`.

use kms_types::{AmountError, Asset, QuoteAmount, TypedAmount, TypedRecipient};

use crate::assets::Assets;
use crate::input::InputError;

/// What `/send` was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SendArguments {
    pub(super) to: Option<TypedRecipient>,
    pub(super) amount: Option<QuoteAmount>,
    pub(super) asset: Asset,
}

impl SendArguments {
    /// Parses recipient, amount and symbol, in any order.
    ///
    /// A bare word is a username only directly behind `/send` or `to`: anywhere else it may be
    /// meant as a token that is not known here. A symbol is never a username; a user whose name is
    /// a symbol is paid by `@name`.
    pub(super) fn parse<'a>(
        words: impl Iterator<Item = &'a str>,
        assets: Assets<'_>,
    ) -> Result<Self, InputError> {
        let (mut arguments, mut asset) = (Self::default(), None);
        let mut before = Before::Command;
        for word in words {
            let (name, amount) = (before.expects_name(), before == Before::Amount);
            before = Before::Other;
            if TypedAmount::is_meant(word) {
                if amount {
                    // "1 000" is one number to its writer.
                    return Err(AmountError::Separator.into());
                }
                let TypedAmount { amount: parsed, symbol } = word.parse()?;
                set(&mut arguments.amount, parsed)?;
                if let Some(symbol) = symbol {
                    set(&mut asset, assets.expect(&symbol)?)?;
                }
                before = Before::Amount;
            } else if let Some(found) = assets.find(word) {
                set(&mut asset, found)?;
            } else if word.eq_ignore_ascii_case("to") {
                before = Before::To;
            } else if !name && !TypedRecipient::is_marked(word) {
                return Err(assets.unknown(word));
            } else {
                set(&mut arguments.to, TypedRecipient::parse(word, assets.chain_id)?)?;
            }
        }
        arguments.asset = asset.unwrap_or_default();
        Ok(arguments)
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
        let tokens = [token("USDC"), token("stETH")];
        SendArguments::parse(words.split_whitespace(), Assets::new("ETH", &tokens))
    }

    fn pays(to: &str, amount: &str, asset: &str) -> Result<SendArguments, InputError> {
        let to = Some(to).filter(|to| !to.is_empty());
        let to = to.map(|to| TypedRecipient::parse(to, None).unwrap());
        let amount = Some(amount).filter(|amount| !amount.is_empty());
        let amount = amount.map(|amount| amount.to_owned().try_into().unwrap());
        Ok(SendArguments { to, amount, asset: asset.parse().unwrap() })
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
            assert_eq!(parse(words), pays(to, amount, "native"), "{words}");
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
    fn ambiguous_and_malformed_words_are_refused_with_their_reason() {
        for (words, unknown) in [
            ("@bob 1 USD", "USD"),
            ("5 wbtc", "wbtc"),
            ("5 bob", "bob"),
            ("5wbtc @bob", "wbtc"),
            ("@bob 5 for lunch", "for"),
        ] {
            let known = "ETH, USDC, stETH".to_owned();
            let expected = InputError::UnknownAsset { word: unknown.to_owned(), known };
            assert_eq!(parse(words), Err(expected), "{words}");
        }
        for (words, why) in [
            ("@bob 1,5", AmountError::Comma),
            ("@bob -1", AmountError::Sign),
            ("@bob 1e3", AmountError::Exponent),
            ("@bob 1 000", AmountError::Separator),
            ("$5 @bob", AmountError::Currency),
        ] {
            assert_eq!(parse(words), Err(why.into()), "{words}");
        }
        for words in ["@bob 1 2 @ann", "@bob @ann", "1 @bob 2"] {
            let refused = parse(words);
            assert!(
                matches!(refused, Err(InputError::SendWords | InputError::Amount(_))),
                "{words}"
            );
        }
        for words in ["0x12 1", "@b__b 1", "bob.eth 1", "t.me/+abc 1"] {
            assert!(matches!(parse(words), Err(InputError::Recipient(_))), "{words}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
