//! Why the bot cannot read what a user wrote.

use kms_types::{AddressError, AmountError, RecipientError, TypedRecipientError, UsernameError};

use crate::texts::{Count, Html, html};

/// Why a text is no payment, amount, recipient or limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InputError {
    #[error(transparent)]
    Amount(#[from] AmountError),
    #[error(transparent)]
    Recipient(#[from] TypedRecipientError),
    /// A bare word where only a `@username` or an address is accepted.
    #[error("the recipient needs an @ or must be an address")]
    UnmarkedRecipient,
    /// Two words name a recipient.
    #[error("more than one recipient")]
    SecondRecipient,
    /// The words of `/send` are too many, or in a wrong order.
    #[error("expected a recipient and an amount")]
    SendWords,
    /// The words of `/limit` are too many, or name an unknown asset.
    #[error("expected an amount per day")]
    LimitWords,
    /// A word can be read as amounts of two assets.
    #[error("the amount and the symbol need a space between them")]
    JoinedAmount {
        /// The word, shortened.
        word: String,
        /// The symbol that begins with a digit.
        symbol: String,
    },
    /// A word is no asset. It may be meant as a username, which needs its `@` there.
    #[error("neither an asset nor a marked recipient")]
    UnknownWord {
        /// The word, shortened.
        word: String,
        /// The symbols of the assets that there are.
        known: Vec<String>,
    },
    /// A word behind the recipient is neither an amount nor an asset.
    #[error("neither an amount nor an asset")]
    UnknownAmount {
        /// The word, shortened.
        word: String,
        /// The symbols of the assets that there are.
        known: Vec<String>,
    },
    /// A word is too many: recipient and amount are there.
    #[error("neither an asset nor anything else of a payment")]
    UnknownRest {
        /// The word, shortened.
        word: String,
        /// The symbols of the assets that there are.
        known: Vec<String>,
    },
    /// No network has the name that a payment names.
    #[error("no network has this name")]
    UnknownNetwork {
        /// The word, shortened.
        word: String,
        /// The short names of the networks that there are.
        known: Vec<String>,
    },
    /// A network is named where a recipient belongs.
    #[error("the name of a network is not a recipient")]
    NetworkAsRecipient {
        /// The word, shortened.
        word: String,
        /// The network's short name.
        network: String,
    },
    /// Two networks are named, or one is, and the address is marked for another one.
    #[error("two networks are named")]
    TwoNetworks {
        /// The name of the one that was named first.
        one: String,
        /// The name of the other one.
        other: String,
    },
    /// Several networks have an asset with the symbol, and the primary one has not.
    #[error("several networks have this asset")]
    NetworkNeeded {
        /// The symbol.
        symbol: String,
        /// The short names of the networks.
        networks: Vec<String>,
    },
    /// The server has not named its networks yet, and the text depends on them.
    #[error("the networks are not known")]
    UnknownNetworks,
    /// A word is no asset, and nothing else that belongs there.
    #[error("no asset has this symbol")]
    UnknownAsset {
        /// The word, shortened.
        word: String,
        /// The symbols of the assets that there are.
        known: Vec<String>,
    },
}

impl InputError {
    /// What the user should write instead.
    pub(crate) fn message(&self) -> Html {
        match self {
            Self::Amount(error) => amount(*error),
            Self::Recipient(error) => typed_recipient(*error),
            Self::UnmarkedRecipient => html!("input-recipient-unmarked"),
            Self::SecondRecipient => html!("input-second-recipient"),
            Self::SendWords => html!("input-send-words"),
            Self::LimitWords => html!("input-limit-words"),
            Self::JoinedAmount { word, symbol } => {
                html!("input-amount-joined", word = word, symbol = symbol)
            }
            Self::UnknownWord { word, known } => {
                html!("input-unknown-word", word = word, known = Html::list(known))
            }
            Self::UnknownAmount { word, known } => {
                html!("input-unknown-amount", word = word, known = Html::list(known))
            }
            Self::UnknownRest { word, known } => {
                html!("input-unknown-rest", word = word, known = Html::list(known))
            }
            Self::UnknownNetwork { word, known } => {
                html!("input-unknown-network", word = word, known = Html::list(known))
            }
            Self::NetworkAsRecipient { word, network } => {
                html!("input-network-as-recipient", word = word, network = network)
            }
            Self::TwoNetworks { one, other } => {
                html!("input-two-networks", one = one, other = other)
            }
            Self::NetworkNeeded { symbol, networks } => {
                let first = networks.first().cloned().unwrap_or_default();
                let known = Html::list(networks);
                html!("input-network-needed", symbol = symbol, known = known, network = first)
            }
            Self::UnknownNetworks => html!("problem-unreachable"),
            Self::UnknownAsset { word, known } => {
                html!("input-unknown-asset", word = word, known = Html::list(known))
            }
        }
    }
}

fn amount(error: AmountError) -> Html {
    match error {
        AmountError::Empty => html!("input-amount-empty"),
        AmountError::Comma => html!("input-amount-comma"),
        AmountError::Sign => html!("input-amount-sign"),
        AmountError::Exponent => html!("input-amount-exponent"),
        AmountError::Separator => html!("input-amount-separator"),
        AmountError::Currency => html!("input-amount-currency"),
        AmountError::Hexadecimal => html!("input-amount-hexadecimal"),
        AmountError::Format => html!("input-amount-format"),
        AmountError::Zero => html!("input-amount-zero"),
        AmountError::TooPrecise { decimals } => {
            html!("input-amount-precision", count = Count(decimals.into()))
        }
        AmountError::TooLarge => html!("input-amount-too-large"),
    }
}

fn typed_recipient(error: TypedRecipientError) -> Html {
    match error {
        TypedRecipientError::Recipient(error) => recipient(error),
        TypedRecipientError::Link => html!("input-link"),
        TypedRecipientError::OtherNetwork { name: Some(name) } => {
            html!("input-named-network", network = name)
        }
        TypedRecipientError::OtherNetwork { name: None } => html!("input-other-network"),
        TypedRecipientError::PaymentRequest => html!("input-payment-request"),
        TypedRecipientError::Hash => html!("input-hash"),
        TypedRecipientError::Email => html!("input-email"),
        TypedRecipientError::Phone => html!("input-phone"),
        TypedRecipientError::JoinedAmount => html!("input-joined-amount"),
    }
}

fn recipient(error: RecipientError) -> Html {
    match error {
        RecipientError::Address(AddressError::Format) => html!("input-address-format"),
        RecipientError::Address(AddressError::Checksum) => html!("input-address-checksum"),
        RecipientError::Ens => html!("input-ens"),
        RecipientError::Username(UsernameError::Empty) => html!("input-username-empty"),
        RecipientError::Username(UsernameError::TooLong) => html!("input-username-long"),
        RecipientError::Username(UsernameError::FirstCharacter) => html!("input-username-start"),
        RecipientError::Username(UsernameError::Character) => html!("input-username-characters"),
    }
}
