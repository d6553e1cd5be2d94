//! Says which servers the tests of this workspace run against. Without the test harness, so that
//! it is seen.

use kms_testkit::{Anvil, Mongod, Postgres, TestkitError};

fn main() -> Result<(), TestkitError> {
    println!("tested against");
    println!("  {}", Postgres::start()?.version());
    println!("  mongod {}", Mongod::start()?.version());
    println!("  {}\n", Anvil::start()?.version());
    Ok(())
}
