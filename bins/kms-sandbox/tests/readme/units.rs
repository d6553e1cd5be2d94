//! The units of systemd.

use std::process::Command;

use crate::{REPOSITORY, checkout::text};

/// `systemd-analyze security` rates each service at most 2.0 of 10.
pub(crate) fn check() {
    for unit in ["kms-server", "kms-bot"] {
        let rated = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
            .arg(format!("{REPOSITORY}/deploy/systemd/{unit}.service"))
            .output()
            .expect("systemd-analyze is needed: apt-get install systemd");
        assert!(rated.status.success(), "{unit}: {}", text(&rated));
    }
}
