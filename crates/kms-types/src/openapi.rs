//! How the parsed types look in the OpenAPI document: strings and integers with a pattern and an
//! example.

use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::wire::LimitAmount;
use crate::{
    AccountId, AccountRef, Asset, Email, EthAddress, EventCursor, Mobile, OneTimeCode,
    PasswordHash, QuoteAmount, Recipient, RecoveryId, Symbol, TelegramId, Timestamp, TransferId,
    Units, Username, Wei,
};

const UUID: &str = "6f1c5f0a-3c0e-4d52-9a3e-0f6b7c9d1e2f";

macro_rules! text {
    ($($name:ident: $description:literal, $pattern:literal, $example:expr;)*) => {
        $(
            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    ObjectBuilder::new()
                        .schema_type(Type::String)
                        .description(Some($description))
                        .pattern(Some($pattern))
                        .examples([serde_json::Value::from($example)])
                        .into()
                }
            }

            impl ToSchema for $name {}
        )*
    };
}

macro_rules! integer {
    ($($name:ident: $description:literal, $example:literal;)*) => {
        $(
            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    ObjectBuilder::new()
                        .schema_type(Type::Integer)
                        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
                        .description(Some($description))
                        .examples([serde_json::Value::from($example)])
                        .into()
                }
            }

            impl ToSchema for $name {}
        )*
    };
}

text! {
    AccountId: "The KMS's id of an account", "^[0-9a-f-]{36}$", UUID;
    TransferId: "A transfer's id, chosen by the client", "^[0-9a-f-]{36}$", UUID;
    RecoveryId: "A recovery's id, chosen by the client", "^[0-9a-f-]{36}$", UUID;
    AccountRef: "An account's id, or telegram: and its Telegram user id",
        "^([0-9a-f-]{36}|telegram:[1-9][0-9]*)$", "telegram:4711";
    EventCursor: "A place in the stream of events", "^[0-9]+-[0-9]+$", "0-17";
    EthAddress: "An address with its EIP-55 checksum", "^0x[0-9a-fA-F]{40}$",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
    Username: "A Telegram username", "^@?[a-zA-Z](_?[a-zA-Z0-9])*$", "ann";
    Recipient: "A @username or an address", "^.{1,64}$", "@bob";
    QuoteAmount: "Coins with a decimal point, or all", "^([0-9]+([.][0-9]+)?|all)$", "0.5";
    LimitAmount: "Coins with a decimal point, or none", "^([0-9]+([.][0-9]+)?|none)$", "0.5";
    Mobile: "A mobile number (E.164)", "^[+][1-9][0-9]{7,14}$", "+4915112345678";
    Email: "An e-mail address", "^[^@ ]+@[^@ ]+$", "ann@example.org";
    OneTimeCode: "A code from an e-mail", "^[0-9]{4} ?[0-9]{4}$", "0123 4567";
    Wei: "10^-18 of the native coin", "^(0|[1-9][0-9]*)$", "500000000000000000";
    Units: "A count of the asset's smallest unit", "^(0|[1-9][0-9]*)$", "5000000";
    Symbol: "A token's symbol", "^[a-zA-Z][a-zA-Z0-9._-]{0,15}$", "USDC";
    Asset: "native, or a token's symbol", "^[a-zA-Z][a-zA-Z0-9._-]{0,15}$", "USDC";
    PasswordHash: "The password as the client stretched it", "^v1[.][0-9a-f]{64}$",
        "v1.0000000000000000000000000000000000000000000000000000000000000000";
}

integer! {
    TelegramId: "A Telegram user id", 4711;
    Timestamp: "Milliseconds since 1970-01-01T00:00:00Z", 1_795_000_000_000_i64;
}
