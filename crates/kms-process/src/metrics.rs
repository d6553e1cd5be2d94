//! Metrics for Prometheus.

use std::sync::OnceLock;

use metrics::{Counter, counter};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The upper bounds of durations, in seconds: histograms of several processes can be added.
const SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Events that operators are alerted on; a test compares them with the operators' table.
pub const ALARMS: [&str; 49] = [
    "integrity_alarm",
    "panic",
    "start_failed",
    "worker_ended",
    "stop_timeout",
    "worker_round_failed",
    "audit_outcome_delayed",
    "audit_outcome_lost",
    "checkpoint_failed",
    "kms_key_probe_failed",
    "kms_key_unavailable",
    "wallet_unrecoverable",
    "clock_skew",
    "many_wrong_passwords",
    "many_recoveries",
    "recovery_breaker",
    "mail_dropped",
    "mail_skipped",
    "chain_endpoint_failed",
    "chain_endpoint_contradicted",
    "prices_unconfirmed",
    "finalized_block_removed",
    "final_transfer_reopened",
    "finality_unconfirmed",
    "finality_contradicted",
    "no_finalized_block",
    "final_nonce_contradicted",
    "missed_block_settled",
    "missed_block_not_found",
    "outflow_limit_reached",
    "payment_policy_failed",
    "token_mismatch",
    "token_disabled",
    "token_expires_soon",
    "transfer_refused",
    "transfer_superseded",
    "updates_failed",
    "events_failed",
    "notice_dropped",
    "update_dropped",
    "handler_panicked",
    "request_failed",
    "row_unreadable",
    "event_subject_missing",
    "event_subject_unreadable",
    "audit_append_failed",
    "no_chain_endpoint",
    "chain_not_configured",
    "telegram_unreachable",
];

/// Those of them that are about a chain, whose id is their label `chain`.
pub const ALARMS_OF_CHAINS: [&str; 18] = [
    "chain_endpoint_failed",
    "chain_endpoint_contradicted",
    "prices_unconfirmed",
    "finalized_block_removed",
    "final_transfer_reopened",
    "finality_unconfirmed",
    "finality_contradicted",
    "no_finalized_block",
    "final_nonce_contradicted",
    "missed_block_settled",
    "missed_block_not_found",
    "outflow_limit_reached",
    "payment_policy_failed",
    "token_mismatch",
    "token_disabled",
    "transfer_refused",
    "transfer_superseded",
    "no_chain_endpoint",
];

/// The metrics of this process: several servers in one process share them.
pub fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let durations = Matcher::Suffix("_duration_seconds".to_owned());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(durations, &SECONDS);
        // Fails only for an empty list.
        let recorder = builder.unwrap_or_default().build_recorder();
        let handle = recorder.handle();
        // Fails only if the process has another recorder, which then receives the metrics.
        let _ = metrics::set_global_recorder(recorder);
        // A counter that begins with its first event shows no increase by it.
        for event in ALARMS.into_iter().filter(|event| !ALARMS_OF_CHAINS.contains(event)) {
            alarms(event, None).increment(0);
        }
        handle
    })
}

/// Begins the counts of alarms about a chain, as [`metrics()`] does those of all others.
pub fn count_alarms_of(chain_id: u64) {
    metrics();
    for event in ALARMS_OF_CHAINS {
        alarms(event, Some(chain_id)).increment(0);
    }
}

fn alarms(event: &str, chain_id: Option<u64>) -> Counter {
    // The count that began with the process.
    let is_of_all = ALARMS.contains(&event) && !ALARMS_OF_CHAINS.contains(&event);
    let event = event.to_owned();
    match chain_id {
        Some(chain) if !is_of_all => {
            counter!("kms_alarms_total", "event" => event, "chain" => chain.to_string())
        }
        _ => counter!("kms_alarms_total", "event" => event),
    }
}

/// Counts warnings and errors by their fields `event` and `chain_id`.
pub(crate) struct CountAlarms;

impl<S: Subscriber> Layer<S> for CountAlarms {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if *event.metadata().level() <= Level::WARN {
            let mut named = Named::default();
            event.record(&mut named);
            if let Some(event) = named.event {
                alarms(&event, named.chain_id).increment(1);
            }
        }
    }
}

/// The fields that are counted by. The values of `event` are words of the code.
#[derive(Default)]
struct Named {
    event: Option<String>,
    chain_id: Option<u64>,
}

impl Visit for Named {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "event" {
            self.event = Some(value.to_owned());
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "chain_id" {
            self.chain_id = Some(value);
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn std::fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn an_alarm_is_counted_from_its_first_event_on() {
        let line = |event: &str, count: u32| {
            let line = format!("kms_alarms_total{{event=\"{event}\"}} {count}\n");
            metrics().render().contains(&line)
        };
        assert!(line("integrity_alarm", 0));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(CountAlarms), || {
            tracing::error!(event = "integrity_alarm", "row failed its check");
            tracing::warn!(event = "integrity_alarm", "row failed its check");
            tracing::info!(event = "integrity_alarm", "no alarm");
        });
        assert!(line("integrity_alarm", 2), "{}", metrics().render());
    }

    #[test]
    fn an_alarm_about_a_chain_is_counted_for_it() {
        let line = |chain: u64, count: u32| {
            let labels = format!("event=\"token_disabled\",chain=\"{chain}\"");
            metrics().render().contains(&format!("kms_alarms_total{{{labels}}} {count}\n"))
        };
        count_alarms_of(41);
        count_alarms_of(42);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(CountAlarms), || {
            tracing::error!(chain_id = 42_u64, event = "token_disabled", "token is disabled");
        });
        assert!(line(41, 0) && line(42, 1), "{}", metrics().render());
        assert!(ALARMS_OF_CHAINS.iter().all(|event| ALARMS.contains(event)));
    }
}
