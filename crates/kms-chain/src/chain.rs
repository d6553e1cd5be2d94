//! An EVM chain, by JSON-RPC over HTTP through one endpoint or several. Must never show an
//! endpoint's URL, nor decide anything by the text of a message, but whether a contract refused.
//!
//! What belongs together is asked of one endpoint: two of them may stand at different blocks, and
//! what one says must not be read with the other's eyes.

mod blocks;
mod configured;
mod node;
mod tokens;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alloy::rpc::json_rpc::ErrorPayload;
use alloy::transports::{RpcError, TransportError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kms_types::{EthAddress, Token, U256, Units, Wei};

use crate::ports::ChainView;
use crate::transfer::Fees;

pub(crate) use self::blocks::Block;
pub use self::configured::TokenError;
use self::node::LOOK;
pub(crate) use self::node::Node;
pub(crate) use self::tokens::transfer_call;
pub use self::tokens::{Balances, TokenMove};

/// How long an endpoint may take for an answer, if nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Gas of a transfer to an address without code; no transfer takes less.
pub(crate) const PLAIN_TRANSFER_GAS: u64 = 21_000;

/// Gas of a payment is refused from here on: no honest contract takes a tenth of it.
const MOST_GAS: u64 = 1_000_000;

/// Codes for an execution that failed and for nothing else: that of the Ethereum execution API for a
/// revert, and that of clients which have one for their virtual machine. Every other one, -32000
/// among them, is used for the endpoint's own trouble as well.
const EXECUTION_FAILED: [i64; 2] = [3, -32_015];

/// What nodes say of an execution that failed, under whatever code, in lower case: of a revert, and
/// of what runs out of gas or off the road. None of it stands in what they say of themselves.
const FAILED: [&str; 10] = [
    "execution reverted",
    "vm execution error",
    "out of gas",
    "gas required exceeds",
    "invalid opcode",
    "invalid jump",
    "stack underflow",
    "stack limit",
    "return data out of bounds",
    "insufficient funds for",
];

/// How much of a node's or a contract's words is kept.
const MESSAGE_CHARACTERS: usize = 200;

/// One chain. Clones share what they know of its endpoints.
#[derive(Clone)]
pub struct Chain {
    chain_id: u64,
    /// The one that is liked best first. There is at least one.
    nodes: Vec<Arc<Node>>,
    /// When all of them were looked at last.
    looked: Arc<Mutex<Option<Instant>>>,
}

/// Why the chain did not do or say it. Never shows the endpoint's URL, which may hold a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The endpoint does not answer, or not in time, or not in JSON-RPC.
    #[error("the chain's endpoint does not answer: {0}")]
    Unavailable(String),
    /// The endpoint is of another chain.
    #[error("the endpoint is of chain {found}, not of chain {expected}")]
    WrongChain {
        /// As configured.
        expected: u64,
        /// As it says.
        found: u64,
    },
    /// The endpoint answers, and does not follow the chain any more.
    #[error("the endpoint's newest block is {seconds} seconds old by this machine's clock")]
    Stalled {
        /// The block's age.
        seconds: u64,
    },
    /// The node answered with an error.
    #[error("the node refused: {message} ({code})")]
    Refused {
        /// The JSON-RPC code.
        code: i64,
        /// What it says: at most 200 characters, none of them a control character.
        message: String,
    },
    /// The recipient's or the token's contract would refuse the payment.
    #[error("the payment would be refused: {reason}")]
    Reverted {
        /// What the node and the contract say of it: a stranger's text, cut and cleaned as that
        /// of `Refused`.
        reason: String,
    },
    /// A token's contract does not answer as one.
    #[error("the token's contract does not answer as one")]
    NotAToken,
    /// The chain is one from before EIP-1559.
    #[error("the chain has no base fee (EIP-1559)")]
    NoBaseFee,
    /// There is no endpoint.
    #[error("no endpoint of the chain is configured")]
    NoEndpoint,
    /// The URL can not be used.
    #[error("the endpoint is not an http:// or https:// URL")]
    Url,
    /// The HTTP client can not be built.
    #[error("the HTTP client can not be built")]
    Client,
}

/// The latest block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub block: u64,
    /// Its base fee, in wei per gas, on a chain that has one.
    pub base_fee: Option<u64>,
}

/// What became of a transaction that is in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its block.
    pub block: u64,
    /// What the network took.
    pub fee: Wei,
    /// Whether it did what it should.
    pub success: bool,
    /// The tokens that it moved, as their own logs tell.
    pub moves: Vec<TokenMove>,
}

