//! Who runs a command, for the audit.

use std::os::unix::fs::MetadataExt;

use kms_core::audit::Operator;

/// Names the person by the user that they logged in as, which `sudo` keeps, and by the user id of
/// this process. An operator can pretend to be another one; the admin token of each does not.
#[expect(clippy::disallowed_methods, reason = "this is part of config.rs")]
pub(crate) fn operator() -> Operator {
    let named = ["SUDO_USER", "LOGNAME", "USER"].iter().find_map(|name| std::env::var(name).ok());
    let named = named.unwrap_or_else(|| "unknown".to_owned());
    let uid = std::fs::metadata("/proc/self").map(|process| process.uid());
    let person = uid.map_or_else(|_| named.clone(), |uid| format!("{named} (uid {uid})"));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Operator { person, host: host.trim().to_owned() }
}
