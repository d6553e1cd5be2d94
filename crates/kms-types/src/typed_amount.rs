//! Amounts as people type them. The wire has the strict grammar of [`Amount`](crate::Amount).

use std::str::FromStr;

use crate::typed_recipient::is_phone;
use crate::{AmountError, QuoteAmount, Symbol, other_chain, visible};

/// An amount as a person types it: a number, perhaps with a symbol directly behind it, or `all`.
///
/// Beyond the grammar of [`Amount`](crate::Amount), the number may begin or end with its point
/// (`.5`, `5.`), and have the digits of another script, if all of them are of that script. Whatever
/// can be read in two ways is refused with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedAmount {
    /// The number.
    pub amount: QuoteAmount,
    /// What stands directly behind it: `usdc` of `5usdc`.
    pub symbol: Option<String>,
}

/// The zeros of the scripts whose digits are read; the other digits follow each of them.
const ZEROS: [char; 6] = [
    '\u{660}',  // Arabic
    '\u{6f0}',  // Persian and Urdu
    '\u{966}',  // Devanagari
    '\u{9e6}',  // Bengali
    '\u{e50}',  // Thai
    '\u{ff10}', // full width
];

/// The most characters of a hexadecimal number that is not taken for an incomplete address.
const LONGEST_HEXADECIMAL: usize = 18;

impl TypedAmount {
    /// Reports whether a word is meant as an amount, which may still be malformed. Usernames begin
    /// with a letter or `@`, addresses with `0x` or have 40 digits with letters among them, and
    /// phone numbers have a `+` and at least seven digits.
    #[must_use]
    pub fn is_meant(word: &str) -> bool {
        let word = visible(word);
        let word = word.as_str();
        if word.eq_ignore_ascii_case("all") {
            return true;
        }
        let is_address = |word: &str| {
            is_prefixed(word)
                || other_chain::looks_like(word).is_some()
                || is_phone(word)
                || (word.len() >= 40
                    && word.bytes().all(|b| b.is_ascii_hexdigit())
                    && word.bytes().any(|b| b.is_ascii_alphabetic()))
        };
        let starts_number = |c: char| {
            c.is_numeric()
                || point(c)
                || explain(c).is_some_and(|error| error != AmountError::Format)
        };
        word.starts_with(starts_number) && !is_address(word)
    }

    /// Reports whether a word is a hexadecimal number that is too short for an address. It is
    /// malformed as an amount.
    #[must_use]
    pub fn is_hexadecimal(word: &str) -> bool {
        let word = visible(word);
        is_prefixed(&word) && word.chars().count() <= LONGEST_HEXADECIMAL
    }
}

impl FromStr for TypedAmount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let visible = visible(text);
        let word = visible.trim().trim_end_matches([',', ';', ':', '!', '?']);
        // The end of a sentence: a number has one point.
        let sentence = word.strip_suffix('.').filter(|word| word.matches('.').count() == 1);
        let word = sentence.filter(|word| !word.ends_with('.')).unwrap_or(word);
        if word.eq_ignore_ascii_case("all") {
            return Ok(Self { amount: QuoteAmount::All, symbol: None });
        }
        if is_prefixed(word) {
            return Err(AmountError::Hexadecimal);
        }
        let at = word.find(|c: char| c.is_alphabetic()).unwrap_or(word.len());
        let (number, rest) = word.split_at(at);
        if number.is_empty() && !rest.is_empty() {
            return Err(AmountError::Format);
        }
        if is_exponent(rest) {
            return Err(AmountError::Exponent);
        }
        let amount = QuoteAmount::Exactly(plain(number)?.parse()?);
        let symbol = match rest {
            "" => None,
            rest if rest.chars().all(Symbol::may_contain) => Some(rest.to_owned()),
            _ => return Err(AmountError::Format),
        };
        Ok(Self { amount, symbol })
    }
}

