//! The sweeper: removes wrapped SCKs that no wallet has referred to for as long as backups are kept,
//! so that what an old password's key opens ends some day.
//!
//! A wallet that needs a removed one can be recovered no more, so everything in doubt stays: what was
//! first seen unreferenced less than the retention ago (which covers what is being written just now,
//! and a restored older database), what belongs to an account that could not be recovered otherwise,
//! and everything in a key database that another account database was the first to use.

use std::time::Duration;

use kms_core::ports::StoreError;
use kms_core::{AlarmContext, CustodyError, integrity_alarm};
use kms_types::{AccountId, SckId};
use metrics::counter;

use super::{PAGE, PAUSE, Upkeep, caller};
use crate::clock;

impl Upkeep {
    /// Looks at every wrapped SCK once in a while, a page at a time. One server does.
    pub(crate) async fn sweep(mut self) {
        let Some(retention) = self.settings.retention else {
            return;
        };
        while self.turn("upkeep:sweep").await {
            match self.sweep_round(retention).await {
                Ok(removed) => tracing::info!(removed, "unneeded wrapped keys were swept"),
                // What was noted stays, and the next round goes on with it.
                Err(error) => tracing::error!(%error, "unneeded wrapped keys were not swept"),
            }
        }
    }

    async fn sweep_round(&mut self, retention: Duration) -> Result<u64, CustodyError> {
        let identity = self.database.identity().await?;
        if !self.key_database.belongs_to(&identity).await? {
            let what = "the key database belongs to another account database";
            integrity_alarm(what, AlarmContext::default());
            return Ok(0);
        }
        let (mut after, mut removed) = (String::new(), 0);
        loop {
            let page = self.key_database.scks_after(&after, PAGE).await?;
            let Some((last, _)) = page.last() else {
                return Ok(removed);
            };
            after = last.clone();
            let parsed = page.iter().filter_map(|(id, account)| {
                let parsed = id.parse::<SckId>().ok().zip(account.parse::<AccountId>().ok());
                if parsed.is_none() {
                    let context = AlarmContext { record: Some(id), ..AlarmContext::default() };
                    integrity_alarm("a wrapped SCK has an invalid id or account", context);
                }
                parsed
            });
            let scks: Vec<_> = parsed.collect();
            let ids = scks.iter().map(|(id, _)| *id).collect();
            let due = self.database.unreferenced_for(retention, ids, clock::now()).await?;
            for (sck, account) in scks.into_iter().filter(|(id, _)| due.contains(id)) {
                removed += u64::from(self.remove(sck, account).await?);
            }
            if !self.rests(PAUSE.min(self.settings.check_interval)).await {
                return Ok(removed);
            }
        }
    }

    async fn remove(&self, sck: SckId, account: AccountId) -> Result<bool, CustodyError> {
        match self.custody.sweep(sck, account, &caller("sweeper"), clock::now()).await {
            Ok(()) => {
                counter!("wrapped_keys_removed_total").increment(1);
                self.database.forget_unreferenced(sck).await?;
                Ok(true)
            }
            // Else the next one would fail as well, each with two rows in the audit.
            Err(error @ CustodyError::Store(StoreError::Unavailable { .. })) => Err(error),
            Err(error) => {
                tracing::warn!(%sck, %account, %error, "a wrapped key was not removed");
                Ok(false)
            }
        }
    }
}
