//! Sends one e-mail over SMTP.

use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use metrics::counter;

use super::emails::Email;
use crate::config::MailSettings;

const TIMEOUT: Duration = Duration::from_secs(20);
/// Attempts per e-mail while the server accepts others.
const ATTEMPTS: u64 = 3;

/// Why e-mail cannot be sent with these settings.
#[derive(Debug, thiserror::Error)]
pub enum MailSettingsError {
    /// The SMTP server's URL. Without a cause, which could quote its password.
    #[error("mail.url: not an SMTP URL")]
    Url,
    /// The sender.
    #[error("mail.from: not an e-mail address")]
    From,
}

/// Why an e-mail was not sent. Never quotes the server, which may repeat the address.
#[derive(Debug, thiserror::Error)]
pub(super) enum SmtpError {
    #[error("SMTP server unavailable ({0})")]
    Unavailable(String),
    #[error("not a deliverable e-mail address")]
    Address,
    #[error("rejected by the SMTP server ({0})")]
    Rejected(String),
}

/// An SMTP server, and the sender of all e-mails. Connections are kept for the next e-mail.
#[derive(Clone)]
pub(super) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Smtp {
    pub(super) fn new(settings: &MailSettings) -> Result<Self, MailSettingsError> {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(settings.url.expose())
            .map_err(|_secret| MailSettingsError::Url)?
            .timeout(Some(TIMEOUT))
            .build();
        let from = settings.from.parse().map_err(|_cause| MailSettingsError::From)?;
        Ok(Self { transport, from })
    }

    /// Connects and logs in.
    pub(super) async fn log_in(&self) -> Result<(), SmtpError> {
        match self.transport.test_connection().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(SmtpError::Unavailable("no greeting".to_owned())),
            Err(error) => Err(SmtpError::Unavailable(reason(&error))),
        }
    }

    /// Sends an e-mail, with a few attempts if the server accepts others but not this one.
    pub(super) async fn send(&self, to: &str, email: Email) -> Result<(), SmtpError> {
        let message = message(self.from.clone(), to, email)?;
        for attempt in 1.. {
            let error = match self.transport.send(message.clone()).await {
                Ok(_response) => break,
                Err(error) => error,
            };
            // Without this e-mail: a server that rejects our credentials rejects a greeting too.
            let accepts_others = self.transport.test_connection().await.unwrap_or(false);
            if !accepts_others {
                return Err(SmtpError::Unavailable(reason(&error)));
            }
            if error.is_permanent() || attempt >= ATTEMPTS {
                return Err(SmtpError::Rejected(reason(&error)));
            }
            tokio::time::sleep(Duration::from_secs(attempt * attempt * 2)).await;
        }
        counter!("kms_mail_sent_total").increment(1);
        Ok(())
    }
}

/// The whole message, with its headers.
pub(super) fn message(from: Mailbox, to: &str, email: Email) -> Result<Message, SmtpError> {
    Message::builder()
        .from(from)
        .to(to.parse().map_err(|_personal| SmtpError::Address)?)
        .subject(email.subject)
        .header(ContentType::TEXT_PLAIN)
        .body(email.body)
        .map_err(|_personal| SmtpError::Address)
}

/// What kind of error it is, without the server's own text.
fn reason(error: &smtp::Error) -> String {
    match error.status() {
        Some(code) => format!("code {code}"),
        None if error.is_timeout() => "timeout".to_owned(),
        None if error.is_tls() => "TLS".to_owned(),
        None => "no connection".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// To this address, as it was written.
    fn can_be_sent(address: &str) -> bool {
        let from = "kms@example.org".parse().unwrap();
        let email = Email { subject: "A code".to_owned(), body: "12345678".to_owned() };
        message(from, address, email).is_ok_and(|message| {
            message.envelope().to().iter().map(ToString::to_string).eq([address])
        })
    }

    /// Domains that are too long, that begin with a digit, or look like another notation.
    const DOMAINS: &str = concat!(
        r"[a-zA-Z0-9.-]{1,20}|([a-zA-Z0-9-]{1,20}\.){1,3}[a-zA-Z0-9-]{1,20}|",
        r"[a-z]{60,66}\.[a-z]{1,3}|([a-z]{40}\.){3,6}[a-z]{2,40}|",
        r"xn--[a-z0-9-]{1,12}\.[a-z]{2,4}|[0-9]{1,3}(\.[0-9]{1,3}){3}",
    );

    proptest! {
        /// An address is refused when it is given, or receives the code.
        #[test]
        fn every_address_that_is_accepted_can_be_sent_an_e_mail(
            local in "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~.-]{1,20}|[a-z]{60,66}",
            domain in DOMAINS,
        ) {
            let address = format!("{local}@{domain}");
            if address.parse::<kms_types::Email>().is_ok() {
                prop_assert!(can_be_sent(&address), "{}", address);
            }
        }

        #[test]
        fn ordinary_addresses_are_accepted_and_can_be_sent_an_e_mail(
            local in "[a-z0-9]{1,8}([.+_-][a-z0-9]{1,8}){0,3}",
            domain in "[a-z0-9]{1,8}(-[a-z0-9]{1,8}){0,2}(\\.[a-z]{2,6}){1,3}",
        ) {
            let address = format!("{local}@{domain}");
            prop_assert!(address.parse::<kms_types::Email>().is_ok(), "{}", address);
            prop_assert!(can_be_sent(&address), "{}", address);
        }
    }
}
