//! Builds and signs the transactions of a transfer: of EIP-1559, or legacy ones on a chain without
//! a base fee.

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope, TxLegacy};
use alloy::eips::eip2718::Encodable2718;
use alloy::primitives::{Address, Bytes, Signature, TxKind, U256, keccak256};
use kms_core::{HashSignature, OpenWallet};
use kms_types::EthAddress;

use crate::chain::transfer_call;
use crate::transfer::{Fees, TransactionKind, Transfer};

/// Signs the payment or the cancellation for this nonce and at these prices. Returns its hash and
/// its bytes (EIP-2718).
pub(crate) fn sign(
    transfer: &Transfer,
    kind: TransactionKind,
    fees: Fees,
    nonce: u64,
    wallet: &OpenWallet,
) -> ([u8; 32], Vec<u8>) {
    assemble(transfer, kind, fees, nonce, |hash| wallet.sign_hash(hash))
}

/// Whether the transaction with these bytes has this hash.
pub(crate) fn is_hash_of(hash: [u8; 32], bytes: &[u8]) -> bool {
    keccak256(bytes).0 == hash
}

fn assemble(
    transfer: &Transfer,
    kind: TransactionKind,
    fees: Fees,
    nonce: u64,
    sign: impl FnOnce(&[u8; 32]) -> HashSignature,
) -> ([u8; 32], Vec<u8>) {
    let (to, value, input) = call(transfer, kind);
    let to = TxKind::Call(Address::from(to));
    let (chain_id, gas_limit) = (transfer.chain_id, transfer.gas_limit);
    match fees {
        Fees::Dynamic { ceiling, tip } => {
            let transaction = TxEip1559 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: ceiling,
                max_priority_fee_per_gas: tip,
                to,
                value,
                access_list: Default::default(),
                input,
            };
            let signature = signature(sign(&transaction.signature_hash().0));
            encoded(&transaction.into_signed(signature).into())
        }
        Fees::Legacy { price } => {
            let transaction = TxLegacy {
                chain_id: Some(chain_id),
                nonce,
                gas_price: price,
                gas_limit,
                to,
                value,
                input,
            };
            let signature = signature(sign(&transaction.signature_hash().0));
            encoded(&transaction.into_signed(signature).into())
        }
    }
}

/// The recipient, the value in wei and the input of a transaction. A token is paid by a call to
/// its contract, without native coin. A cancellation sends nothing to the sender itself.
fn call(transfer: &Transfer, kind: TransactionKind) -> (EthAddress, U256, Bytes) {
    match (kind, &transfer.token) {
        (TransactionKind::Cancellation, _) => (transfer.from.address, U256::ZERO, Bytes::new()),
        (TransactionKind::Payment, None) => (transfer.to.address, transfer.value.0, Bytes::new()),
        (TransactionKind::Payment, Some(token)) => {
            (token.address, U256::ZERO, transfer_call(transfer.to.address, transfer.value))
        }
    }
}

fn signature(HashSignature { r, s, y_parity }: HashSignature) -> Signature {
    Signature::new(U256::from_be_bytes(r), U256::from_be_bytes(s), y_parity)
}

fn encoded(signed: &TxEnvelope) -> ([u8; 32], Vec<u8>) {
    (signed.tx_hash().0, signed.encoded_2718())
}

#[cfg(test)]
mod tests {
    use k256::ecdsa::SigningKey;
    use kms_types::{Asset, Timestamp, Token, TransferId, Units};

    use super::TransactionKind::{Cancellation, Payment};
    use super::*;
    use crate::transfer::{Asked, Ladder, Party, Quote};

    /// The first key of the well-known test mnemonic "test test … junk".
    const KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

    /// The answer of anvil 1.7.1 to `eth_signTransaction` for that key and this transfer.
    const SIGNED: &str = "02f874827a6907843b9aca0084773594008252089470997970c51812dc3a010c7d01b50e\
                          0d17dc79c88806f05b59d3b2000080c001a0f0f4b175f23bff352e1ce6b5cce38db90e74\
                          6f52371d42bac8fc86760cf8c249a00c33da3d4dec8185a2dd6c4346ff471d21e8a97af4\
                          cb8bc562d0136603151c4a";

    const FEES: Fees = Fees::Dynamic { ceiling: 2_000_000_000, tip: 1_000_000_000 };

    fn party(address: &str) -> Party {
        Party { account: None, username: None, address: address.parse().unwrap(), since: None }
    }

