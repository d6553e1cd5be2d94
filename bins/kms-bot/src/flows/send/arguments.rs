//! The arguments of `/send`.

use kms_types::{Asset, QuoteAmount, Recipient};

use crate::assets::{Assets, is_amount, parse_amount};
use crate::input::InputError;

/// What `/send` was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SendArguments {
    pub(super) to: Option<Recipient>,
    pub(super) amount: Option<QuoteAmount>,
    pub(super) asset: Asset,
}

impl SendArguments {
    /// Parses recipient and amount in either order; a symbol may follow the amount. A symbol
    /// anywhere else is refused: it may also be a username, whose holder must not be paid by
    /// mistake.
    pub(super) fn parse<'a>(
        words: impl Iterator<Item = &'a str>,
        assets: Assets<'_>,
    ) -> Result<Self, InputError> {
        let mut arguments = Self::default();
        let mut after_amount = false;
        for word in words {
            if is_amount(word) {
                let amount = parse_amount(word)?;
                if arguments.amount.replace(amount).is_some() {
                    return Err(InputError::SendWords);
                }
                after_amount = true;
                continue;
            }
            if let Some(asset) = assets.find(word) {
                if !after_amount {
                    return Err(InputError::SendWords);
                }
                arguments.asset = asset;
            } else if after_amount && !is_marked_recipient(word) {
                // It may be meant as a token that is not known here, and be a username as well.
                return Err(InputError::UnmarkedRecipient);
            } else if arguments.to.replace(word.parse()?).is_some() {
                return Err(InputError::SendWords);
            }
            after_amount = false;
        }
        Ok(arguments)
    }
}

/// Reports whether a text is marked as a recipient: a `@username`, an address or a name with a dot.
/// A bare word is accepted as a username only directly behind `/send`.
pub(super) fn is_marked_recipient(text: &str) -> bool {
    let text = text.trim();
    text.starts_with('@') || text.starts_with("0x") || text.starts_with("0X") || text.contains('.')
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

    fn token(to: &str, amount: &str, asset: &str) -> Result<SendArguments, InputError> {
        let (to, amount) = (Some(to.parse().unwrap()), Some(parse_amount(amount).unwrap()));
        Ok(SendArguments { to, amount, asset: asset.parse().unwrap() })
    }

    fn coins(to: Option<&str>, amount: Option<&str>) -> Result<SendArguments, InputError> {
        let to = to.map(|to| to.parse().unwrap());
        let amount = amount.map(|amount| parse_amount(amount).unwrap());
        Ok(SendArguments { to, amount, asset: Asset::Native })
    }

    #[test]
    fn recipient_and_amount_come_in_either_order() {
        let address = "0x1486F47822927e3F2321E0bE433247dDADAf8F8C";
        assert_eq!(parse("bob 0.5"), coins(Some("@bob"), Some("0.5")));
        assert_eq!(parse("0.5 eth @bob"), coins(Some("@bob"), Some("0.5")));
        assert_eq!(parse("5 @eth"), coins(Some("@eth"), Some("5")));
        assert_eq!(parse("@bob ALL"), coins(Some("@bob"), Some("all")));
        assert_eq!(parse("@all 1"), coins(Some("@all"), Some("1")));
        assert_eq!(parse(&format!("{address} 1")), coins(Some(address), Some("1")));
        assert_eq!(parse(""), coins(None, None));
        assert_eq!(parse("@bob"), coins(Some("@bob"), None));
        assert_eq!(parse("1"), coins(None, Some("1")));
    }

    #[test]
    fn a_token_is_named_behind_its_amount() {
        for words in ["@bob 5 USDC", "5 usdc @bob", "bob 5 Usdc"] {
            assert_eq!(parse(words), token("@bob", "5", "USDC"), "{words}");
        }
        assert_eq!(parse("@bob all stETH"), token("@bob", "all", "stETH"));
        assert_eq!(parse("5 USDC @usdc"), token("@usdc", "5", "USDC"));
        // A user whose name is a symbol is paid by `@name` only.
        for words in ["usdc 5", "eth 5", "@bob USDC 5", "5 USDC ETH", "USDC"] {
            assert_eq!(parse(words), Err(InputError::SendWords), "{words}");
        }
    }

    #[test]
    fn ambiguous_and_malformed_words_are_refused() {
        for words in ["@bob 1 USD", "5 wbtc", "5 bob"] {
            assert_eq!(parse(words), Err(InputError::UnmarkedRecipient), "{words}");
        }
        for words in ["@bob 1 2", "@bob @ann"] {
            assert_eq!(parse(words), Err(InputError::SendWords), "{words}");
        }
        for words in ["@bob 1,5", "@bob -1", "@bob 1e3", "@bob .5"] {
            assert!(matches!(parse(words), Err(InputError::Amount(_))), "{words}");
        }
        for words in ["0x12 1", "@b__b 1", "bob.eth 1"] {
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
