//! The receipts of a block, proved against the receipts root of its header.
//!
//! A receipt alone is one endpoint's word. All receipts of a block have one Merkle root, which the
//! header commits to: a receipt that was invented or altered does not have it.

use alloy::consensus::proofs::ordered_trie_root_with_encoder;
use alloy::eips::BlockNumberOrTag;
use alloy::providers::Provider;
use alloy::transports::RpcError;
use alloy_rlp::{BufMut, Encodable, Header as RlpHeader};

use super::blocks::Block;
use super::endpoint::Endpoint;
use super::error::ChainError;
use super::receipts::{RawReceipt, Receipt};

const GET_RECEIPTS: &str = "eth_getBlockReceipts";

/// The transaction type of an OP-stack deposit, whose receipt has two more fields.
const OP_DEPOSIT: u8 = 0x7e;

impl Endpoint {
    /// Returns the receipts of a block in the order of its transactions, after it compared their
    /// root with the one of the header; `None` if the endpoint does not have the method.
    ///
    /// # Errors
    /// `FalseReceipts` when the root differs, or when the endpoint fails.
    pub(crate) async fn proved_receipts(
        &self,
        block: &Block,
    ) -> Result<Option<Vec<Receipt>>, ChainError> {
        self.verify().await?;
        let params = (BlockNumberOrTag::Number(block.number),);
        let found = match self.provider.raw_request(GET_RECEIPTS.into(), params).await {
            Err(RpcError::ErrorResp(_)) => return Ok(None),
            found => self.record_outcome::<Option<Vec<RawReceipt>>>(found)?,
        };
        let found = found.unwrap_or_default();
        let root = ordered_trie_root_with_encoder(&found, |receipt: &RawReceipt, out| {
            encode_typed(receipt, out);
        });
        if found.len() != block.transactions.len() || root != block.header.receipts_root {
            return Err(self.mark_failed(ChainError::FalseReceipts { block: block.number }));
        }
        let receipts: Option<Vec<_>> = found.into_iter().map(RawReceipt::parse).collect();
        let false_receipts = ChainError::FalseReceipts { block: block.number };
        receipts.map(Some).ok_or_else(|| self.mark_failed(false_receipts))
    }
}

/// Encodes what the receipts root commits to, as EIP-2718 says: the type, unless it is 0, and the
/// fields in RLP. The hash of the transaction is not among them: the position in the block says
/// which transaction a receipt is of.
fn encode_typed(receipt: &RawReceipt, out: &mut Vec<u8>) {
    let kind: u8 = receipt.kind.to();
    if kind != 0 {
        out.put_u8(kind);
    }
    let mut fields = Vec::new();
    match (receipt.status, receipt.root) {
        (Some(status), _) => status.encode(&mut fields),
        (None, Some(root)) => root.encode(&mut fields),
        (None, None) => {}
    }
    receipt.cumulative_gas_used.encode(&mut fields);
    receipt.logs_bloom.encode(&mut fields);
    let logs: Vec<_> = receipt.logs.iter().map(|log| &log.inner).collect();
    alloy_rlp::encode_list::<_, alloy::primitives::Log>(&logs, &mut fields);
    if kind == OP_DEPOSIT {
        for field in [receipt.deposit_nonce, receipt.deposit_receipt_version].iter().flatten() {
            field.encode(&mut fields);
        }
    }
    RlpHeader { list: true, payload_length: fields.len() }.encode(out);
    out.extend_from_slice(&fields);
}
