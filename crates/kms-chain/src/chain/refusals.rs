//! What nodes' refusals of a transaction mean, by their words: for display and alarms. Endpoints
//! differ in their words, and any endpoint may lie, so no decision follows from them.

use super::error::ChainError;
use crate::transfer::{Refusal, WaitReason};

/// Lower-cased substrings of what nodes answer that have the transaction, or that have its nonce in
/// a block.
const KNOWN: [&str; 9] = [
    "already known",
    "alreadyknown",
    "already imported",
    "existing tx with same hash",
    "nonce too low",
    "nonce is too low",
    "oldnonce",
    "ownnoncealreadyused",
    "already finalized",
];

/// Lower-cased substrings of refusals, in the order in which they are looked for.
const REFUSALS: [(WaitReason, &[&str]); 5] = [
    (
        WaitReason::Funds,
        &[
            "insufficient funds",
            "insufficientfunds",
            "insufficient balance",
            "not enough funds",
            "upfront cost exceeds",
        ],
    ),
    (
        WaitReason::Fee,
        &[
            "less than block base fee",
            "lower than the current base fee",
            "below current base fee",
            "greater than base fee",
        ],
    ),
    (
        WaitReason::Refused(Refusal::FeeTooHigh),
        &["exceeds the configured cap", "fee cap exceeded", "fee too high"],
    ),
    (
        WaitReason::Refused(Refusal::GasLimit),
        &[
            "intrinsic gas",
            "gas limit",
            "gaslimitexceeded",
            "out of gas",
            "transaction gas is too low",
        ],
    ),
    (
        WaitReason::Refused(Refusal::TipTooLow),
        &["underpriced", "gas tip", "priority fee", "gas price", "fee too low", "feetoolow"],
    ),
];

impl ChainError {
    /// Whether a node answers that it has this transaction, or that its nonce is used. That is no
    /// refusal, and proves nothing: the chain shows what became of it.
    pub(crate) fn is_known_transaction(&self) -> bool {
        let Self::Refused { message, .. } = self else { return false };
        let message = message.to_lowercase();
        KNOWN.iter().any(|words| message.contains(words))
            || (message.contains("known transaction") && !message.contains("unknown transaction"))
    }

