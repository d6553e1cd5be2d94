//! `chains`: the chains that transfers are made on, by their short names.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use kms_chain::follower::Finality;
use kms_chain::{Chain, ChainError, EndpointAddress, HttpHeader, HttpHeaderError, PricePolicy};
use kms_config::{ConfigError, Secret, UrlError, is_https_or_loopback, parse_url};
use kms_store::NoticeFrom;
use kms_types::{Amount, AssetId, Symbol, Token, Units, Wei};
use serde::Deserialize;

/// More decimals than any token has; amounts stay readable.
const MAX_DECIMALS: u8 = 36;

/// The longest short name.
const MAX_SHORT_NAME: usize = 16;

/// A chain that transfers are made on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainSettings {
    /// JSON-RPC endpoints. The first one is used as long as it works.
    pub rpc_urls: Vec<RpcUrl>,
    /// A header for the requests to each of these hosts, such as `Authorization: Bearer KEY`.
    #[serde(default)]
    pub rpc_headers: BTreeMap<String, RpcHeader>,
    /// How long one endpoint may take for a response.
    #[serde(default = "seconds::<5>", deserialize_with = "kms_config::duration")]
    pub rpc_timeout: Duration,
    /// The age of its latest block after which an endpoint counts as stalled and is not used.
    /// `None` is for a chain that produces blocks only when there are transactions.
    #[serde(default = "some_seconds::<600>", deserialize_with = "kms_config::duration_or_none")]
    pub stalled_after: Option<Duration>,
    /// The chain id of EIP-155.
    pub chain_id: u64,
    /// The name that users see.
    pub name: String,
    /// The symbol of the native coin: `ETH` if it is not set, which the only chain alone may omit.
    pub symbol: Option<Symbol>,
    /// The URL of a block explorer, without a slash at its end.
    pub explorer: Option<String>,
    /// When a block is final: `finalized`, the chain's own block tag, or the number of blocks above
    /// it on a chain without the tag.
    #[serde(default = "default_finality", deserialize_with = "kms_config::text")]
    pub finality: Finality,
    /// Whether receipts are proved against the receipts root of their block. `false` is for chains
    /// whose receipts are encoded in a way of their own.
    #[serde(default = "yes")]
    pub prove_receipts: bool,
    /// Whether coin that arrives inside contract calls is found by comparing balances. The
    /// endpoints need the state at the newest final block.
    #[serde(default = "yes")]
    pub compare_balances: bool,
    /// How long a quote can be confirmed.
    #[serde(default = "seconds::<120>", deserialize_with = "kms_config::duration_or_zero")]
    pub quote_lifetime: Duration,
    /// How often the chain is polled for transfers in flight.
    #[serde(default = "seconds::<1>", deserialize_with = "kms_config::duration")]
    pub poll_interval: Duration,
    /// The number of blocks with other transactions after which a pending transfer is replaced at
    /// a higher fee, at least 1. Of more than ten, only the last ten need to have transactions.
    #[serde(default = "default_replace_after")]
    pub replace_after: u64,
    /// How long after a node accepted a transfer it is checked, unless a block contains it: longer
    /// than a block takes on this chain.
    #[serde(default = "seconds::<13>", deserialize_with = "kms_config::duration")]
    pub check_after: Duration,
    /// The highest network fee of a transfer, in the native coin. `None` is unlimited.
    pub max_fee: Option<Amount>,
    /// The highest network fee of the replacements, in percent of an amount in the native coin. A
    /// replacement costs more than the fee that is usual only while the network asks for it. At
    /// most 100.
    #[serde(default = "default_max_fee_share")]
    pub max_fee_share: u8,
    /// The lowest tip, in wei per gas.
    #[serde(default = "default_min_tip")]
    pub min_tip: u64,
    /// The ERC-20 tokens that can be sent.
    #[serde(default)]
    pub tokens: Vec<Token>,
    /// From which amount on an external deposit is notified by itself, by symbol. Smaller ones are
    /// summed up once a day.
    #[serde(default)]
    pub notice_from: BTreeMap<String, Amount>,
}

/// The URL of a JSON-RPC endpoint: `https`, or `http` to a loopback address, because its responses
/// decide whether money has moved. It often holds the key of a provider.
#[derive(Clone, Deserialize)]
#[serde(try_from = "Secret")]
pub struct RpcUrl(Secret);

impl RpcUrl {
    /// Returns the URL with the provider's key.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Whether it is on this host.
    fn is_on(&self, host: &str) -> bool {
        parse_url(self.expose()).is_ok_and(|url| url.host_str() == Some(host))
    }
}

impl TryFrom<Secret> for RpcUrl {
    type Error = UrlError;

    fn try_from(text: Secret) -> Result<Self, UrlError> {
        let url = parse_url(text.expose())?;
        // Some providers authenticate by the user and password of the URL.
        if is_https_or_loopback(&url) { Ok(Self(text)) } else { Err(UrlError::Plaintext) }
    }
}

/// The header that an endpoint wants, mostly with the key of its provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Secret")]
pub struct RpcHeader(HttpHeader);

