//! What the chain contains.

use kms_testkit::{Anvil, TestToken};
use kms_types::U256;
use serde_json::{Value, json};

/// A mined transaction of a wallet.
#[derive(Debug)]
pub(crate) struct Mined {
    pub(crate) hash: String,
    pub(crate) nonce: u64,
    pub(crate) to: String,
    pub(crate) fee: U256,
    pub(crate) succeeded: bool,
}

pub(crate) fn call(anvil: &Anvil, method: &str, params: Value) -> Value {
    anvil.rpc(method, params).unwrap()
}

pub(crate) fn number(anvil: &Anvil, method: &str, params: Value) -> U256 {
    call(anvil, method, params).as_str().unwrap().parse().unwrap()
}

pub(crate) fn count(anvil: &Anvil, address: &str, block: &str) -> u64 {
    number(anvil, "eth_getTransactionCount", json!([address, block])).try_into().unwrap()
}

pub(crate) fn head(anvil: &Anvil) -> u64 {
    number(anvil, "eth_blockNumber", json!([])).try_into().unwrap()
}

/// The balance of the token, or of the coin.
pub(crate) fn balance(anvil: &Anvil, token: Option<&TestToken>, address: &str) -> U256 {
    match token {
        Some(token) => U256::from(token.balance(anvil, address).unwrap()),
        None => number(anvil, "eth_getBalance", json!([address, "latest"])),
    }
}

/// The transactions of a wallet since a block, in the order of their nonces.
pub(crate) fn mined(anvil: &Anvil, from: &str, since: u64) -> Vec<Mined> {
    let mut found = Vec::new();
    for block in since..=head(anvil) {
        let block = call(anvil, "eth_getBlockByNumber", json!([format!("{block:#x}"), true]));
        for transaction in block["transactions"].as_array().unwrap() {
            if !transaction["from"].as_str().unwrap().eq_ignore_ascii_case(from) {
                continue;
            }
            let field = |of: &Value, name: &str| of[name].as_str().unwrap_or_default().to_owned();
            let (hash, nonce) = (field(transaction, "hash"), field(transaction, "nonce"));
            let receipt = call(anvil, "eth_getTransactionReceipt", json!([hash]));
            let units = |name| -> U256 { field(&receipt, name).parse().unwrap() };
            found.push(Mined {
                nonce: u64::from_str_radix(nonce.trim_start_matches("0x"), 16).unwrap(),
                to: field(transaction, "to").to_lowercase(),
                fee: units("gasUsed") * units("effectiveGasPrice"),
                succeeded: receipt["status"] == "0x1",
                hash,
            });
        }
    }
    found.sort_by_key(|mined| mined.nonce);
    found
}
