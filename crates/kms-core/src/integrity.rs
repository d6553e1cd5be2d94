//! Integrity alarms: the log line that operators alert on when stored data fails its checks.

use std::fmt;

use kms_types::AccountId;

/// What is known about the data that failed its check.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlarmContext<'a> {
    /// The request that read it.
    pub request_id: Option<&'a str>,
    /// The account that it belongs to.
    pub account: Option<AccountId>,
    /// The stored id of the record, where it is not an account's.
    pub record: Option<&'a str>,
}

/// Logs that stored data failed its integrity check: it was modified by another program, restored
/// from an old copy, or damaged. Every alarm has `event = "integrity_alarm"`.
pub fn integrity_alarm(what: impl fmt::Display, context: AlarmContext<'_>) {
    let AlarmContext { request_id, account, record } = context;
    tracing::error!(
        event = "integrity_alarm",
        what = %what,
        request_id,
        account = account.map(tracing::field::display),
        record,
        "integrity alarm"
    );
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_alarm_has_the_event_and_the_known_fields_only() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        let account = AccountId::random();
        tracing::subscriber::with_default(subscriber, || {
            let context = AlarmContext { account: Some(account), ..AlarmContext::default() };
            integrity_alarm("the accounts row failed its integrity check", context);
        });
        let line: serde_json::Value = serde_json::from_slice(&log.0.lock().unwrap()).unwrap();
        assert_eq!(line["level"], "ERROR");
        let expected = serde_json::json!({
            "message": "integrity alarm",
            "event": "integrity_alarm",
            "what": "the accounts row failed its integrity check",
            "account": account.to_string(),
        });
        assert_eq!(line["fields"], expected);
    }
}