impl TryFrom<Secret> for RpcHeader {
    type Error = HttpHeaderError;

    fn try_from(text: Secret) -> Result<Self, HttpHeaderError> {
        text.expose().parse().map(Self)
    }
}

impl fmt::Debug for RpcUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RpcUrl(..)")
    }
}

/// An asset that a setting names.
pub(super) struct NamedAsset {
    key: String,
    pub(super) id: AssetId,
    decimals: u8,
}

impl NamedAsset {
    /// Converts an amount to the smallest unit.
    pub(super) fn units(&self, amount: &Amount) -> Result<Units, ConfigError> {
        let units = amount.to_units(self.decimals);
        units.map(Units).map_err(|why| ConfigError::expected(&self.key, &why.to_string()))
    }
}

impl ChainSettings {
    /// Configures the endpoints without sending a request.
    pub(crate) fn open(&self) -> Result<Chain, ChainError> {
        self.over(self.addresses())
    }

    /// Configures each endpoint alone, to try all of them.
    pub(crate) fn open_each(&self) -> impl Iterator<Item = Result<Chain, ChainError>> {
        self.addresses().map(|address| self.over([address]))
    }

    /// The endpoints, each with the header for its host.
    fn addresses(&self) -> impl Iterator<Item = EndpointAddress<'_>> {
        self.rpc_urls.iter().map(|url| {
            let header = self.rpc_headers.iter().find(|(host, _)| url.is_on(host));
            let header = header.map(|(_, RpcHeader(header))| header.clone());
            EndpointAddress { url: url.expose(), header }
        })
    }

    fn over<'a>(
        &self,
        addresses: impl IntoIterator<Item = EndpointAddress<'a>>,
    ) -> Result<Chain, ChainError> {
        Chain::over_addresses(addresses, self.chain_id, self.rpc_timeout, self.stalled_after)
    }

    /// What the operator allows for network fees.
    pub(crate) fn prices(&self) -> PricePolicy {
        PricePolicy {
            // An amount above 2^256 wei, which `validate` refuses, is no limit.
            max_fee: self.max_fee.as_ref().and_then(|amount| Wei::try_from(amount).ok()),
            max_share: self.max_fee_share,
            min_tip: self.min_tip.into(),
        }
    }

    /// The symbol of the native coin.
    pub(crate) fn symbol(&self) -> Symbol {
        self.symbol.clone().unwrap_or_else(Symbol::ether)
    }

    /// All assets, as the setting `key` applies to them.
    fn assets(&self, key: &str) -> impl Iterator<Item = NamedAsset> {
        let tokens = self.tokens.iter().map(|token| (token.symbol.clone(), Some(token)));
        let coin = (self.symbol(), None);
        std::iter::once(coin).chain(tokens).map(move |(symbol, token)| NamedAsset {
            key: format!("{key} of {symbol}"),
            id: AssetId::of(self.chain_id, token),
            decimals: token.map_or(Wei::DECIMALS, |token| token.decimals),
        })
    }

    /// The asset with a symbol, which the setting `key` names.
    fn asset(&self, key: &str, symbol: &str) -> Option<NamedAsset> {
        let token = self.tokens.iter().find(|token| token.symbol.is(symbol));
        if token.is_none() && !self.symbol().is(symbol) {
            return None;
        }
        let decimals = token.map_or(Wei::DECIMALS, |token| token.decimals);
        Some(NamedAsset { key: key.to_owned(), id: AssetId::of(self.chain_id, token), decimals })
    }

    fn validate(&self, section: &str) -> Result<(), ConfigError> {
        if self.max_fee.as_ref().is_some_and(|amount| Wei::try_from(amount).is_err()) {
            return Err(ConfigError::expected(
                &format!("{section}.max_fee"),
                "expected at most 18 decimals",
            ));
        }
        if self.replace_after == 0 {
            return Err(ConfigError::expected(
                &format!("{section}.replace_after"),
                "expected at least 1",
            ));
        }
        if self.max_fee_share > 100 {
            return Err(ConfigError::expected(
                &format!("{section}.max_fee_share"),
                "expected at most 100",
            ));
        }
        if self.rpc_urls.is_empty() {
            return Err(ConfigError::expected(
                &format!("{section}.rpc_urls"),
                "expected at least one URL",
            ));
        }
        let is_used = |host: &&String| self.rpc_urls.iter().any(|url| url.is_on(host));
        if let Some(host) = self.rpc_headers.keys().find(|host| !is_used(host)) {
            let expected = "expected the host of one of rpc_urls";
            return Err(ConfigError::expected(&format!("{section}.rpc_headers.{host}"), expected));
        }
        for (index, token) in self.tokens.iter().enumerate() {
            let before = self.tokens.get(..index).unwrap_or_default();
            if let Some(problem) = self.problem_of(token, before) {
                let problem = format!("{}: {problem}", token.symbol);
                return Err(ConfigError::expected(&format!("{section}.tokens[{index}]"), &problem));
            }
        }
        Ok(())
    }

    fn problem_of(&self, token: &Token, before: &[Token]) -> Option<&'static str> {
        if before.iter().any(|other| other.symbol == token.symbol) {
            Some("another token has this symbol")
        } else if before.iter().any(|other| other.address == token.address) {
            Some("another token has this address")
        } else if token.symbol == self.symbol() {
            Some("the native coin has this symbol")
        } else if token.decimals > MAX_DECIMALS {
            Some("expected at most 36 decimals")
        } else {
            None
        }
    }
}

