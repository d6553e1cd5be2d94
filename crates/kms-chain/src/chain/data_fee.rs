//! The fees that an OP-stack chain takes in addition to gas: for the transaction's data on L1, and
//! for its operator. No price that is signed limits them, and a node refuses a transaction whose
//! sender cannot pay them.

use alloy::eips::BlockId;
use alloy::primitives::{Address, Bytes, U256, address};
use alloy::sol_types::SolCall;
use kms_types::Wei;
use serde_json::json;

use super::batch::{Answers, Calls, Place};
use super::endpoint::Endpoint;
use super::error::ChainError;
use super::tokens::{call, parse_word};

alloy::sol! {
    interface GasPriceOracle {
        function getL1FeeUpperBound(uint256 size) external view returns (uint256 fee);
        function getOperatorFee(uint256 gas) external view returns (uint256 fee);
    }
}

/// The address of the GasPriceOracle on every OP-stack chain. Other chains have no code there.
const ORACLE: Address = address!("0x420000000000000000000000000000000000000F");

/// More bytes than a payment has without its signature.
const TRANSACTION_SIZE: u64 = 256;

/// More gas than a payment takes.
const GAS: u64 = 500_000;

/// The calls for what the chain takes in addition to gas.
pub(super) struct DataFeeCalls {
    l1: Place<Bytes>,
    operator: Place<Bytes>,
}

impl DataFeeCalls {
    pub(super) fn add(calls: &mut Calls, at: BlockId) -> Self {
        let mut ask = |input: Vec<u8>| calls.add("eth_call", json!([call(ORACLE, input), at]));
        let (size, gas) = (U256::from(TRANSACTION_SIZE), U256::from(GAS));
        let l1 = ask(GasPriceOracle::getL1FeeUpperBoundCall { size }.abi_encode());
        Self { l1, operator: ask(GasPriceOracle::getOperatorFeeCall { gas }.abi_encode()) }
    }

    /// Both fees, each zero on a chain that does not have it.
    pub(super) fn fee(self, of: &Endpoint, answers: &mut Answers) -> Result<Wei, ChainError> {
        let mut sum = U256::ZERO;
        for place in [self.l1, self.operator] {
            let answer = of.contract_answer(answers, place)?;
            let fee = answer.and_then(|answer| parse_word(&answer)).unwrap_or_default();
            sum = sum.saturating_add(fee);
        }
        Ok(Wei(sum))
    }
}
