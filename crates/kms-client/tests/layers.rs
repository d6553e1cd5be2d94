//! The client does not depend on custody code.

use std::process::Command;

#[test]
fn the_client_does_not_depend_on_custody_nor_anything_on_the_old_rsa() {
    let tree = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--prefix", "none", "--format", "{p}"])
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let client = tree(&["-e", "normal", "-p", "kms-client"]);
    assert!(client.contains("kms-types v"));
    for custody in ["kms-core", "kms-store", "kms-chain", "kms-server", "diesel", "mongodb"] {
        assert!(!client.contains(custody), "kms-client depends on {custody}");
    }
    let all = tree(&["--workspace", "-e", "all"]);
    assert!(all.contains("rsa v0.10") && !all.contains("rsa v0.9"));
    // The sandbox builds without PostgreSQL's and MongoDB's clients.
    let sandbox = tree(&["-e", "normal", "-p", "kms-sandbox"]);
    for heavy in ["pq-sys", "openssl-sys", "mongodb"] {
        assert!(!sandbox.contains(heavy), "kms-sandbox depends on {heavy}");
    }
}