impl Receipt {
    /// How much of a token the one who is paid got, if the one who pays gave any. Only the token's
    /// own log counts. It may have gone through a third hand: some tokens take their fee there.
    #[must_use]
    pub fn arrived(&self, token: &Token, from: EthAddress, to: EthAddress) -> Units {
        let moves = || self.moves.iter().filter(|moved| moved.token == token.address);
        if !moves().any(|moved| moved.from == from && moved.units > Units::default()) {
            return Units::default();
        }
        let got = moves().filter(|moved| moved.to == to).map(|moved| moved.units.0);
        Units(got.fold(U256::ZERO, U256::saturating_add))
    }
}

impl From<TransportError> for ChainError {
    fn from(error: TransportError) -> Self {
        match error {
            RpcError::ErrorResp(payload) if execution_failed(&payload) => {
                Self::Reverted { reason: cleaned(&payload.message) }
            }
            RpcError::ErrorResp(payload) => Self::refused(&payload),
            RpcError::Transport(kind) => Self::Unavailable(match kind.as_http_error() {
                Some(http) => format!("HTTP status {}", http.status),
                None => "no connection, or no answer in time".to_owned(),
            }),
            _ => Self::Unavailable("an answer that is not JSON-RPC".to_owned()),
        }
    }
}

impl ChainError {
    fn refused(payload: &ErrorPayload) -> Self {
        Self::Refused { code: payload.code, message: cleaned(&payload.message) }
    }

    /// Whether it is the endpoint's own trouble (down, another chain, out of its quota, behind), and
    /// not what the chain says of the request.
    fn is_of_the_endpoint(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_)
                | Self::WrongChain { .. }
                | Self::Stalled { .. }
                | Self::NoBaseFee
                | Self::NotAToken
                | Self::Refused { .. }
        )
    }
}

/// The answer of the first endpoint that has one. An endpoint that can not be used is passed over;
/// what the chain refuses, it refuses for all.
macro_rules! first_of {
    ($chain:ident, $node:ident => $answer:expr) => {{
        let mut failed = None;
        for $node in $chain.in_order() {
            match $answer.await {
                Err(error) if error.is_of_the_endpoint() => {
                    failed.get_or_insert(error);
                }
                answer => return answer,
            }
        }
        Err(failed.unwrap_or(ChainError::NoEndpoint))
    }};
}

impl Chain {
    /// Uses an endpoint, without asking yet whether it answers: a server starts while its chain
    /// is down. The chain id is compared before the first call, after every failure, and now and
    /// then.
    ///
    /// # Errors
    /// When the URL can not be used.
    pub fn new(url: &str, chain_id: u64) -> Result<Self, ChainError> {
        Self::over([url], chain_id, TIMEOUT, None)
    }

