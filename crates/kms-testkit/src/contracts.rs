//! Contracts for tests, from `contracts/TestToken.sol`. Their bytecode is committed, so that no
//! compiler is needed: solc 0.8.30, optimizer at 200 runs, EVM of Paris, no metadata.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Anvil, TestkitError};

const TOKEN: &str = include_str!("../contracts/TestToken.hex");
const MULTICALL: &str = include_str!("../contracts/Multicall.hex");

/// Where Multicall3 is on the chains that have it.
const MULTICALL3: &str = "0xcA11bde05977b3631167028862bE2a173976CA11";

/// What a token's `transfer` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// What the standard says.
    Plain,
    /// The same, without an answer.
    Silent,
    /// Nothing, and answers `false`.
    False,
    /// Keeps a tenth.
    Fee,
    /// Reverts.
    Refusing,
    /// Nothing, and answers `true`.
    Lying,
    /// Nothing, and another contract logs a transfer.
    Forging,
    /// Takes all gas.
    Greedy,
    /// Calls the receiver first.
    Calling,
}

/// A token on an anvil, of which anybody makes as much as they like.
#[derive(Clone, Debug)]
pub struct TestToken {
    address: String,
    owner: String,
}

impl TestToken {
    /// Puts one onto the chain.
    ///
    /// # Errors
    /// When anvil does not answer.
    pub fn deploy(anvil: &Anvil, symbol: &str, decimals: u8) -> Result<Self, TestkitError> {
        let accounts = anvil.rpc("eth_accounts", json!([]))?;
        let owner = accounts.get(0).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name: String = symbol.bytes().map(|byte| format!("{byte:02x}")).collect();
        let data =
            format!("0x{}{:064x}{decimals:064x}{:064x}{name:0<64}", TOKEN.trim(), 64, symbol.len());
        let receipt = send(anvil, json!({"from": owner, "data": data, "gas": "0x400000"}))?;
        let address = receipt.get("contractAddress").and_then(Value::as_str);
        Ok(Self { address: address.unwrap_or_default().to_owned(), owner })
    }

    /// Its contract.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Makes this much, in its smallest unit, for somebody. Gives the transaction's hash.
    ///
    /// # Errors
    /// When anvil does not answer.
    pub fn mint(&self, anvil: &Anvil, to: &str, units: u128) -> Result<String, TestkitError> {
        self.call(anvil, &format!("40c10f19{}{units:064x}", word(to)))
    }

    /// Changes what `transfer` does.
    ///
    /// # Errors
    /// When anvil does not answer.
    pub fn behave(&self, anvil: &Anvil, manners: Manners) -> Result<(), TestkitError> {
        let number = match manners {
            Manners::Plain => 0,
            Manners::Silent => 1,
            Manners::False => 2,
            Manners::Fee => 3,
            Manners::Refusing => 4,
            Manners::Lying => 5,
            Manners::Forging => 6,
            Manners::Greedy => 7,
            Manners::Calling => 8,
        };
        self.call(anvil, &format!("300e8ebe{number:064x}")).map(drop)
    }

    /// Changes what it says of its decimals.
    ///
    /// # Errors
    /// When anvil does not answer.
    pub fn set_decimals(&self, anvil: &Anvil, decimals: u8) -> Result<(), TestkitError> {
        self.call(anvil, &format!("7a1395aa{decimals:064x}")).map(drop)
    }

    /// Logs a transfer without making it. Gives the transaction's hash.
    ///
    /// # Errors
    /// When anvil does not answer.
    pub fn log(
        &self,
        anvil: &Anvil,
        from: &str,
        to: &str,
        units: u128,
    ) -> Result<String, TestkitError> {
        self.call(anvil, &format!("17fe6185{}{}{units:064x}", word(from), word(to)))
    }

    /// What somebody has of it, as 64 hex digits.
    ///
    /// # Errors
    /// When anvil does not answer.
    pub fn balance(&self, anvil: &Anvil, of: &str) -> Result<u128, TestkitError> {
        let call = json!({"to": self.address, "data": format!("0x70a08231{}", word(of))});
        let balance = anvil.rpc("eth_call", json!([call, "latest"]))?;
        let digits = balance.as_str().unwrap_or_default().trim_start_matches("0x");
        let refused = || TestkitError::Refused { program: "anvil", answer: balance.to_string() };
        u128::from_str_radix(digits, 16).map_err(|_number| refused())
    }

    fn call(&self, anvil: &Anvil, data: &str) -> Result<String, TestkitError> {
        let data = format!("0x{data}");
        let call = json!({"from": self.owner, "to": self.address, "data": data, "gas": "0x100000"});
        let receipt = send(anvil, call)?;
        let hash = receipt.get("transactionHash").and_then(Value::as_str);
        Ok(hash.unwrap_or_default().to_owned())
    }
}

/// Puts Multicall3 where it is on other chains.
///
/// # Errors
/// When anvil does not answer.
pub fn deploy_multicall(anvil: &Anvil) -> Result<(), TestkitError> {
    let code = format!("0x{}", MULTICALL.trim());
    anvil.rpc("anvil_setCode", json!([MULTICALL3, code])).map(drop)
}

fn word(address: &str) -> String {
    format!("{:0>64}", address.trim_start_matches("0x").to_lowercase())
}

/// Sends a transaction, mines it whether blocks are made alone or not, and gives its receipt.
#[expect(clippy::needless_pass_by_value, reason = "reads well with json! at the call")]
fn send(anvil: &Anvil, transaction: Value) -> Result<Value, TestkitError> {
    let hash = anvil.rpc("eth_sendTransaction", json!([transaction]))?;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let receipt = anvil.rpc("eth_getTransactionReceipt", json!([hash]))?;
        if receipt.get("status").and_then(Value::as_str) == Some("0x1") {
            return Ok(receipt);
        }
        if !receipt.is_null() || Instant::now() > deadline {
            let answer = format!("a test contract's call came to {receipt}");
            return Err(TestkitError::Refused { program: "anvil", answer });
        }
        anvil.rpc("anvil_mine", json!(["0x1"]))?;
    }
}
