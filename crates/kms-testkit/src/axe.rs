//! axe-core, which finds what a page lacks for people with disabilities.

use std::fs;

use crate::TestkitError;
use crate::fetch::{self, Missing, Package};

const PACKAGE: Package = Package {
    name: "axe-core@4.14.1",
    program: "package/axe.min.js",
    unpack: "npm pack --silent axe-core@4.14.1
             tar -xzf *.tgz
             rm *.tgz",
    tool: &["npm", "--version"],
    missing: Missing { program: "axe-core", install: "run: apt-get install npm" },
};

/// Returns its script, which defines `axe`.
///
/// # Errors
/// When it cannot be fetched.
pub fn axe() -> Result<String, TestkitError> {
    Ok(fs::read_to_string(fetch::program(&PACKAGE)?)?)
}
