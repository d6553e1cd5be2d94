//! One list of texts for an enum: what a database column or a log field holds for each value.

/// The text belongs to no value of an enum that has a [`text_table!`](crate::text_table).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a known {kind}")]
pub struct UnknownText {
    /// The enum's name.
    pub kind: &'static str,
    /// The text as it was read.
    pub text: String,
}

/// Implements `ALL`, `as_str` and `FromStr` for an enum from one list of its values and their
/// texts. A value that is missing from the list does not compile.
///
/// The texts are stored in databases and covered by MACs: never change one after a release.
///
/// ```
/// #[derive(Clone, Copy, Debug, PartialEq)]
/// pub enum Phase {
///     New,
///     Full,
/// }
///
/// kms_types::text_table! {
///     Phase {
///         New = "new",
///         Full = "full",
///     }
/// }
///
/// assert_eq!(Phase::Full.as_str(), "full");
/// assert_eq!("new".parse(), Ok(Phase::New));
/// assert!("half".parse::<Phase>().is_err());
/// assert_eq!(Phase::ALL, [Phase::New, Phase::Full]);
/// ```
#[macro_export]
macro_rules! text_table {
    ($name:ident { $($variant:ident $(($inner:path))? = $text:literal,)+ }) => {
        impl $name {
            /// Every value, in the order of its table of texts.
            pub const ALL: &'static [Self] = &[$(Self::$variant $(($inner))?),+];

            /// The text that is stored for this value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant $(($inner))? => $text,)+
                }
            }
        }

        impl ::core::str::FromStr for $name {
            type Err = $crate::UnknownText;

            fn from_str(text: &str) -> Result<Self, $crate::UnknownText> {
                match text {
                    $($text => Ok(Self::$variant $(($inner))?),)+
                    _ => Err($crate::UnknownText {
                        kind: stringify!($name),
                        text: text.to_owned(),
                    }),
                }
            }
        }
    };
}
