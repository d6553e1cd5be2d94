//! Recipients as people write, paste and forward them. The wire has the strict grammar of
//! [`Recipient`]. A text of one class is never tried as another.

use crate::{EthAddress, Recipient, RecipientError, TelegramId, other_chain, visible};

/// A recipient as a person writes, pastes or forwards it.
///
/// | read | as |
/// | --- | --- |
/// | `@bob`, `bob`, `tg://resolve?domain=bob` | the username |
/// | `t.me/bob`, `https://t.me/bob`, `bob.t.me` | the username |
/// | `tg://user?id=4711`, to which a mention of a person without a username links | the person |
/// | `0x…`, `0X…`, `0×…`, and 40 hexadecimal digits alone | the address |
/// | `ethereum:0x…` | the address |
/// | `ethereum:0x…@1`, `eth:0x…`, `eip155:1:0x…` (CAIP-10) | the address, and its chain |
///
/// Invisible characters, and quotes, brackets and punctuation around the text are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypedRecipient {
    /// A username or an address.
    Named(Recipient),
    /// A Telegram user.
    User(TelegramId),
}

/// Why a text is not a recipient. It does not quote the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypedRecipientError {
    /// Like a username, an address or an ENS name, but none.
    #[error(transparent)]
    Recipient(#[from] RecipientError),
    /// A link to something other than a person.
    #[error("the link does not lead to a person")]
    Link,
    /// An address of another chain, or one that is marked for it.
    #[error("the address is for another network")]
    OtherNetwork {
        /// The chain's name, if it is known.
        name: Option<&'static str>,
    },
    /// A payment request (EIP-681) with more in it than an address: an amount, or a token.
    #[error("a payment request is not read; write its address and amount")]
    PaymentRequest,
    /// As many digits as the hash of a transaction or a private key has.
    #[error("64 hexadecimal digits are a transaction's hash or a private key, not an address")]
    Hash,
    /// An e-mail address.
    #[error("an e-mail address is not a recipient")]
    Email,
    /// A phone number.
    #[error("a phone number is not a recipient")]
    Phone,
    /// A username with an amount directly behind it: `@bob0.5`.
    #[error("the username and the amount need a space between them")]
    JoinedAmount,
}

/// The fewest digits of a phone number.
const SHORTEST_PHONE: usize = 7;
/// The hosts of links to Telegram users.
const HOSTS: [&str; 3] = ["t.me", "telegram.me", "telegram.dog"];

impl TypedRecipient {
    /// Reads a recipient, and the chain that the text names for it, which is one of `chains`.
    ///
    /// # Errors
    /// Why the text is not a recipient.
    pub fn parse(text: &str, chains: &[u64]) -> Result<(Self, Option<u64>), TypedRecipientError> {
        let text = clean(text);
        let text = text.as_str();
        if let Some(request) = strip_prefix(text, "ethereum:") {
            return payment_request(request, chains);
        }
        if let Some((chain, rest)) = chain_and_address(text) {
            let chain_id = one_of(chains, chain)?;
            return Ok((address(rest)?, Some(chain_id)));
        }
        Ok((Self::of_any_chain(text)?, None))
    }

    /// Reads a recipient that names no chain.
    fn of_any_chain(text: &str) -> Result<Self, TypedRecipientError> {
        if let Some(rest) = strip_prefix(text, "tg://") {
            return telegram_uri(rest);
        }
        if is_email(text) {
            return Err(TypedRecipientError::Email);
        }
        if let Some(path) = telegram_link(text)? {
            return username(path);
        }
        if address_digits(text).is_some() || is_hex(text, 40) || is_hex(text, 64) {
            return address(text);
        }
        if let name @ Some(_) = other_chain::looks_like(text) {
            return Err(TypedRecipientError::OtherNetwork { name });
        }
        if is_phone(text) {
            return Err(TypedRecipientError::Phone);
        }
        if has_amount(text) {
            return Err(TypedRecipientError::JoinedAmount);
        }
        if text.starts_with('@') && !text.to_ascii_lowercase().ends_with(".eth") {
            return username(text);
        }
        Ok(Self::Named(text.parse()?))
    }

    /// Reports whether a text is marked as a recipient: a `@username`, a link, an address, a phone
    /// number or a name with a dot. A bare word may be something else, and so may a sentence.
    #[must_use]
    pub fn is_marked(text: &str) -> bool {
        let text = clean(text);
        let word = text.as_str();
        word.starts_with('@')
            || is_phone(word)
            || !word.contains(char::is_whitespace)
                && (word.contains(['.', ':']) && word.contains(char::is_alphabetic)
                    || address_digits(word).is_some()
                    || is_hex(word, 40)
                    || is_hex(word, 64))
    }

