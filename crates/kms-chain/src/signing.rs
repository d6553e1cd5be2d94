//! Building and signing an EIP-1559 transaction.

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::eips::eip2718::Encodable2718;
use alloy::primitives::{Address, Bytes, Signature, TxKind, U256};
use kms_core::{HashSignature, OpenWallet};

use crate::transfer::Transfer;

/// The transaction's hash and its bytes (EIP-2718), signed by the wallet for this nonce.
pub(crate) fn sign(transfer: &Transfer, nonce: u64, wallet: &OpenWallet) -> ([u8; 32], Vec<u8>) {
    assemble(transfer, nonce, |hash| wallet.sign_hash(hash))
}

fn assemble(
    transfer: &Transfer,
    nonce: u64,
    sign: impl FnOnce(&[u8; 32]) -> HashSignature,
) -> ([u8; 32], Vec<u8>) {
    let transaction = TxEip1559 {
        chain_id: transfer.chain_id,
        nonce,
        gas_limit: transfer.gas_limit,
        max_fee_per_gas: transfer.fees.max_fee_per_gas,
        max_priority_fee_per_gas: transfer.fees.max_priority_fee_per_gas,
        to: TxKind::Call(Address::from(transfer.to.address)),
        value: transfer.value.0,
        access_list: Default::default(),
        input: Bytes::new(),
    };
    let HashSignature { r, s, y_parity } = sign(&transaction.signature_hash().0);
    let signature = Signature::new(U256::from_be_bytes(r), U256::from_be_bytes(s), y_parity);
    let signed = transaction.into_signed(signature);
    let hash = signed.hash().0;
    (hash, TxEnvelope::from(signed).encoded_2718())
}
