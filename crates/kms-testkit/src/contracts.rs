//! Contracts for tests, from `contracts/TestToken.sol`.
//!
//! The bytecode is committed, so that no compiler is needed: solc 0.8.30, optimizer with 200 runs,
//! EVM version `paris`, no CBOR metadata.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Anvil, TestkitError};

const TOKEN: &str = include_str!("../contracts/TestToken.hex");
const GAS_PRICE_ORACLE: &str = include_str!("../contracts/GasPriceOracle.hex");
const MULTICALL: &str = include_str!("../contracts/Multicall.hex");

/// The address of the GasPriceOracle on every OP-stack chain.
const GAS_PRICE_ORACLE_AT: &str = "0x420000000000000000000000000000000000000F";

/// The address of Multicall3 on every chain that has it.
const MULTICALL3: &str = "0xcA11bde05977b3631167028862bE2a173976CA11";

/// What the token's `transfer` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferBehavior {
    /// Follows the standard.
    Standard,
    /// Moves the tokens, and returns nothing.
    NoReturnValue,
    /// Moves nothing, and returns `false`.
    ReturnsFalse,
    /// Keeps a tenth of the amount (fee on transfer).
    TakesFee,
    /// Reverts.
    Reverts,
    /// Moves nothing, and returns `true`.
    MovesNothing,
    /// Moves nothing, returns `true`, and lets another contract log a transfer.
    ForgesLog,
    /// Uses all gas.
    UsesAllGas,
    /// Calls the recipient first.
    CallsRecipient,
    /// Reverts, and `paused()` is true.
    Paused,
    /// Logs without indexed addresses, as tokens before ERC-20 did.
    OldLog,
}

/// A token on an anvil chain. Everyone may mint it.
#[derive(Clone, Debug)]
pub struct TestToken {
    address: String,
    owner: String,
}

impl TestToken {
    /// Deploys a token.
    ///
    /// # Errors
    /// When anvil does not answer.
    pub fn deploy(anvil: &Anvil, symbol: &str, decimals: u8) -> Result<Self, TestkitError> {
        let accounts = anvil.rpc("eth_accounts", json!([]))?;
        let owner = accounts.get(0).and_then(Value::as_str).unwrap_or_default().to_owned();
        let data = format!("0x{}{:064x}{decimals:064x}{}", TOKEN.trim(), 64, text(symbol));
        let receipt = send(anvil, json!({"from": owner, "data": data, "gas": "0x400000"}))?;
        let address = receipt.get("contractAddress").and_then(Value::as_str);
        Ok(Self { address: address.unwrap_or_default().to_owned(), owner })
    }

    /// The address of its contract.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Mints an amount in the smallest unit, and returns the transaction's hash.
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
    pub fn set_behavior(
        &self,
        anvil: &Anvil,
        behavior: TransferBehavior,
    ) -> Result<(), TestkitError> {
        let number = match behavior {
            TransferBehavior::Standard => 0,
            TransferBehavior::NoReturnValue => 1,
            TransferBehavior::ReturnsFalse => 2,
            TransferBehavior::TakesFee => 3,
            TransferBehavior::Reverts => 4,
            TransferBehavior::MovesNothing => 5,
            TransferBehavior::ForgesLog => 6,
            TransferBehavior::UsesAllGas => 7,
            TransferBehavior::CallsRecipient => 8,
            TransferBehavior::Paused => 9,
            TransferBehavior::OldLog => 10,
        };
        self.call(anvil, &format!("b0c9375d{number:064x}")).map(drop)
    }

    /// Changes the decimals that it reports.
    ///
    /// # Errors
    /// When anvil does not answer.
    pub fn set_decimals(&self, anvil: &Anvil, decimals: u8) -> Result<(), TestkitError> {
        self.call(anvil, &format!("7a1395aa{decimals:064x}")).map(drop)
    }

    /// Changes the symbol that it reports: at most 32 bytes.
    ///
    /// # Errors
    /// When anvil does not answer.
    pub fn set_symbol(&self, anvil: &Anvil, symbol: &str) -> Result<(), TestkitError> {
        self.call(anvil, &format!("b84c8246{:064x}{}", 32, text(symbol))).map(drop)
    }

    /// Refuses every transfer from and to an address from now on.
    ///
    /// # Errors
    /// When anvil does not answer.
    pub fn block_user(&self, anvil: &Anvil, user: &str) -> Result<(), TestkitError> {
        self.call(anvil, &format!("3da01325{}", word(user))).map(drop)
    }

    /// Logs a transfer that did not happen, and returns the transaction's hash.
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

    /// Returns the balance of an address, in the smallest unit.
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

/// Deploys Multicall3 at its usual address.
///
/// # Errors
/// When anvil does not answer.
pub fn deploy_multicall(anvil: &Anvil) -> Result<(), TestkitError> {
    let code = format!("0x{}", MULTICALL.trim());
    anvil.rpc("anvil_setCode", json!([MULTICALL3, code])).map(drop)
}

/// A string of at most 32 bytes as the ABI encodes it.
fn text(text: &str) -> String {
    let bytes: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{:064x}{bytes:0<64}", text.len())
}

/// Makes an OP-stack chain of it: deploys the GasPriceOracle, unless it is there, and sets what a
/// byte and a unit of gas cost beside the gas price.
///
/// # Errors
/// When anvil does not answer.
pub fn set_data_fees(anvil: &Anvil, a_byte: u128, a_gas: u128) -> Result<(), TestkitError> {
    let code = format!("0x{}", GAS_PRICE_ORACLE.trim());
    anvil.rpc("anvil_setCode", json!([GAS_PRICE_ORACLE_AT, code]))?;
    for (slot, fee) in [("0x0", a_byte), ("0x1", a_gas)] {
        let fee = format!("0x{fee:064x}");
        anvil.rpc("anvil_setStorageAt", json!([GAS_PRICE_ORACLE_AT, slot, fee]))?;
    }
    // Requests are pinned to a block.
    anvil.rpc("anvil_mine", json!(["0x1"])).map(drop)
}

fn word(address: &str) -> String {
    format!("{:0>64}", address.trim_start_matches("0x").to_lowercase())
}

/// Sends a transaction, mines it even if automatic mining is off, and returns its receipt.
#[expect(clippy::needless_pass_by_value, reason = "reads well with json! at the call")]
fn send(anvil: &Anvil, transaction: Value) -> Result<Value, TestkitError> {
    let hash = anvil.rpc("eth_sendTransaction", json!([transaction]))?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let receipt = anvil.rpc("eth_getTransactionReceipt", json!([hash]))?;
        if receipt.get("status").and_then(Value::as_str) == Some("0x1") {
            return Ok(receipt);
        }
        if !receipt.is_null() || Instant::now() > deadline {
            let answer = format!("the call of a test contract failed: {receipt}");
            return Err(TestkitError::Refused { program: "anvil", answer });
        }
        anvil.rpc("anvil_mine", json!(["0x1"]))?;
    }
}