    /// Reports whether a word is marked as a recipient, or is like an address of another chain.
    #[must_use]
    pub fn is_meant(word: &str) -> bool {
        Self::is_marked(word) || other_chain::looks_like(&clean(word)).is_some()
    }
}

/// Removes what is invisible, white space at both ends, and the punctuation that surrounds a name
/// in a sentence.
fn clean(text: &str) -> String {
    let visible = visible(text);
    let opening =
        ['(', '[', '{', '<', '"', '\'', '`', '\u{ab}', '\u{2018}', '\u{201c}', '\u{201e}'];
    let closing = [
        ')', ']', '}', '>', '"', '\'', '`', '\u{bb}', '\u{2019}', '\u{201d}', ',', ';', ':', '!',
        '?', '.',
    ];
    let around = |c: char| c.is_whitespace() || opening.contains(&c);
    let behind = |c: char| c.is_whitespace() || closing.contains(&c);
    visible.trim_start_matches(around).trim_end_matches(behind).to_owned()
}

/// The rest of a text behind a prefix in any case.
fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// `user?id=4711` or `resolve?domain=bob`.
fn telegram_uri(rest: &str) -> Result<TypedRecipient, TypedRecipientError> {
    if let Some(id) = strip_prefix(rest, "user?id=") {
        let id = id.parse().map_err(|_no_id| TypedRecipientError::Link)?;
        return Ok(TypedRecipient::User(id));
    }
    let domain = strip_prefix(rest, "resolve?domain=").ok_or(TypedRecipientError::Link)?;
    username(domain.split('&').next().unwrap_or_default())
}

/// The username of a link to Telegram, if the text is a link.
fn telegram_link(text: &str) -> Result<Option<&str>, TypedRecipientError> {
    let rest = strip_prefix(text, "https://").or_else(|| strip_prefix(text, "http://"));
    let link = rest.unwrap_or(text);
    let (host, path) = link.split_once(['/', '?']).unwrap_or((link, ""));
    let host = strip_prefix(host, "www.").unwrap_or(host);
    if HOSTS.iter().any(|known| host.eq_ignore_ascii_case(known)) {
        let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        // Anything but one name is a group, an invitation, a message or a page.
        let name = !path.is_empty() && !path.contains('/') && !path.starts_with(['+', '$']);
        return if name { Ok(Some(path)) } else { Err(TypedRecipientError::Link) };
    }
    if let Some((name, "t.me")) = host.split_once('.')
        && path.is_empty()
    {
        return Ok(Some(name));
    }
    if rest.is_some() { Err(TypedRecipientError::Link) } else { Ok(None) }
}

fn username(name: &str) -> Result<TypedRecipient, TypedRecipientError> {
    let name = name.parse().map_err(RecipientError::Username)?;
    Ok(TypedRecipient::Named(Recipient::Username(name)))
}

/// EIP-681 behind `ethereum:`. A function or a parameter would change who is paid what.
fn payment_request(
    request: &str,
    chains: &[u64],
) -> Result<(TypedRecipient, Option<u64>), TypedRecipientError> {
    let request = strip_prefix(request, "pay-").unwrap_or(request);
    if request.contains(['/', '?']) {
        return Err(TypedRecipientError::PaymentRequest);
    }
    let Some((target, chain)) = request.split_once('@') else {
        return Ok((address(request)?, None));
    };
    let chain_id = one_of(chains, Chain(chain.parse().ok()))?;
    Ok((address(target)?, Some(chain_id)))
}

/// A chain that a text names, if it is known here.
struct Chain(Option<u64>);

/// The chain and the address of EIP-3770, a short name before the address, or of CAIP-10.
fn chain_and_address(text: &str) -> Option<(Chain, &str)> {
    let (chain, rest) = text.split_once(':')?;
    if chain.eq_ignore_ascii_case("eip155") {
        let (id, rest) = rest.split_once(':')?;
        return address_digits(rest).map(|_| (Chain(id.parse().ok()), rest));
    }
    address_digits(rest).map(|_| (Chain(other_chain::id_of(chain)), rest))
}

/// Refuses every chain but these.
fn one_of(chains: &[u64], Chain(named): Chain) -> Result<u64, TypedRecipientError> {
    let name = named.and_then(other_chain::name_of);
    let known = named.filter(|named| chains.contains(named));
    known.ok_or(TypedRecipientError::OtherNetwork { name })
}

/// Whether a text is like an e-mail address. A username has its `@` at the beginning.
fn is_email(text: &str) -> bool {
    let text = strip_prefix(text, "mailto:").unwrap_or(text);
    let Some((name, host)) = text.split_once('@') else { return false };
    !name.is_empty() && !host.is_empty() && !name.contains(['/', ':']) && !host.contains('/')
}