    /// Uses several, the first as long as it works. Each may take this long for an answer. One
    /// whose newest block is older than `stalled_after` is not used, and one that is behind the
    /// others is asked last; `None` for a chain that makes no blocks while nobody sends.
    ///
    /// # Errors
    /// When there is none, or a URL can not be used.
    pub fn over<'a>(
        urls: impl IntoIterator<Item = &'a str>,
        chain_id: u64,
        timeout: Duration,
        stalled_after: Option<Duration>,
    ) -> Result<Self, ChainError> {
        let node = |(index, url)| {
            Node::new(url, index + 1, chain_id, timeout, stalled_after).map(Arc::new)
        };
        let nodes = urls.into_iter().enumerate().map(node).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(ChainError::NoEndpoint);
        }
        Ok(Self { chain_id, nodes, looked: Arc::default() })
    }

    /// EIP-155.
    #[must_use]
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// Asks every endpoint which chain it is of.
    ///
    /// # Errors
    /// `WrongChain` when one answers that it is of another, and none that it is of this one.
    pub async fn check(&self) -> Result<(), ChainError> {
        let asked = self.nodes.iter().map(|node| node.verify());
        let answers = futures::future::join_all(asked).await;
        if answers.iter().any(Result::is_ok) {
            return Ok(());
        }
        let wrong = |error: &ChainError| matches!(error, ChainError::WrongChain { .. });
        match answers.into_iter().filter_map(Result::err).find(wrong) {
            Some(error) => Err(error),
            // They may come back.
            None => Ok(()),
        }
    }

    /// Those that rest or are behind come last.
    fn in_order(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.look_around();
        let newest = self.nodes.iter().filter_map(|node| node.newest()).max();
        let (last, first): (Vec<_>, Vec<_>) =
            self.nodes.iter().partition(|node| node.rests() || node.is_behind(newest));
        first.into_iter().chain(last)
    }

    /// Sees to it now and then that it is known where all of them stand. Nobody waits for it.
    fn look_around(&self) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if self.nodes.len() < 2 || looked.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        *looked = Some(Instant::now());
        let nodes = self.nodes.clone();
        tokio::spawn(async move {
            futures::future::join_all(nodes.iter().map(|node| node.look())).await;
        });
    }

    /// An endpoint that works, with its latest block: for whatever must not be asked of two.
    pub(crate) async fn node(&self) -> Result<(Arc<Node>, Head), ChainError> {
        first_of!(self, node => async { Ok::<_, ChainError>((Arc::clone(node), node.head().await?)) })
    }

    /// The number of the latest block.
    ///
    /// # Errors
    /// When no endpoint answers, or all are of other chains.
    pub async fn block_number(&self) -> Result<u64, ChainError> {
        first_of!(self, node => node.block_number())
    }

    /// Balance, transaction count (pending ones included), and a block not newer than they are; of
    /// a token too, if one is asked for.
    ///
    /// The count is asked for twice, and the lower is taken: a nonce that is too low is refused by
    /// the chain or by the wallet's other transfers, and one that is too high would wait for ever.
    /// What two endpoints count in blocks meanwhile raises it, so that one that is behind chooses no
    /// nonce that is used; one alone does not, for it could hold up every payment. Balance and block
    /// stay those of one endpoint.
    ///
    /// # Errors
    /// `NotAToken` when the token's contract does not say; else as [`Chain::block_number`].
    pub async fn view(
        &self,
        owner: EthAddress,
        token: Option<&Token>,
    ) -> Result<ChainView, ChainError> {
        let several = self.nodes.len() > 1;
        let others = self.nodes.iter().filter(|node| several && !node.rests());
        let mut counts: FuturesUnordered<_> = others.map(|node| node.mined(owner)).collect();
        let mut counted: Vec<u64> = Vec::new();
        let mut view = std::pin::pin!(self.view_of_one(owner, token));
        let view = loop {
            tokio::select! {
                view = &mut view => break view?,
                Some(count) = counts.next() => counted.extend(count.ok()),
            }
        };
        counted.sort_unstable_by(|one, other| other.cmp(one));
        let nonce = counted.get(1).copied().unwrap_or_default().max(view.nonce);
        Ok(ChainView { nonce, ..view })
    }

    async fn view_of_one(
        &self,
        owner: EthAddress,
        token: Option<&Token>,
    ) -> Result<ChainView, ChainError> {
        first_of!(self, node => node.view(owner, token))
    }

    /// Prices that stay sufficient while the base fee doubles.
    ///
    /// # Errors
    /// `NoBaseFee` on a chain without EIP-1559; else as [`Chain::block_number`].
    pub async fn fees(&self) -> Result<Fees, ChainError> {
        first_of!(self, node => node.fees())
    }

    /// Whether the address has code.
    ///
    /// # Errors
    /// As [`Chain::block_number`].
    pub async fn is_contract(&self, address: EthAddress) -> Result<bool, ChainError> {
        first_of!(self, node => node.is_contract(address))
    }

    /// Gas for sending `value`: exact for an address without code, else the node's estimate and a
    /// fifth more.
    ///
    /// # Errors
    /// `Reverted` when the recipient's contract would refuse it; else as [`Chain::block_number`].
    pub async fn gas(
        &self,
        from: EthAddress,
        to: EthAddress,
        value: Wei,
        contract: bool,
    ) -> Result<u64, ChainError> {
        first_of!(self, node => node.gas(from, to, value, contract))
    }

    /// Sends signed bytes to every endpoint that can be used, and waits for the first that takes
    /// them. The same bytes can not be mined twice, however many nodes have them.
    ///
    /// # Errors
    /// `Refused` also when a node has the transaction, or a later nonce, already: what became of it
    /// is found by looking for its hash, not in the node's words.
    pub async fn broadcast(&self, signed: &[u8]) -> Result<(), ChainError> {
        let send = |node: &Arc<Node>| {
            let (node, signed) = (Arc::clone(node), signed.to_vec());
            // On tasks of their own: the others get it also when the first has answered.
            tokio::spawn(async move { node.broadcast(&signed).await })
        };
        let all = self.nodes.iter().all(|node| node.rests());
        let awake = self.nodes.iter().filter(|node| all || !node.rests());
        let mut sent: FuturesUnordered<_> = awake.map(send).collect();
        let mut failed = None;
        while let Some(answer) = sent.next().await {
            match answer {
                Ok(Ok(())) => return Ok(()),
                // What a node said is more than that another one said nothing.
                Ok(Err(error @ ChainError::Refused { .. })) => failed = Some(error),
                Ok(Err(error)) => drop(failed.get_or_insert(error)),
                Err(_panic) => {}
            }
        }
        Err(failed.unwrap_or(ChainError::NoEndpoint))
    }

    /// Whether a node knows the transaction, in a block or not.
    ///
    /// # Errors
    /// As [`Chain::block_number`].
    pub async fn knows(&self, hash: [u8; 32]) -> Result<bool, ChainError> {
        first_of!(self, node => node.knows(hash))
    }

    /// Whether every endpoint says that it does not know the transaction, in a block or not: what one
    /// of them has forgotten is not gone, and one that does not answer may know it.
    pub(crate) async fn nobody_knows(&self, hash: [u8; 32]) -> bool {
        let asked = self.nodes.iter().map(|node| async move {
            let (known, receipt) = tokio::join!(node.knows(hash), node.receipt(hash));
            matches!((known, receipt), (Ok(false), Ok(None)))
        });
        !futures::future::join_all(asked).await.contains(&false)
    }

    /// What became of the transaction, if it is in a block.
    ///
    /// # Errors
    /// As [`Chain::block_number`].
    pub async fn receipt(&self, hash: [u8; 32]) -> Result<Option<Receipt>, ChainError> {
        first_of!(self, node => node.receipt(hash))
    }

    /// The native coin and all of these tokens, in one request: through Multicall3 where it is,
    /// else in a batch.
    ///
    /// # Errors
    /// As [`Chain::block_number`].
    pub async fn balances(
        &self,
        owner: EthAddress,
        tokens: &[Token],
    ) -> Result<Balances, ChainError> {
        first_of!(self, node => node.balances(owner, tokens))
    }

    /// How much of a token somebody has.
    ///
    /// # Errors
    /// `NotAToken` when the contract does not say; else as [`Chain::block_number`].
    pub async fn token_balance(
        &self,
        token: EthAddress,
        owner: EthAddress,
    ) -> Result<Units, ChainError> {
        first_of!(self, node => node.token_balance(token, owner))
    }

    /// What a token's contract says of its decimals and its name.
    async fn token_words(
        &self,
        token: EthAddress,
    ) -> Result<(Option<u8>, Option<String>), ChainError> {
        first_of!(self, node => node.token_words(token))
    }

    /// Gas for sending this much of a token: the node's estimate and a fifth more.
    ///
    /// # Errors
    /// `Reverted` when the contract would refuse it, says `false` instead, or takes more gas than
    /// an honest one; else as [`Chain::block_number`].
    pub async fn token_gas(
        &self,
        token: EthAddress,
        from: EthAddress,
        to: EthAddress,
        units: Units,
    ) -> Result<u64, ChainError> {
        first_of!(self, node => node.token_gas(token, from, to, units))
    }
}

