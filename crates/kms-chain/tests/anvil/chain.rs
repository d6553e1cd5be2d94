//! Requests to a real node.

use kms_chain::{Chain, ChainError, Code, Endpoint, Market, PlannedPayment};
use kms_testkit::Anvil;
use kms_types::{EthAddress, U256, Wei};
use serde_json::json;

use crate::world::units;

/// The first account of anvil, and an address without code.
const RICH: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
const PLAIN: &str = "0x00000000000000000000000000000000000000cc";

fn start() -> (Anvil, Chain) {
    let anvil = Anvil::start().unwrap();
    anvil.rpc("evm_setAutomine", json!([false])).unwrap();
    let chain = Chain::new(&anvil.url(), anvil.chain_id()).unwrap();
    (anvil, chain)
}

fn address(text: &str) -> EthAddress {
    text.parse().unwrap()
}

fn wei(wei: u64) -> Wei {
    Wei(U256::from(wei))
}

async fn gas_limit(chain: &Chain) -> Result<u64, ChainError> {
    let (from, to, value) = (address(RICH), address(PLAIN), units(1));
    let payment = PlannedPayment { from, to, token: None, value };
    chain.first(|endpoint| endpoint.gas_limit(&payment)).await
}

fn set_code(anvil: &Anvil, code: &str) {
    anvil.rpc("anvil_setCode", json!([PLAIN, code])).unwrap();
}

/// Code that reverts with the `Error(string)` "closed on Sundays".
pub(crate) fn reverting() -> String {
    let reason = hex::encode("closed on Sundays");
    // PUSH1 100, PUSH1 10, PUSH0, CODECOPY, PUSH1 100, PUSH0, REVERT; then what is copied.
    format!("0x6064600a5f3960645ffd08c379a0{:064x}{:064x}{reason:0<64}", 32, 17)
}

/// A payment from anvil's account, signed by anvil.
fn signed(anvil: &Anvil, value: u64) -> Vec<u8> {
    let transaction = json!({
        "from": RICH, "to": PLAIN, "value": format!("{value:#x}"), "gas": "0x5208", "nonce": "0x0",
        "maxFeePerGas": "0x77359400", "maxPriorityFeePerGas": "0x3b9aca00", "type": "0x2",
        "chainId": format!("{:#x}", anvil.chain_id()),
    });
    let raw = anvil.rpc("eth_signTransaction", json!([transaction]));
    hex::decode(raw.unwrap().as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_view_has_balance_block_and_pending_nonce() {
    let (anvil, chain) = start();
    anvil.set_balance(PLAIN, 5).unwrap();
    anvil.rpc("anvil_mine", json!(["0x3"])).unwrap();
    let view = chain.view(address(PLAIN), None).await.unwrap();
    assert_eq!((view.balance, view.block, view.nonce), (wei(5), 3, 0));

    chain.broadcast(&signed(&anvil, 1)).await.unwrap();
    let view = chain.view(address(RICH), None).await.unwrap();
    assert_eq!((view.block, view.nonce), (3, 1));
}

#[tokio::test]
async fn the_market_is_the_base_fee_and_the_tips_of_blocks_with_transactions() {
    let (anvil, chain) = start();
    let block = anvil.rpc("eth_getBlockByNumber", json!(["latest", false]));
    let base = block.unwrap()["baseFeePerGas"].as_str().unwrap().to_owned();
    let base = u128::from_str_radix(base.trim_start_matches("0x"), 16).unwrap();
    let empty = Market::Dynamic { base_fee: base, tips: [0; 3] };
    assert_eq!(chain.first(Endpoint::market).await.unwrap(), empty);
    chain.broadcast(&signed(&anvil, 1)).await.unwrap();
    anvil.rpc("anvil_mine", json!(["0x3"])).unwrap();
    let Market::Dynamic { tips, .. } = chain.market().await.unwrap() else { panic!("no base fee") };
    assert!(tips[0] > 0 && tips.is_sorted(), "{tips:?}");
}

#[tokio::test]
async fn gas_is_exact_without_code_and_has_a_margin_with_it() {
    let (anvil, chain) = start();
    let gas = async || {
        let code = chain.first(|it| it.code(address(PLAIN))).await.unwrap();
        let gas = gas_limit(&chain);
        (code, gas.await)
    };
    assert!(matches!(gas().await, (Code::None, Ok(21_000))));
    // An account that delegates (EIP-7702) is no contract.
    set_code(&anvil, &format!("0xef0100{}", "11".repeat(20)));
    assert!(matches!(gas().await, (Code::Delegation, Ok(21_000..))));
    // STOP: accepts native coin and does nothing. The estimate is one unit above the gas used.
    set_code(&anvil, "0x00");
    let (code, limit) = gas().await;
    assert!(code == Code::Contract && (25_200..25_300).contains(&limit.unwrap()));
}

#[tokio::test]
async fn a_revert_has_its_reason() {
    let (anvil, chain) = start();
    let refusal = async |code: &str| {
        set_code(&anvil, code);
        let gas = gas_limit(&chain);
        match gas.await {
            Err(ChainError::Reverted { reason }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let reason = refusal(&reverting()).await;
    assert!(reason.contains("closed on Sundays"), "{reason}");
    // REVERT without a reason, and an endless loop.
    assert!(!refusal("0x5f5ffd").await.is_empty());
    assert!(!refusal("0x5b5f56").await.is_empty());
}

#[tokio::test]
async fn the_same_bytes_twice_are_one_transaction() {
    let (anvil, chain) = start();
    let bytes = signed(&anvil, 9);
    chain.broadcast(&bytes).await.unwrap();
    // Nodes answer a repeated broadcast differently; it has no effect in any case.
    assert!(!matches!(chain.broadcast(&bytes).await, Err(ChainError::Unavailable(_))));
    anvil.rpc("anvil_mine", json!([])).unwrap();
    assert!(!matches!(chain.broadcast(&bytes).await, Err(ChainError::Unavailable(_))));
    anvil.rpc("anvil_mine", json!([])).unwrap();
    assert_eq!(chain.view(address(PLAIN), None).await.unwrap().balance, wei(9));
    assert_eq!(chain.view(address(RICH), None).await.unwrap().nonce, 1);
    let error = chain.broadcast(b"no transaction").await.unwrap_err();
    assert!(matches!(error, ChainError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_receipt_has_the_block_and_the_real_fee() {
    let (anvil, chain) = start();
    assert_eq!(chain.first(|it| it.receipt([1; 32])).await.unwrap(), None);
    assert!(!chain.first(|it| it.has_transaction([1; 32])).await.unwrap());

    let before = chain.view(address(RICH), None).await.unwrap().balance;
    chain.broadcast(&signed(&anvil, 9)).await.unwrap();
    let pool = anvil.rpc("txpool_content", json!([])).unwrap();
    let hash = pool.pointer("/pending").unwrap().as_object().unwrap();
    let hash = hash.values().next().unwrap()["0"]["hash"].as_str().unwrap();
    let hash: [u8; 32] = hex::decode(hash).unwrap().try_into().unwrap();
    assert!(chain.first(|it| it.has_transaction(hash)).await.unwrap());
    assert_eq!(chain.first(|it| it.receipt(hash)).await.unwrap(), None);

    anvil.rpc("anvil_mine", json!(["0x2"])).unwrap();
    let receipt = chain.first(|it| it.receipt(hash)).await.unwrap().unwrap();
    let after = chain.view(address(RICH), None).await.unwrap().balance;
    assert!(receipt.success && receipt.block == 1);
    assert_eq!(receipt.fee.0, before.0 - after.0 - U256::from(9));
}
