use kms_types::{AssetId, U256};

use super::{EXAMPLE, key, settings};

#[test]
fn a_limit_of_several_chains_is_that_of_each() {
    let usdc = |chain: &str, decimals: u8| {
        let address = "\"0x1111111111111111111111111111111111111111\"";
        format!(
            "[[chains.{chain}.tokens]]\nsymbol = \"USDC\"\naddress = {address}\n\
             decimals = {decimals}\n"
        )
    };
    let base = "[chains.base]\nrpc_urls = [\"https://a\"]\nchain_id = 8453\n\
                name = \"Base\"\nsymbol = \"ETH\"\n";
    let coin = "symbol = \"ETH\"\n";
    let text = format!("{EXAMPLE}{coin}{}{base}{}", usdc("local", 6), usdc("base", 18));
    let with = |limits: &str| {
        let variables = [("KMS_SERVER__PRIMARY_CHAIN", "base")];
        settings(&format!("{text}[limits]\n{limits}"), &variables)
    };
    let found =
        with("spend_a_day = { USDC = \"100\", ETH = \"2\", \"base/eth\" = \"1\" }").unwrap();
    let rules = found.limits.spending(&found.chains, &found.recovery).unwrap();
    let a_day = |asset| rules.caps(asset).a_day.unwrap().0;
    let token = |chain: &str, chain_id| AssetId::of(chain_id, found.chains[chain].tokens.first());
    let million = U256::from(1_000_000_u64);
    // In the decimals that the token has on the chain.
    assert_eq!(a_day(token("local", 31_337)), U256::from(100_u64) * million);
    assert_eq!(a_day(token("base", 8_453)), U256::from(100_u64) * million * million * million);
    let coin = million * million * million;
    assert_eq!(a_day(AssetId::native(31_337)), U256::from(2_u64) * coin);
    assert_eq!(a_day(AssetId::native(8_453)), coin);
    for unknown in ["other/ETH", "base/DAI", "DAI"] {
        let limits = format!("outflow_an_hour = {{ \"{unknown}\" = \"1\" }}");
        assert_eq!(key(with(&limits)), format!("limits.outflow_an_hour.{unknown}"));
    }
}
