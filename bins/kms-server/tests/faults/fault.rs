//! The faults of a run, by name.

use std::fmt;

use crate::random::Random;

/// What goes wrong in a run, besides lost requests, a crash, an emptied pool and reorganisations of
/// one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing more.
    Losses,
    /// The base fee rises above every signed price and stays there.
    BaseFee,
    /// The sender's coins disappear after payments were signed.
    FundsGone,
    /// The deposit that funds the sender is removed by a reorganisation.
    DepositGone,
    /// The node never accepts payments to one of the two recipients.
    Refused,
    /// A reorganisation removes finalized blocks.
    DeepReorg,
    /// Each answer is that of a node at another height, as behind a load balancer.
    Heights,
    /// The second endpoint is some blocks behind.
    Lagging,
    /// The second endpoint is on another chain with the same id.
    WrongFork,
    /// One of the two endpoints claims to be many blocks ahead, so that its blocks are final early.
    Ahead,
    /// The sender has no coins at all.
    Unfunded,
    /// A token is sent.
    Tokens,
    /// More payments are sent at once than a node's pool takes of one wallet, which is as many as
    /// may be in flight.
    Many,
    /// The owner uses the exported key elsewhere, for the same nonces.
    KeyElsewhere,
    /// A payment that the owner made elsewhere, and that no block includes, is pending before all
    /// others.
    KeyPending,
}

/// The base fee while nothing raises it, and while it is above every signed price.
pub(crate) const LOW: u64 = 1_000_000_000;
pub(crate) const HIGH: u64 = 200_000_000_000;

impl Fault {
    const ALL: [Self; 15] = [
        Self::Losses,
        Self::BaseFee,
        Self::FundsGone,
        Self::DepositGone,
        Self::Refused,
        Self::DeepReorg,
        Self::Heights,
        Self::Lagging,
        Self::WrongFork,
        Self::Ahead,
        Self::Unfunded,
        Self::Tokens,
        Self::Many,
        Self::KeyElsewhere,
        Self::KeyPending,
    ];

    /// The fault of this seed, or the one that `FAULT` names.
    pub(crate) fn of(seed: u64, named: Option<&str>) -> Self {
        if let Some(name) = named {
            let found = Self::ALL.into_iter().find(|fault| fault.name() == name);
            return found.unwrap_or_else(|| panic!("FAULT must be one of {:?}", Self::names()));
        }
        let all = u64::try_from(Self::ALL.len()).unwrap();
        Self::ALL[usize::try_from(seed % all).unwrap()]
    }

    fn names() -> Vec<&'static str> {
        Self::ALL.into_iter().map(Self::name).collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Losses => "losses",
            Self::BaseFee => "base-fee",
            Self::FundsGone => "funds-gone",
            Self::DepositGone => "deposit-gone",
            Self::Refused => "refused",
            Self::DeepReorg => "deep-reorg",
            Self::Heights => "heights",
            Self::Lagging => "lagging",
            Self::WrongFork => "wrong-fork",
            Self::Ahead => "ahead",
            Self::Unfunded => "unfunded",
            Self::Tokens => "tokens",
            Self::Many => "many",
            Self::KeyElsewhere => "key-elsewhere",
            Self::KeyPending => "key-pending",
        }
    }

    /// Whether the servers have two endpoints.
    pub(crate) fn has_two_endpoints(self) -> bool {
        matches!(self, Self::Lagging | Self::WrongFork | Self::Ahead)
    }

    /// Whether payments stay pending until their sender cancels them.
    pub(crate) fn needs_the_sender(self) -> bool {
        matches!(self, Self::FundsGone | Self::DepositGone | Self::Refused)
    }

    /// Whether payments may be priced too low for the chain, until their sender signs them again.
    pub(crate) fn needs_new_prices(self) -> bool {
        matches!(self, Self::BaseFee | Self::WrongFork)
    }

    /// Whether the fault happens to payments that are pending.
    pub(crate) fn needs_pending(self) -> bool {
        let is_stuck = matches!(self, Self::BaseFee | Self::FundsGone | Self::DepositGone);
        is_stuck || self == Self::KeyElsewhere
    }

    /// The base fee of the blocks after the faults.
    pub(crate) fn last_base_fee(self) -> u64 {
        if self == Self::BaseFee { HIGH } else { LOW }
    }

    pub(crate) fn sends(self) -> u64 {
        if matches!(self, Self::Many | Self::KeyPending) { 24 } else { 8 }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A node's words for a transaction that it will never accept.
pub(crate) fn refusal(random: &mut Random) -> &'static str {
    const REFUSALS: [&str; 5] = [
        "intrinsic gas too low",
        "insufficient funds for gas * price + value",
        "transaction underpriced: gas tip cap 1, minimum needed 25000000000",
        "tx fee (1.50 ether) exceeds the configured cap (1.00 ether)",
        "transaction rejected by policy",
    ];
    REFUSALS[usize::try_from(random.below(5)).unwrap()]
}