    fn transfer() -> Transfer {
        Transfer::from(Quote {
            id: TransferId::random(),
            chain_id: 31_337,
            from: party("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
            to: party("0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
            asked: Asked { to: String::new(), amount: String::new(), asset: Asset::Native },
            token: None,
            value: Units(U256::from(500_000_000_000_000_000_u64)),
            gas_limit: 21_000,
            ladder: Ladder::new(1, FEES, Vec::new()).unwrap(),
            warnings: Vec::new(),
            client_ref: None,
            created_at: Timestamp(0),
            expires_at: Timestamp(0),
        })
    }

    fn token(byte: u8) -> Token {
        Token { symbol: "USDC".parse().unwrap(), address: [byte; 20].into(), decimals: 6 }
    }

    #[test]
    fn a_token_is_paid_by_a_call_with_recipient_and_amount() {
        let with = |change: fn(&mut Transfer)| {
            let mut other = Transfer { token: Some(token(8)), ..transfer() };
            change(&mut other);
            assemble(&other, Payment, FEES, 7, sign_with_known_key)
        };
        let (known, bytes) = with(|_| {});
        // To the contract, no value, then 68 bytes of `transfer(address,uint256)`.
        let call = format!(
            "94{}80b844a9059cbb{:0>64}{:064x}c0",
            "08".repeat(20),
            "70997970c51812dc3a010c7d01b50e0d17dc79c8",
            500_000_000_000_000_000_u64
        );
        assert!(hex::encode(bytes).contains(&call));
        for (other, _) in [
            with(|other| other.token = Some(token(9))),
            with(|other| other.to.address = [9; 20].into()),
            with(|other| other.value = Units(U256::from(1))),
        ] {
            assert_ne!(other, known);
        }
    }

    fn sign_with_known_key(hash: &[u8; 32]) -> HashSignature {
        let key = SigningKey::from_slice(&hex::decode(KEY).unwrap()).unwrap();
        let (signature, recovery) = key.sign_prehash_recoverable(hash).unwrap();
        let (r, s) = signature.split_bytes();
        HashSignature { r: r.into(), s: s.into(), y_parity: recovery.is_y_odd() }
    }

    #[test]
    fn signs_like_another_implementation() {
        let (hash, bytes) = assemble(&transfer(), Payment, FEES, 7, sign_with_known_key);
        assert_eq!(hex::encode(&bytes), SIGNED);
        assert!(is_hash_of(hash, &bytes) && !is_hash_of(hash, &bytes[1..]));
    }

    #[test]
    fn a_cancellation_sends_nothing_to_the_sender() {
        // A legacy transaction is a list without a type: nonce, price, gas, recipient, value,
        // input.
        let price = Fees::Legacy { price: 5 };
        let ours = format!("07058252089{}", "4f39fd6e51aad88f6f4ce6ab8827279cfffb922668080");
        for token in [None, Some(token(8))] {
            let transfer = Transfer { token, ..transfer() };
            let (_, bytes) = assemble(&transfer, Cancellation, price, 7, sign_with_known_key);
            assert!(hex::encode(bytes).contains(&ours));
        }
    }

    #[test]
    fn every_field_is_signed() {
        let known = assemble(&transfer(), Payment, FEES, 7, sign_with_known_key).0;
        let with = |change: fn(&mut Transfer)| {
            let mut other = transfer();
            change(&mut other);
            assemble(&other, Payment, FEES, 7, sign_with_known_key).0
        };
        let at = |fees| assemble(&transfer(), Payment, fees, 7, sign_with_known_key).0;
        for other in [
            assemble(&transfer(), Payment, FEES, 8, sign_with_known_key).0,
            with(|other| other.chain_id = 1),
            with(|other| other.gas_limit += 1),
            with(|other| other.value = Units::default()),
            with(|other| other.to.address = [9; 20].into()),
            with(|other| other.token = Some(token(8))),
            at(Fees::Dynamic { ceiling: FEES.ceiling() + 1, tip: FEES.tip() }),
            at(Fees::Dynamic { ceiling: FEES.ceiling(), tip: FEES.tip() + 1 }),
            at(Fees::Legacy { price: FEES.ceiling() }),
            assemble(&transfer(), Cancellation, FEES, 7, sign_with_known_key).0,
        ] {
            assert_ne!(other, known);
        }
    }
}
