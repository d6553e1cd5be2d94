//! The newest blocks and audit rows, as the page shows them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use kms_types::{EthAddress, Token, U256, Units, Wei};
use serde_json::{Value, json};

use crate::stage::Stage;

const BLOCKS: usize = 8;
const AUDIT_ROWS: usize = 40;
const COIN: &str = "ETH";
/// The selectors of `transfer(address,uint256)` and of the test token's `mint(address,uint256)`.
const TOKEN_CALLS: [&str; 2] = ["a9059cbb", "40c10f19"];

/// Blocks and audit rows, the newest first.
#[derive(Default)]
pub(crate) struct Records(Mutex<Rows>);

#[derive(Default)]
struct Rows {
    blocks: VecDeque<Value>,
    next_block: u64,
    audit: VecDeque<Value>,
    last_audit: i64,
}

impl Records {
    /// The blocks and the audit rows.
    pub(crate) fn show(&self) -> (Value, Value) {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (json!(rows.blocks), json!(rows.audit))
    }

    /// Adds new blocks, and returns whether there were any. Blocks the thread.
    pub(crate) fn follow_chain(&self, stage: &Stage) -> anyhow::Result<bool> {
        let token = stage.paid_token()?;
        let head = stage.anvil.rpc("eth_blockNumber", json!([]))?;
        let head = head.as_str().and_then(|text| text.strip_prefix("0x"));
        let head = head.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let head = head.context("the node returned no block number")?;
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = rows.next_block;
        while rows.next_block <= head {
            let number = format!("{:#x}", rows.next_block);
            let block = stage.anvil.rpc("eth_getBlockByNumber", json!([number, true]))?;
            let transactions = block.get("transactions").and_then(Value::as_array);
            let transactions = transactions.into_iter().flatten();
            let transactions = Value::from_iter(
                transactions.map(|transaction| show_transaction(transaction, &token)),
            );
            let shown = json!({ "number": rows.next_block, "transactions": transactions });
            rows.blocks.push_front(shown);
            rows.blocks.truncate(BLOCKS);
            rows.next_block += 1;
        }
        Ok(rows.next_block != first)
    }

    /// Adds new audit rows, and returns whether there were any.
    pub(crate) async fn follow_audit(&self, stage: &Stage) -> anyhow::Result<bool> {
        let after = self.0.lock().unwrap_or_else(PoisonError::into_inner).last_audit;
        let new = stage.database.audit_after(after, 1_000).await?;
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for row in &new {
            rows.last_audit = row.sequence;
            rows.audit.push_front(json!({
                "sequence": row.sequence, "at": row.at, "action": row.action, "phase": row.phase,
                "outcome": row.outcome, "telegram_id": row.telegram_id, "actor": row.actor,
            }));
        }
        rows.audit.truncate(AUDIT_ROWS);
        Ok(!new.is_empty())
    }
}

/// A transaction's sender, recipient and amount, in coins or in the token.
fn show_transaction(transaction: &Value, token: &Token) -> Value {
    let text = |key: &str| transaction.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |hex: &str| U256::from_str_radix(hex, 16).unwrap_or_default();
    let to = text("to").parse::<EthAddress>().ok();
    let call = text("input").strip_prefix("0x").and_then(token_call);
    let (to, amount) = match call.filter(|_| to == Some(token.address)) {
        Some((to, units)) => {
            let amount = token.to_decimal(Units(number(units)));
            (json!(format!("0x{to}")), format!("{amount} {}", token.symbol))
        }
        None => {
            let wei = Wei(number(text("value").trim_start_matches("0x")));
            (json!(transaction.get("to")), format!("{} {COIN}", wei.to_coins()))
        }
    };
    let (hash, from) = (transaction.get("hash"), transaction.get("from"));
    json!({ "hash": hash, "from": from, "to": to, "amount": amount })
}

/// The recipient and the amount of a call that transfers or mints tokens, both in hex.
fn token_call(input: &str) -> Option<(&str, &str)> {
    let call = TOKEN_CALLS.iter().find_map(|call| input.strip_prefix(call))?;
    Some((call.get(24..64)?, call.get(64..128)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_show_what_is_paid_and_to_whom() {
        let address = EthAddress::from([7; 20]);
        let token = Token { symbol: "TUSD".parse().unwrap(), address, decimals: 6 };
        let bob = "ab".repeat(20);
        let input = |call: &str| format!("0x{call}{:0>64}{:064x}", bob, 2_500_000);
        let shown = |to: &str, value: &str, input: &str| {
            let transaction = json!({ "to": to, "value": value, "input": input });
            let shown = show_transaction(&transaction, &token);
            let text = |key: &str| shown.get(key).unwrap().as_str().unwrap().to_owned();
            (text("to"), text("amount"))
        };
        let (contract, bob) = (address.to_string(), format!("0x{bob}"));
        let paid = shown(&contract, "0x0", &input("a9059cbb"));
        assert_eq!(paid, (bob.clone(), "2.5 TUSD".to_owned()));
        assert_eq!(shown(&contract, "0x0", &input("40c10f19")).1, "2.5 TUSD");
        let half = format!("{:#x}", 500_000_000_000_000_000_u64);
        assert_eq!(shown(&bob, &half, "0x"), (bob.clone(), "0.5 ETH".to_owned()));
        // Another call, a truncated one, and one to an address that is not the token's.
        let cut = &input("a9059cbb")[..100];
        for (to, input) in
            [(&contract, &*input("300e8ebe")), (&contract, cut), (&bob, &input("a9059cbb"))]
        {
            assert_eq!(shown(to, "0x0", input), (to.clone(), "0 ETH".to_owned()));
        }
    }
}