/// Writes a number in the grammar of `Amount`: with the digits of ASCII, a point, and a digit on
/// both sides of it.
fn plain(number: &str) -> Result<String, AmountError> {
    let mut plain = String::with_capacity(number.len() + 2);
    let mut script = None;
    for character in number.chars() {
        if character.is_ascii_digit() {
            plain.push(character);
        } else if let Some((zero, digit)) = script_digit(character) {
            // Digits of two scripts side by side are no number that a person writes.
            if *script.get_or_insert(zero) != zero {
                return Err(AmountError::Format);
            }
            plain.push(digit);
        } else if point(character) {
            plain.push('.');
        } else {
            return Err(explain(character).unwrap_or(AmountError::Format));
        }
    }
    if script.is_some() && number.bytes().any(|b| b.is_ascii_digit()) {
        return Err(AmountError::Format);
    }
    if plain.starts_with('.') && plain.len() > 1 {
        plain.insert(0, '0');
    }
    if plain.ends_with('.') && plain.len() > 1 {
        plain.push('0');
    }
    Ok(plain)
}

/// The zero of a digit's script, and the digit in ASCII.
fn script_digit(character: char) -> Option<(char, char)> {
    ZEROS.iter().find_map(|zero| {
        let value =
            u32::from(character).checked_sub(u32::from(*zero)).filter(|value| *value < 10)?;
        char::from_digit(value, 10).map(|digit| (*zero, digit))
    })
}

/// The decimal point of ASCII, Arabic or full width.
fn point(character: char) -> bool {
    matches!(character, '.' | '\u{66b}' | '\u{ff0e}')
}

/// Whether a word begins as addresses and hexadecimal numbers do.
fn is_prefixed(word: &str) -> bool {
    let mut characters = word.chars();
    let start = (characters.next(), characters.next());
    matches!(start, (Some('0'), Some('x' | 'X' | '\u{d7}')))
}

/// Why a character that is neither digit nor point is not part of an amount.
fn explain(character: char) -> Option<AmountError> {
    match character {
        // Decimal and thousands separators, by country and script.
        ',' | '\u{60c}' | '\u{66c}' | '\u{ff0c}' => Some(AmountError::Comma),
        '+' | '-' | '\u{2212}' | '\u{2013}' | '\u{2014}' => Some(AmountError::Sign),
        '_' | '\'' | '\u{2019}' => Some(AmountError::Separator),
        '$' | '\u{a3}' | '\u{a5}' | '\u{20a0}'..='\u{20c0}' => Some(AmountError::Currency),
        _ if character.is_whitespace() => Some(AmountError::Separator),
        _ => None,
    }
}

