//! The schemas of the parsed types in the OpenAPI document: each carries the grammar that its
//! parser accepts, as far as a regular expression can express it.
//!
//! Three rules are left to the description, because no regular expression holds them: the EIP-55
//! checksum of an address (format `eip55`), the reserved words of a symbol, and the decimals of
//! the asset that an amount belongs to.

use utoipa::openapi::schema::{
    AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type,
};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::wire::LimitAmount;
use crate::{
    AccountId, AccountRef, AppLink, Asset, Email, ErrorCode, EthAddress, EventCursor, LaunchKey,
    Mobile, OneTimeCode, PasswordHash, QuoteAmount, Recipient, RecoveryId, ReplacementId, Symbol,
    TelegramId, Timestamp, TransferId, Units, Username, Usernames, Wei,
};

/// An unsigned number of 256 bits in decimal, without leading zeros.
macro_rules! units {
    () => {
        "(0|[1-9][0-9]{0,76}|10[0-9]{76}|11[0-4][0-9]{75})"
    };
}

macro_rules! uuid {
    () => {
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    };
}

/// A positive number of coins with at most 18 decimals, below 10^59.
macro_rules! coins {
    () => {
        "[0-9]{0,39}[1-9][0-9]{0,18}([.][0-9]{1,18})?|[0-9]{1,59}[.][0-9]{0,17}[1-9]"
    };
}

/// A character of an e-mail address's local part, but for its dots.
macro_rules! atext {
    () => {
        "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
    };
}

/// The letters and currency signs of a symbol.
macro_rules! letters {
    () => {
        concat!(
            r"a-zA-Z\u00a2-\u00a5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0391-\u03a1",
            r"\u03a3-\u03a9\u03b1-\u03c9\u0400-\u045f\u0e3f\u20a0-\u20c0\u3041-\u3096",
            r"\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3",
        )
    };
}

macro_rules! symbol {
    () => {
        concat!("[0-9]{0,15}[", letters!(), "][", letters!(), "0-9._-]{0,15}")
    };
}

const UUID: &str = "6f1c5f0a-3c0e-4d52-9a3e-0f6b7c9d1e2f";
const ADDRESS: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

macro_rules! text {
    ($($name:ident: $description:literal, $length:expr, [$($pattern:tt)+], $example:expr;)*) => {
        $(
            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    text($description, $length, concat!("^(", $($pattern)+, ")$"), $example).into()
                }
            }

            impl ToSchema for $name {}
        )*
    };
}

text! {
    AccountId: "The server's id of an account", 36, [uuid!()], UUID;
    ReplacementId: "A replacement's id, chosen by the client (UUID, preferably version 4)", 36,
        [uuid!()], UUID;
    TransferId: "A transfer's id, chosen by the client (UUID, preferably version 4)", 36,
        [uuid!()], UUID;
    RecoveryId: "A recovery's id, chosen by the client (UUID, preferably version 4)", 36,
        [uuid!()], UUID;
    AccountRef: "An account's id, or `telegram:` and a Telegram user id below 2^52", 36,
        [uuid!(), "|telegram:([1-9][0-9]{0,14}|[1-3][0-9]{15}|4[0-4][0-9]{14})"],
        "telegram:4711";
    EventCursor: "A position in the stream of events", 37,
        ["(0|[1-9][0-9]{0,17})-(0|[1-9][0-9]{0,17})"], "0-17";
    Username: "A Telegram username, compared without regard to case; the `@` is optional", 32,
        ["@?[a-zA-Z](_?[a-zA-Z0-9])*"], "ann";
    QuoteAmount: "Coins with a decimal point, or `all`. Not more decimals than the asset has", 78,
        [coins!(), "|all"], "0.5";
    LimitAmount: "Coins with a decimal point, or `none`. Not more decimals than the asset has", 78,
        [coins!(), "|none"], "0.5";
    Mobile: "A mobile number (E.164)", 16, ["[+][1-9][0-9]{7,14}"], "+4915112345678";
    Email: "An e-mail address in ASCII (a subset of RFC 5321)", 254,
        [
            "(",
            atext!(),
            "{1,64}|",
            atext!(),
            "([.]?",
            atext!(),
            "){0,31}|",
            atext!(),
            "{1,20}([.]",
            atext!(),
            "{1,20}){1,2})",
            "@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?[.])+",
            "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
        ],
        "ann@example.org";
    OneTimeCode: "The eight digits of an e-mail, which people may type in two groups", 9,
        ["[0-9]{4}[ -]?[0-9]{4}"], "0123 4567";
    Wei: "A whole number of wei, 10^-18 of the native coin", 78, [units!()], "500000000000000000";
    Units: "A whole number of the asset's smallest unit", 78, [units!()], "5000000";
    Symbol: "A token's symbol, compared without regard to case; never `native` or `all`", 16,
        [symbol!()], "USDC";
    Asset: "`native`, or a token's symbol", 16, [symbol!()], "USDC";
    AppLink: "The link of a Mini App at Telegram", 78,
        ["https://t[.]me/[A-Za-z0-9_]{3,32}/[A-Za-z0-9_]{3,32}"],
        "https://t.me/acme_vault_bot/wallet";
    LaunchKey: "The key of an opened page: 32 random bytes, in hex", 64, ["[0-9a-f]{64}"],
        "0000000000000000000000000000000000000000000000000000000000000000";
    PasswordHash: "The password as the client stretched it: PBKDF2-HMAC-SHA256, 600,000 rounds, \
        in hex", 67, ["v1[.][0-9a-f]{64}"],
        "v1.0000000000000000000000000000000000000000000000000000000000000000";
}

