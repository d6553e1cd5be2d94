//! Which crates may not be linked by which. `deny.toml` holds the direct dependencies; these tests
//! also hold the indirect ones, and need no other tool than cargo.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::process::Command;

/// The dependencies that `cargo tree` prints, one per line.
fn tree(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--prefix", "none", "--format", "{p}"])
        .args(arguments)
        // Features of the whole workspace would be counted as the package's own.
        .env_remove("CARGO_RESOLVER_FEATURE_UNIFICATION")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Checks that a crate links `uses` and none of `never`.
fn links(package: &str, uses: &str, never: &[&str]) {
    let tree = tree(&["-e", "normal", "-p", package]);
    let has = |name: &str| tree.lines().any(|line| line.starts_with(&format!("{name} v")));
    assert!(has(uses), "{package} does not link {uses}");
    for name in never {
        assert!(!has(name), "{package} links {name}");
    }
}

#[test]
fn the_client_links_no_custody_and_no_database() {
    let never = ["kms-core", "kms-store", "kms-chain", "kms-server", "diesel", "mongodb"];
    links("kms-client", "kms-types", &never);
}

#[test]
fn custody_links_no_key_provider_no_http_and_no_database() {
    let never = ["kms-key-local", "kms-key-aws", "aws-sdk-kms", "actix-web", "reqwest", "diesel"];
    links("kms-core", "kms-types", &never);
}

#[test]
fn the_server_links_no_test_support() {
    let never = ["kms-server-testing", "kms-testkit", "kms-sandbox", "kms-client", "bot-api-sim"];
    links("kms-server", "kms-key-local", &never);
}

#[test]
fn the_sandbox_builds_with_the_embedded_stores_alone() {
    let never = ["pq-sys", "openssl-sys", "mongodb", "kms-key-aws", "aws-sdk-kms"];
    links("kms-sandbox", "kms-server-testing", &never);
}

#[test]
fn no_crate_links_the_rsa_that_leaks_through_timing() {
    let all = tree(&["--workspace", "-e", "all"]);
    assert!(all.contains("rsa v0.10") && !all.contains("rsa v0.9"));
}