/// The chains, by their short names.
pub type Chains = BTreeMap<String, ChainSettings>;

/// The short name of the primary chain: the configured one, or the only one.
pub(super) fn primary(chains: &Chains, configured: Option<String>) -> Result<String, ConfigError> {
    let mut names = chains.keys();
    let found = match (configured, names.next(), names.next()) {
        (Some(name), ..) => chains.contains_key(&name).then_some(name),
        (None, Some(only), None) => Some(only.clone()),
        (None, ..) => None,
    };
    found.ok_or_else(no_primary_chain)
}

pub(crate) fn no_primary_chain() -> ConfigError {
    let expected = "expected the short name of one of several chains";
    ConfigError::expected("primary_chain", expected)
}

/// From which amounts on external deposits are notified by themselves.
pub(crate) fn notice_from(chains: &Chains) -> Result<NoticeFrom, ConfigError> {
    let mut found = NoticeFrom::new();
    for (name, chain) in chains {
        for (symbol, amount) in &chain.notice_from {
            let key = format!("chains.{name}.notice_from.{symbol}");
            let asset = chain.asset(&key, symbol).ok_or_else(|| unknown_asset(&key))?;
            found.insert(asset.id, asset.units(amount)?);
        }
    }
    Ok(found)
}

/// All assets of all chains, as the setting `key` applies to them.
pub(super) fn all_assets(chains: &Chains, key: &str) -> impl Iterator<Item = NamedAsset> {
    chains.values().flat_map(move |chain| chain.assets(key))
}

/// The assets that a setting lists: `USDC` on every chain that has it, or `base/USDC` on one chain,
/// which comes later.
pub(super) fn named_assets<'a, T>(
    chains: &Chains,
    key: &str,
    listed: &'a BTreeMap<String, T>,
) -> Result<Vec<(NamedAsset, &'a T)>, ConfigError> {
    let (on_one, on_all): (Vec<_>, Vec<_>) =
        listed.iter().partition(|(name, _)| name.contains('/'));
    let mut found = Vec::new();
    for (name, value) in on_all.into_iter().chain(on_one) {
        let key = format!("{key}.{name}");
        let before = found.len();
        let (chain, symbol) = name.split_once('/').unzip();
        for (short_name, settings) in chains {
            if chain.is_none_or(|chain| chain == short_name) {
                let asset = settings.asset(&key, symbol.unwrap_or(name));
                found.extend(asset.map(|asset| (asset, value)));
            }
        }
        if found.len() == before {
            return Err(unknown_asset(&key));
        }
    }
    Ok(found)
}

fn unknown_asset(key: &str) -> ConfigError {
    ConfigError::expected(key, "expected the symbol of the native coin or of a token")
}

/// Each chain has a short name that can be typed, and an id and a name of its own.
pub(super) fn validate(chains: &Chains) -> Result<(), ConfigError> {
    if chains.is_empty() {
        return Err(ConfigError::expected("chains", "expected at least one"));
    }
    let mut before: Vec<&ChainSettings> = Vec::new();
    for (short_name, chain) in chains {
        let section = format!("chains.{short_name}");
        let is_typed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !(1..=MAX_SHORT_NAME).contains(&short_name.len()) || !short_name.chars().all(is_typed) {
            let expected = "expected a short name of up to 16 letters a to z, digits or -";
            return Err(ConfigError::expected(&section, expected));
        }
        if before.iter().any(|other| other.chain_id == chain.chain_id) {
            let key = format!("{section}.chain_id");
            return Err(ConfigError::expected(&key, "another chain has this id"));
        }
        let is_named = |other: &str| other.eq_ignore_ascii_case(&chain.name);
        if before.iter().any(|other| is_named(&other.name))
            || chains.keys().any(|other| other != short_name && is_named(other))
        {
            let key = format!("{section}.name");
            return Err(ConfigError::expected(&key, "another chain has this name"));
        }
        // A coin that is called ETH beside a real ETH would be believed.
        if chains.len() > 1 && chain.symbol.is_none() {
            let expected = "expected one, because there are several chains";
            return Err(ConfigError::expected(&format!("{section}.symbol"), expected));
        }
        chain.validate(&section)?;
        before.push(chain);
    }
    notice_from(chains).map(drop)
}

fn seconds<const SECONDS: u64>() -> Duration {
    Duration::from_secs(SECONDS)
}

fn some_seconds<const SECONDS: u64>() -> Option<Duration> {
    Some(Duration::from_secs(SECONDS))
}

fn default_replace_after() -> u64 {
    3
}

fn default_max_fee_share() -> u8 {
    25
}

fn default_min_tip() -> u64 {
    1_000_000
}

fn default_finality() -> Finality {
    Finality::Tag
}

fn yes() -> bool {
    true
}