/// Whether it says of the request that it fails on the chain. What a contract says with its revert
/// comes as hex in `data`; some nodes put a word before it.
fn execution_failed(payload: &ErrorPayload) -> bool {
    let data: Option<String> = payload.try_data_as().and_then(Result::ok);
    let is_revert = |data: &str| data.trim_start_matches("Reverted ").starts_with("0x");
    let message = payload.message.to_lowercase();
    EXECUTION_FAILED.contains(&payload.code)
        || data.as_deref().is_some_and(is_revert)
        || FAILED.iter().any(|words| message.contains(words))
}

/// Foreign text that is fit for a log line and for a person's screen.
fn cleaned(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(MESSAGE_CHARACTERS).collect()
}

/// By hand: the provider's own text shows the URL.
impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("chain_id", &self.chain_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_may_have_gone_through_a_third_hand() {
        let [us, token, ann, bob, third, other] = [1, 2, 3, 4, 5, 6].map(|byte| [byte; 20].into());
        let of = Token { symbol: "USDC".parse().unwrap(), address: token, decimals: 6 };
        let moved = |token, from, to, units: u64| TokenMove {
            token,
            from,
            to,
            units: Units(U256::from(units)),
        };
        let arrived = |moves: &[TokenMove]| {
            let (fee, moves) = (Wei::default(), moves.to_vec());
            Receipt { block: 1, fee, success: true, moves }.arrived(&of, ann, bob)
        };
        let units = |units: u64| Units(U256::from(units));
        assert_eq!(arrived(&[moved(token, ann, bob, 9), moved(token, ann, third, 1)]), units(9));
        assert_eq!(arrived(&[moved(token, ann, third, 10), moved(token, third, bob, 9)]), units(9));
        // Kept by the third hand, paid by somebody else, nothing, another token.
        assert_eq!(arrived(&[moved(token, ann, third, 10)]), units(0));
        assert_eq!(arrived(&[moved(token, us, bob, 10)]), units(0));
        assert_eq!(arrived(&[moved(token, ann, bob, 0), moved(token, us, bob, 10)]), units(0));
        assert_eq!(arrived(&[moved(other, ann, bob, 10)]), units(0));
    }
}
