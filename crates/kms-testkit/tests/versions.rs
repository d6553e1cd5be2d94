//! Prints the versions of the servers that the tests of this workspace run against. Has no test
//! harness, which would hide the output.

use kms_testkit::{Anvil, Mongod, Postgres, TestkitError};

fn main() -> Result<(), TestkitError> {
    println!("tested against");
    println!("  {}", Postgres::start()?.version());
    println!("  mongod {}", Mongod::start()?.version());
    println!("  {}\n", Anvil::start()?.version());
    Ok(())
}