/// Whether a text is like a phone number in international form.
pub(crate) fn is_phone(text: &str) -> bool {
    let marked = strip_prefix(text, "tel:").or_else(|| text.strip_prefix('+'));
    let Some(number) = marked.map(|number| number.trim_start_matches('+')) else { return false };
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    let known = |c: char| c.is_ascii_digit() || c.is_whitespace() || "-()./".contains(c);
    digits >= SHORTEST_PHONE && number.chars().all(known)
}

/// Whether a text is a username with an amount directly behind it: `@bob0.5`, `bob:0.5ETH`.
fn has_amount(text: &str) -> bool {
    let name = text.strip_prefix('@').unwrap_or(text);
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let rest = name.trim_start_matches(in_name);
    let number = rest.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && number.ends_with(|c: char| c.is_ascii_digit())
        && number.chars().all(|c| c.is_ascii_digit() || ".,:;=-/".contains(c))
}

/// What stands behind the `0x` of an address. `×` is what some keyboards make of the `x`.
fn address_digits(text: &str) -> Option<&str> {
    ["0x", "0X", "0\u{d7}"].into_iter().find_map(|prefix| text.strip_prefix(prefix))
}

/// Whether a text is this many hexadecimal digits with a letter among them, so that it is no
/// number.
fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text.bytes().all(|b| b.is_ascii_hexdigit())
        && text.bytes().any(|b| b.is_ascii_alphabetic())
}

