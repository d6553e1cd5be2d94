//! Chains that answer as Ethereum does and are not like it where money depends on it: they are
//! refused by name.

use std::fmt;

use alloy::primitives::Address;
use alloy::providers::Provider;
use alloy::transports::RpcError;
use serde_json::Value;

use super::endpoint::Endpoint;
use super::error::ChainError;

/// A family of chains whose payments cannot be made, or not be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// ZKsync Era and other chains of its stack. Gas pays for the data that a transaction publishes
    /// on L1 too, by its price at the time: a transaction that was signed earlier runs out of it.
    ZkStack,
    /// Filecoin. Epochs without a block are part of it, at which a reader of blocks stops.
    Filecoin,
    /// TRON. Its nodes take no Ethereum transactions (`eth_sendRawTransaction`).
    Tron,
}

/// The chains whose family is known by their ids.
const KNOWN: [(u64, Family); 11] = [
    // ZKsync Era and its test network, Abstract, Lens, Sophon, Cronos zkEVM.
    (324, Family::ZkStack),
    (300, Family::ZkStack),
    (2_741, Family::ZkStack),
    (232, Family::ZkStack),
    (50_104, Family::ZkStack),
    (388, Family::ZkStack),
    (314, Family::Filecoin),
    (314_159, Family::Filecoin),
    (728_126_428, Family::Tron),
    // Shasta and Nile, its test networks.
    (2_494_104_990, Family::Tron),
    (3_448_148_188, Family::Tron),
];

impl Family {
    /// The family of a chain, if it is refused.
    #[must_use]
    pub fn of(chain_id: u64) -> Option<Self> {
        KNOWN.iter().find_map(|(id, family)| (*id == chain_id).then_some(*family))
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZkStack => "ZK stack (ZKsync)",
            Self::Filecoin => "Filecoin",
            Self::Tron => "TRON",
        })
    }
}

impl Endpoint {
    /// Refuses a chain of the ZK stack, whatever its id: its nodes know the address of a contract
    /// of the stack. Returns whether the node answered at all: if not, it is asked again with the
    /// next health check.
    pub(super) async fn check_family(&self) -> Result<bool, ChainError> {
        let method = "zks_getBridgehubContract";
        match self.provider.client().request::<_, Value>(method, ()).await {
            Ok(Value::String(answer)) if answer.parse::<Address>().is_ok() => {
                Err(self.mark_failed(self.unsupported(Family::ZkStack)))
            }
            Ok(_) | Err(RpcError::ErrorResp(_)) => Ok(true),
            Err(_) => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_of_known_chains_are_refused_and_no_others() {
        assert_eq!(Family::of(324), Some(Family::ZkStack));
        assert_eq!(Family::of(314), Some(Family::Filecoin));
        // Ethereum, OP Mainnet, BNB Smart Chain, Polygon, Base, Arbitrum One, Linea.
        for supported in [1, 10, 56, 137, 8_453, 42_161, 59_144] {
            assert_eq!(Family::of(supported), None, "{supported}");
        }
    }
}