    /// Why a transaction waits that the endpoints answered with this error; `None` if they did not
    /// refuse it.
    pub(crate) fn wait_reason(&self) -> Option<WaitReason> {
        let Self::Refused { message, .. } = self else { return None };
        if self.is_known_transaction() {
            return None;
        }
        let message = message.to_lowercase();
        let is_in = |words: &[&str]| words.iter().any(|words| message.contains(words));
        let found = REFUSALS.iter().find(|(_, words)| is_in(words));
        Some(found.map_or(WaitReason::Refused(Refusal::Other), |(reason, _)| *reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNDS: WaitReason = WaitReason::Funds;
    const FEE: WaitReason = WaitReason::Fee;
    const GAS_LIMIT: WaitReason = WaitReason::Refused(Refusal::GasLimit);
    const TIP_TOO_LOW: WaitReason = WaitReason::Refused(Refusal::TipTooLow);
    const FEE_TOO_HIGH: WaitReason = WaitReason::Refused(Refusal::FeeTooHigh);
    const OTHER: WaitReason = WaitReason::Refused(Refusal::Other);

    fn refused(message: &str) -> ChainError {
        ChainError::Refused { code: -32_000, message: message.to_owned() }
    }

    #[test]
    fn a_transaction_that_a_node_has_is_not_refused() {
        for (node, known) in [
            ("geth", "already known"),
            ("geth", "nonce too low: next nonce 5, tx nonce 4"),
            ("a provider", "ALREADY_EXISTS: already known"),
            ("nethermind", "AlreadyKnown"),
            ("nethermind", "OldNonce, Current nonce: 5, nonce of rejected tx: 4"),
            ("nethermind", "OwnNonceAlreadyUsed"),
            ("erigon", "INTERNAL_ERROR: existing tx with same hash"),
            ("besu", "Known transaction"),
            ("besu", "Nonce too low"),
            ("reth", "already known"),
            ("openethereum", "Transaction with the same hash was already imported."),
            ("openethereum", "Transaction nonce is too low. Try incrementing the nonce."),
        ] {
            let error = refused(known);
            assert_eq!(
                (error.is_known_transaction(), error.wait_reason()),
                (true, None),
                "{node}: {known}"
            );
        }
    }

    #[test]
    fn the_words_of_each_node_have_their_reason() {
        for (node, words, reason) in [
            ("geth", "insufficient funds for gas * price + value: balance 1, tx cost 2", FUNDS),
            ("geth", "insufficient funds for transfer", FUNDS),
            ("geth", "max fee per gas less than block base fee: address 0x1, baseFee: 2", FEE),
            ("geth", "transaction underpriced: gas tip cap 0, minimum needed 1000000", TIP_TOO_LOW),
            ("geth", "replacement transaction underpriced", TIP_TOO_LOW),
            ("geth", "intrinsic gas too low: gas 21000, minimum needed 25000", GAS_LIMIT),
            ("geth", "exceeds block gas limit", GAS_LIMIT),
            ("geth", "tx fee (1.05 ether) exceeds the configured cap (1.00 ether)", FEE_TOO_HIGH),
            ("geth", "txpool is full", OTHER),
            ("geth", "nonce too high", OTHER),
            ("geth", "unknown transaction type", OTHER),
            ("nethermind", "InsufficientFunds, Account balance: 0, cumulative cost: 1", FUNDS),
            ("nethermind", "FeeTooLow, MaxFeePerGas too low. MaxFeePerGas: 1", TIP_TOO_LOW),
            ("nethermind", "FeeTooLowToCompete", TIP_TOO_LOW),
            (
                "nethermind",
                "GasLimitExceeded, Gas limit: 1, gas limit of rejected tx: 2",
                GAS_LIMIT,
            ),
            ("erigon", "FeeTooLow: fee too low", TIP_TOO_LOW),
            ("erigon", "underpriced", TIP_TOO_LOW),
            ("besu", "Upfront cost exceeds account balance", FUNDS),
            ("besu", "Gas price below current base fee", FEE),
            ("besu", "transaction price must be greater than base fee", FEE),
            ("besu", "Gas price below configured minimum gas price", TIP_TOO_LOW),
            ("besu", "Intrinsic gas exceeds gas limit", GAS_LIMIT),
            ("besu", "Transaction fee cap exceeded", FEE_TOO_HIGH),
            ("reth", "insufficient funds for gas * price + value", FUNDS),
            ("reth", "max fee per gas less than block base fee", FEE),
            ("reth", "transaction underpriced", TIP_TOO_LOW),
            ("reth", "intrinsic gas too low", GAS_LIMIT),
            ("arbitrum", "not enough funds for gas", FUNDS),
            ("arbitrum", "gas price too low", TIP_TOO_LOW),
            ("arbitrum", "max fee per gas less than block base fee", FEE),
            ("arbitrum", "intrinsic gas too low", GAS_LIMIT),
            ("op", "fee too low: 1, use at least tx.gasLimit = 2 and tx.gasPrice = 3", TIP_TOO_LOW),
            ("op", "fee too high: 9, use less than 2 * 3", FEE_TOO_HIGH),
            ("op", "insufficient funds for gas * price + value", FUNDS),
            ("anvil", "max fee per gas less than block base fee", FEE),
            // No tip in it.
            ("a provider", "multiple transactions are not supported", OTHER),
        ] {
            assert_eq!(refused(words).wait_reason(), Some(reason), "{node}: {words}");
            assert!(!refused(words).is_known_transaction(), "{node}: {words}");
        }
        assert_eq!(ChainError::NoEndpoint.wait_reason(), None);
    }
}