/// Whether the letters behind a number are an exponent: `e18`, `E-3`.
fn is_exponent(rest: &str) -> bool {
    let digits = rest.strip_prefix(['e', 'E']);
    let digits = digits.map(|digits| digits.strip_prefix(['+', '-']).unwrap_or(digits));
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<(String, Option<String>), AmountError> {
        let TypedAmount { amount, symbol } = text.parse()?;
        Ok((String::from(amount), symbol))
    }

    #[test]
    fn unambiguous_forms_are_read() {
        for (typed, amount, symbol) in [
            ("0.5", "0.5", None),
            (".5", "0.5", None),
            ("5.", "5", None),
            ("ALL", "all", None),
            ("0.5ETH", "0.5", Some("ETH")),
            ("5usdc", "5", Some("usdc")),
            ("1e", "1", Some("e")),
            ("5USDC.e", "5", Some("USDC.e")),
            ("5USD\u{20ae}0", "5", Some("USD\u{20ae}0")),
            ("0.5,", "0.5", None),
            ("0.5.", "0.5", None),
            ("\u{660}.\u{665}", "0.5", None),
            ("\u{6f0}\u{66b}\u{6f5}", "0.5", None),
            ("\u{ff10}\u{ff0e}\u{ff15}", "0.5", None),
            ("\u{966}.\u{96b}", "0.5", None),
            ("\u{661}\u{662}ETH", "12", Some("ETH")),
            ("0.5\u{200b}", "0.5", None),
            ("\u{feff}0.5", "0.5", None),
            ("5\u{fe0f}\u{20e3}0\u{fe0f}\u{20e3}", "50", None),
            ("\u{202a}5\u{202c}", "5", None),
        ] {
            let expected = Ok((amount.to_owned(), symbol.map(str::to_owned)));
            assert_eq!(read(typed), expected, "{typed}");
            assert!(TypedAmount::is_meant(typed), "{typed}");
        }
    }

    #[test]
    fn other_forms_are_refused_with_their_reason() {
        use AmountError::{
            Comma, Currency, Empty, Exponent, Format, Hexadecimal, Separator, Sign, Zero,
        };
        for (typed, why) in [
            ("", Empty),
            ("1,5", Comma),
            ("1,000.5", Comma),
            ("\u{661}\u{66c}\u{660}", Comma),
            ("1 000", Separator),
            ("1\u{202f}000", Separator),
            ("1'000", Separator),
            ("1_000", Separator),
            ("-1", Sign),
            ("\u{2212}1", Sign),
            ("1e18", Exponent),
            ("1E-3", Exponent),
            ("$5", Currency),
            ("5\u{20ac}", Currency),
            ("0", Zero),
            (".", Format),
            ("1.2.3", Format),
            ("1..", Format),
            ("1.2.3.", Format),
            ("5\u{20}usdc", Separator),
            ("1\u{661}", Format),
            ("\u{661}\u{6f1}", Format),
            ("5U\u{5d0}", Format),
            ("half", Format),
            ("\u{bd}", Format),
            ("0x10", Hexadecimal),
            ("0X10", Hexadecimal),
            ("0x52908400098527886E0F7030069857D2E4169EE7", Hexadecimal),
            // Between digits it changes the order in which they are shown.
            ("1\u{200f}.5", Format),
        ] {
            assert_eq!(read(typed), Err(why), "{typed:?}");
        }
    }

    #[test]
    fn names_and_addresses_are_not_meant_as_amounts() {
        let digits = "52908400098527886E0F7030069857D2E4169EE7";
        let prefixed = ["0x", "0X", "0\u{d7}"].map(|prefix| format!("{prefix}{digits}"));
        for word in ["bob", "@bob", "", "half", "t.me/bob", digits] {
            assert!(!TypedAmount::is_meant(word), "{word}");
        }
        for word in ["1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "+4915112345678"] {
            assert!(!TypedAmount::is_meant(word), "{word}");
        }
        for word in &prefixed {
            assert!(!TypedAmount::is_meant(word), "{word}");
        }
        assert!(TypedAmount::is_hexadecimal("0x10") && !TypedAmount::is_hexadecimal(digits));
        for word in ["0.5", ".5", ",5", "-1", "$5", "\u{665}", "1e18", "5usdc", "\u{bd}"] {
            assert!(TypedAmount::is_meant(word), "{word}");
        }
    }

    proptest! {
        #[test]
        fn an_amount_reads_the_same_in_every_script(
            typed in "(0|[1-9][0-9]{0,8})(\\.[0-9]{1,6})?", script in 0..ZEROS.len(),
        ) {
            let zero = u32::from(ZEROS[script]);
            let translated = typed.chars().map(|c| match c.to_digit(10) {
                Some(digit) => char::from_u32(zero + digit).unwrap(),
                None => c,
            });
            let translated: String = translated.collect();
            prop_assert_eq!(read(&translated), read(&typed));
        }

        #[test]
        fn what_is_read_is_what_the_wire_reads(typed in "[0-9]{1,9}(\\.[0-9]{1,6})?") {
            let wire = QuoteAmount::try_from(typed.clone()).map(String::from);
            prop_assert_eq!(read(&typed).map(|(amount, _)| amount), wire);
        }

        #[test]
        fn a_symbol_behind_an_amount_changes_nothing_else(
            typed in "[1-9][0-9]{0,5}(\\.[0-9]{1,4})?", symbol in "[a-df-zA-DF-Z][a-zA-Z]{0,5}",
        ) {
            let (amount, none) = read(&typed).unwrap();
            prop_assert_eq!(none, None);
            let joined = read(&format!("{typed}{symbol}"));
            prop_assert_eq!(joined, Ok((amount, Some(symbol))));
        }

        #[test]
        fn never_panics(text in "\\PC{0,60}") {
            let _ = text.parse::<TypedAmount>();
            let _ = TypedAmount::is_meant(&text);
        }
    }
}