fn address(text: &str) -> Result<TypedRecipient, TypedRecipientError> {
    let digits = address_digits(text).unwrap_or(text);
    if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(TypedRecipientError::Hash);
    }
    let address: EthAddress = format!("0x{digits}").parse().map_err(RecipientError::Address)?;
    Ok(TypedRecipient::Named(Recipient::Address(address)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{AddressError, UsernameError};

    const ADDRESS: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
    const DIGITS: &str = "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

    fn read(text: &str) -> Result<String, TypedRecipientError> {
        Ok(match TypedRecipient::parse(text, &[31_337])?.0 {
            TypedRecipient::Named(recipient) => recipient.to_string(),
            TypedRecipient::User(id) => format!("id {id}"),
        })
    }

    #[test]
    fn usernames_are_read_as_people_paste_them() {
        for text in [
            "@Bob",
            "Bob",
            "t.me/Bob",
            "T.ME/Bob",
            "https://t.me/Bob",
            "http://www.t.me/Bob/",
            "https://t.me/Bob?text=hi",
            "https://telegram.me/@Bob",
            "Bob.t.me",
            "https://Bob.t.me",
            "tg://resolve?domain=Bob&start=1",
            "@Bob,",
            "(@Bob)",
            "\u{201c}@Bob\u{201d}",
            "`@Bob`",
            "@B\u{200b}ob",
            " @Bob. ",
        ] {
            assert_eq!(read(text).as_deref(), Ok("@Bob"), "{text:?}");
        }
        assert_eq!(read("tg://user?id=4712").as_deref(), Ok("id 4712"));
    }

    #[test]
    fn addresses_are_read_as_people_paste_them() {
        let upper = DIGITS.to_uppercase();
        let texts = [
            ADDRESS.to_owned(),
            DIGITS.to_owned(),
            format!("0X{upper}"),
            format!("0\u{d7}{DIGITS}"),
            format!("\u{202a}{ADDRESS}\u{202c}"),
            format!("0x\u{200b}{DIGITS}"),
            format!("{ADDRESS},"),
            format!("`{ADDRESS}`"),
            format!("<{ADDRESS}>"),
            format!("ethereum:{ADDRESS}"),
            format!("ETHEREUM:pay-{ADDRESS}@31337"),
            format!("eip155:31337:{ADDRESS}"),
        ];
        for text in &texts {
            assert_eq!(read(text).as_deref(), Ok(ADDRESS), "{text:?}");
        }
        let address = TypedRecipient::Named(ADDRESS.parse().unwrap());
        for (text, chain_id) in [
            (format!("eth:{ADDRESS}"), Some(1)),
            (format!("base:{ADDRESS}"), Some(8_453)),
            (format!("eip155:10:{ADDRESS}"), Some(10)),
            (format!("ethereum:{ADDRESS}@10"), Some(10)),
            (format!("ethereum:{ADDRESS}"), None),
            (ADDRESS.to_owned(), None),
        ] {
            let read = TypedRecipient::parse(&text, &[1, 10, 8_453]);
            assert_eq!(read, Ok((address.clone(), chain_id)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_their_reason() {
        use TypedRecipientError::{Email, Hash, JoinedAmount, Link, PaymentRequest, Phone};
        let wrong = |error: RecipientError| TypedRecipientError::Recipient(error);
        let other = |name| TypedRecipientError::OtherNetwork { name };
        let hash = "ab".repeat(32);
        let texts = [
            (format!("eth:{ADDRESS}"), other(Some("Ethereum"))),
            (format!("base:{ADDRESS}"), other(Some("Base"))),
            (format!("nowhere:{ADDRESS}"), other(None)),
            (format!("eip155:10:{ADDRESS}"), other(Some("OP Mainnet"))),
            (format!("eip155:4711:{ADDRESS}"), other(None)),
            (format!("ethereum:{ADDRESS}@1"), other(Some("Ethereum"))),
            ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq".to_owned(), other(Some("Bitcoin"))),
            ("bob@example.org".to_owned(), Email),
            ("<mailto:bob@example.org>".to_owned(), Email),
            ("bob@example".to_owned(), Email),
            ("+4915112345678".to_owned(), Phone),
            ("+49 (151) 123-456.78".to_owned(), Phone),
            ("tel:+4915112345678".to_owned(), Phone),
            ("@Bob0.5".to_owned(), JoinedAmount),
            ("@Bob:0.5".to_owned(), JoinedAmount),
            ("@Bob,0,5ETH".to_owned(), JoinedAmount),
            ("Bob-5".to_owned(), JoinedAmount),
            ("@Bob.Smith".to_owned(), wrong(UsernameError::Character.into())),
            ("@Bob.eth".to_owned(), wrong(RecipientError::Ens)),
            (format!("ethereum:{ADDRESS}@31337?value=1e17"), PaymentRequest),
            (format!("ethereum:{ADDRESS}/transfer?uint256=1"), PaymentRequest),
            (format!("0x{hash}"), Hash),
            (hash, Hash),
            ("https://t.me/+AbCd".to_owned(), Link),
            ("t.me/c/123/4".to_owned(), Link),
            ("t.me/bob/12".to_owned(), Link),
            ("t.me".to_owned(), Link),
            ("https://example.org/@bob".to_owned(), Link),
            (format!("https://etherscan.io/address/{ADDRESS}"), Link),
            ("tg://user?id=0".to_owned(), Link),
            ("tg://settings".to_owned(), Link),
            ("bob.eth".to_owned(), wrong(RecipientError::Ens)),
            ("0x12".to_owned(), wrong(AddressError::Format.into())),
            (ADDRESS.replace("ed", "eD"), wrong(AddressError::Checksum.into())),
            (DIGITS.replace("ed", "eD"), wrong(AddressError::Checksum.into())),
            ("t.me/b__b".to_owned(), wrong(UsernameError::Character.into())),
            // Shown as "bob"; without the override it would be another name.
            ("\u{202e}bob".to_owned(), wrong(UsernameError::FirstCharacter.into())),
            ("\u{212a}ob".to_owned(), wrong(UsernameError::FirstCharacter.into())),
            (",".to_owned(), wrong(UsernameError::Empty.into())),
        ];
        for (text, why) in texts {
            assert_eq!(read(&text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn a_bare_word_is_not_marked_as_a_recipient() {
        for text in ["@bob", "t.me/bob", "bob.eth", ADDRESS, DIGITS, "ethereum:0x1", "`@bob`"] {
            assert!(TypedRecipient::is_marked(text), "{text}");
        }
        let bitcoin = "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2";
        assert!(TypedRecipient::is_meant(bitcoin) && !TypedRecipient::is_marked(bitcoin));
        for text in ["bob", "Sesame4you", "P@ssword", "", "two words", "two. words", "48151.62342"]
        {
            assert!(!TypedRecipient::is_marked(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn decoration_does_not_change_who_is_paid(
            name in "[a-zA-Z](_?[a-zA-Z0-9]){0,15}", bytes: [u8; 20], at in 0_usize..20,
        ) {
            let name = format!("@{name}");
            let bare = &name[1..];
            for text in [
                name.clone(), format!("t.me/{bare}"), format!("https://t.me/{bare}"),
                format!("\u{feff}{name},"), format!("({name})"),
            ] {
                prop_assert_eq!(read(&text), Ok(name.clone()));
            }
            let address = EthAddress::from(bytes).to_string();
            let mut pasted = address.clone();
            pasted.insert(at, '\u{200b}');
            for text in [pasted, address.replace("0x", "0X"), format!("ethereum:{address}")] {
                prop_assert_eq!(read(&text), Ok(address.clone()));
            }
        }

        #[test]
        fn what_the_wire_reads_is_read_alike(text in "@?[a-z0-9_]{1,12}|0x[0-9a-f]{38,42}") {
            if let Ok(wire) = text.parse::<Recipient>() {
                prop_assert_eq!(read(&text), Ok(wire.to_string()));
            }
        }

        #[test]
        fn never_panics(text in "\\PC{0,60}") {
            let _ = TypedRecipient::parse(&text, &[1]);
            let _ = TypedRecipient::is_marked(&text);
        }
    }
}