fn text(description: &str, length: usize, pattern: &str, example: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .max_length(Some(length))
        .pattern(Some(pattern))
        .examples([serde_json::Value::from(example)])
}

impl PartialSchema for EthAddress {
    fn schema() -> RefOr<Schema> {
        let description = "An Ethereum address. In mixed case it carries the checksum of EIP-55";
        text(description, 42, "^0x[0-9a-fA-F]{40}$", ADDRESS)
            .format(Some(SchemaFormat::Custom("eip55".to_owned())))
            .into()
    }
}

impl ToSchema for EthAddress {}

impl PartialSchema for Recipient {
    fn schema() -> RefOr<Schema> {
        AnyOfBuilder::new()
            .description(Some("Who is paid: a username or an address"))
            .item(Ref::from_schema_name("Username"))
            .item(Ref::from_schema_name("EthAddress"))
            .into()
    }
}

impl ToSchema for Recipient {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Username::name().into_owned(), Username::schema()));
        schemas.push((EthAddress::name().into_owned(), EthAddress::schema()));
    }
}

impl PartialSchema for Usernames {
    fn schema() -> RefOr<Schema> {
        ArrayBuilder::new()
            .description(Some(
                "All usernames of a Telegram user, the one that Telegram shows first",
            ))
            .items(Ref::from_schema_name("Username"))
            .max_items(Some(Self::MAX))
            .into()
    }
}

impl ToSchema for Usernames {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Username::name().into_owned(), Username::schema()));
    }
}

fn integer(description: &str, minimum: i64, maximum: i64, example: i64) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .description(Some(description))
        .minimum(Some(minimum))
        .maximum(Some(maximum))
        .examples([serde_json::Value::from(example)])
        .into()
}

impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("What went wrong, for a program"))
            .enum_values(Some(Self::ALL.iter().map(|code| code.as_str())))
            .into()
    }
}

impl ToSchema for ErrorCode {}

impl PartialSchema for TelegramId {
    fn schema() -> RefOr<Schema> {
        integer("A Telegram user id", 1, Self::MAX, 4711)
    }
}

impl ToSchema for TelegramId {}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        integer("Milliseconds since 1970-01-01T00:00:00Z", 0, Self::MAX_WIRE, 1_795_000_000_000)
    }
}

impl ToSchema for Timestamp {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::string::string_regex;

    use super::*;

    fn object<T: PartialSchema>() -> utoipa::openapi::schema::Object {
        match T::schema() {
            RefOr::T(Schema::Object(object)) => object,
            _ => panic!("not an object"),
        }
    }

    /// Whether every generated text of the schema is accepted, and its example too.
    fn check<T: PartialSchema + TryFrom<String>>() {
        let schema = object::<T>();
        let pattern = schema.pattern.unwrap();
        let pattern = pattern.strip_prefix('^').unwrap().strip_suffix('$').unwrap();
        let example = schema.examples[0].as_str().unwrap().to_owned();
        assert!(T::try_from(example.clone()).is_ok(), "{example}");
        let max_length = schema.max_length.unwrap();
        let texts = string_regex(pattern).unwrap();
        proptest!(|(text in texts)| {
            prop_assume!(text.chars().count() <= max_length);
            prop_assert!(T::try_from(text.clone()).is_ok(), "{}", text);
        });
    }

    #[test]
    fn patterns_describe_what_is_accepted() {
        check::<AccountId>();
        check::<TransferId>();
        check::<RecoveryId>();
        check::<AccountRef>();
        check::<EventCursor>();
        check::<Username>();
        check::<QuoteAmount>();
        check::<LimitAmount>();
        check::<Mobile>();
        check::<Email>();
        check::<OneTimeCode>();
        check::<Wei>();
        check::<Units>();
        check::<Symbol>();
        check::<Asset>();
    }

    #[test]
    fn amounts_of_the_schema_fit_into_256_bits() {
        let pattern = object::<QuoteAmount>().pattern.unwrap();
        let pattern = pattern.trim_start_matches('^').trim_end_matches('$').to_owned();
        proptest!(|(text in string_regex(&pattern).unwrap())| {
            if let Ok(QuoteAmount::Exactly(amount)) = QuoteAmount::try_from(text) {
                prop_assert!(Wei::try_from(&amount).is_ok());
            }
        });
    }
}
