//! This crate contains no HTTP, no SQL and no key provider.

use std::process::Command;

#[test]
fn depends_on_no_http_no_sql_and_no_key_provider() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--prefix", "none", "--format", "{p}"])
        .args(["--all-features", "-e", "normal", "-p", "kms-core"])
        // Features that other crates of the workspace enable do not count.
        .env_remove("CARGO_RESOLVER_FEATURE_UNIFICATION")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.contains("kms-types v") && tree.contains("rsa v"));
    for other in ["hyper", "reqwest", "aws-", "diesel", "mongodb", "kms-key-", "kms-store"] {
        assert!(!tree.contains(other), "kms-core depends on {other}");
    }
}
