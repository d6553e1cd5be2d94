//! Contacts of users outside Telegram. They are personal data: stored encrypted, shown masked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A mobile number in the international form of E.164: `+` and 8 to 15 digits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mobile(String);

/// An e-mail address: a `dot-atom` of RFC 5322, `@`, and a domain of at least two labels; at most
/// 254 bytes (RFC 5321). Each can be sent an e-mail; only a code that was sent to it proves that
/// it exists.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Email(String);

/// Why a text is not a contact. It does not quote the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContactError {
    /// Not an international number.
    #[error("a mobile number is + and 8 to 15 digits, with the country code")]
    Mobile,
    /// Not an address.
    #[error("an e-mail address looks like name@example.org")]
    Email,
}

impl Mobile {
    /// Returns the whole number.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the last two digits, by which the owner recognizes the number.
    #[must_use]
    pub fn masked(&self) -> String {
        format!("+…{}", self.0.get(self.0.len() - 2..).unwrap_or_default())
    }
}

impl Email {
    /// Returns the whole address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first letter and the domain.
    #[must_use]
    pub fn masked(&self) -> String {
        let (local, domain) = self.0.split_once('@').unwrap_or_default();
        format!("{}…@{domain}", local.chars().next().unwrap_or_default())
    }
}

impl FromStr for Mobile {
    type Err = ContactError;

    fn from_str(text: &str) -> Result<Self, ContactError> {
        let digits = text.strip_prefix('+').ok_or(ContactError::Mobile)?;
        let valid = (8..=15).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0');
        if valid { Ok(Self(text.to_owned())) } else { Err(ContactError::Mobile) }
    }
}

impl FromStr for Email {
    type Err = ContactError;

    fn from_str(text: &str) -> Result<Self, ContactError> {
        let (local, domain) = text.split_once('@').ok_or(ContactError::Email)?;
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let atom = |atom: &str| {
            let atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
            !atom.is_empty() && atom.bytes().all(atext)
        };
        let valid = text.len() <= 254
            && (1..=64).contains(&local.len())
            && local.split('.').all(atom)
            && domain.contains('.')
            && domain.split('.').all(label);
        if valid { Ok(Self(text.to_owned())) } else { Err(ContactError::Email) }
    }
}

macro_rules! text_and_masked_debug {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = ContactError;

            fn try_from(text: String) -> Result<Self, ContactError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(contact: $name) -> String {
                contact.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.masked())
            }
        }
    };
}

text_and_masked_debug!(Mobile);
text_and_masked_debug!(Email);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mobiles_are_international_and_masked() {
        let mobile: Mobile = "+4915112345678".parse().unwrap();
        assert_eq!(mobile.masked(), "+…78");
        assert_eq!(format!("{mobile:?}"), "+…78");
        for bad in [
            "",
            "+",
            "4915112345678",
            "+0151123456",
            "+49 151 1234567",
            "+1234567",
            "+1234567890123456",
        ] {
            assert!(bad.parse::<Mobile>().is_err(), "{bad}");
        }
    }

    #[test]
    fn e_mail_addresses_are_plain_and_masked() {
        let email: Email = "ann.b+kms@mail.example.org".parse().unwrap();
        assert_eq!(format!("{email:?}"), "a…@mail.example.org");
        let long = format!("a@{}.example", "b".repeat(64));
        for bad in [
            long.as_str(),
            ".ann@example.org",
            "ann.@example.org",
            "try..this@example.org",
            "\"ann\"@example.org",
            "",
            "@",
            "a@",
            "@b.c",
            "a@b",
            "a@b..c",
            "a b@c.de",
            "a@b@c.de",
            "a@-b.de",
            "a\r\n@b.de",
            "ä@b.de",
        ] {
            assert!(bad.parse::<Email>().is_err(), "{bad}");
        }
    }
}
