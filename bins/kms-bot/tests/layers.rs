//! The bot must not link custody code or a database.

use std::process::Command;

#[test]
fn the_bot_links_no_custody_and_no_database() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--prefix", "none", "--format", "{p}"])
        .args(["-e", "normal", "-p", "kms-bot"])
        // Features of the whole workspace would be counted as the package's own.
        .env_remove("CARGO_RESOLVER_FEATURE_UNIFICATION")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.contains("kms-client v") && tree.contains("teloxide-core v"));
    for other in ["kms-core", "kms-store", "kms-chain", "kms-server", "diesel", "mongodb"] {
        assert!(!tree.contains(other), "kms-bot links {other}");
    }
}
